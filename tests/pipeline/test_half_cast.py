"""The cast to float16 is numpy's, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trar.pipeline.half_cast import to_half

LARGEST = 65504


def check(values: NDArray[np.float32]) -> None:
    """Against numpy's own cast, signs of zero included."""
    stored, error = to_half(values)
    expected = values.astype(np.float16)
    assert stored.shape == expected.shape
    np.testing.assert_array_equal(
        np.ascontiguousarray(stored).view(np.uint16), np.ascontiguousarray(expected).view(np.uint16)
    )
    assert error == float(np.abs(expected.astype(np.float32) - values).max())


def test_every_half_and_what_lies_about_the_middle_of_two() -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[1:] + halves[:-1]) / 2  # exact: float32 has 13 bits more
    about = [np.nextafter(middles, np.float32(to)) for to in (0, 1e9)]
    values = np.concatenate([halves, middles, *about])
    check(values)
    check(-values)


@given(st.lists(st.floats(-LARGEST, LARGEST, width=32), min_size=1, max_size=40))
def test_any_numbers(numbers: list[float]) -> None:
    check(np.array(numbers, np.float32))


def test_random_bits() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, np.float32(LARGEST).view(np.uint32) + 1, 200_001, np.uint32)
    bits |= rng.integers(0, 2, len(bits), np.uint32) << np.uint32(31)
    check(bits.view(np.float32))


@pytest.mark.parametrize("form", ["C", "F", "strided"])
def test_any_memory_order(form: str) -> None:
    values = np.random.default_rng(1).standard_normal((7, 9), np.float32)
    if form == "F":
        values = np.asfortranarray(values)
    if form == "strided":
        values = values[::2, ::3]
    check(values)
