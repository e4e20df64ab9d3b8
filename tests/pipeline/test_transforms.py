"""From raw arrays to stored ones: orientation, checks, and a cast whose error is known."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.features.schema import FeatureSpec
from trar.features.shard_writer import PreparedImage
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.transforms import orient_grid, prepare_image

SPEC = FeatureSpec(64, 5, "float16", (8, 8))


def prepared(values: NDArray[np.floating]) -> PreparedImage:
    return prepare_image(RawImage(values), Form(8, 5), SPEC, "x")


@given(st.integers(1, 70), st.integers(2, 5))
def test_orientations_agree(width: int, grid: int) -> None:
    cells = grid * grid
    values = np.random.default_rng(width).random((cells, width), np.float32)
    np.testing.assert_array_equal(orient_grid(values, grid, "x"), values)
    np.testing.assert_array_equal(
        orient_grid(np.ascontiguousarray(values.T.reshape(width, grid, grid)), grid, "x"), values
    )
    if width != cells:  # a square array is taken as (cells, channels)
        np.testing.assert_array_equal(orient_grid(values.T, grid, "x"), values)


@pytest.mark.parametrize("shape", [(63, 5), (5,), (2, 64, 5), (5, 8, 9), (256, 5), (64,), ()])
def test_other_shapes_are_never_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(RawDataError, match=r"x: shape .* expected \(64, f\)"):
        orient_grid(np.zeros(shape, np.float32), 8, "x")


def test_cells_are_found_before_the_cast() -> None:
    values = np.zeros((64, 5), np.float32)
    values[3, 2] = 1e-20  # becomes 0 in float16, but the cell is there
    image = prepared(values)
    assert image.cells.nonzero()[0].tolist() == [3]
    assert not image.values.any()


@given(st.floats(-60000, 60000, width=32), st.sampled_from(["float16", "float32", "float64"]))
def test_cast_error_is_stated(value: float, dtype: str) -> None:
    values = np.full((64, 5), value, dtype)
    image = prepared(values)
    found = np.abs(image.values.astype(np.float64) - values.astype(np.float64)).max()
    assert image.cast_error == pytest.approx(float(found), abs=1e-6)
    assert image.largest_value == pytest.approx(abs(float(values[0, 0])))


def test_infinity_is_refused() -> None:
    values = np.zeros((64, 5), np.float32)
    values[1, 1] = -np.inf
    with pytest.raises(RawDataError, match="1 of 320 values are NaN or infinite"):
        prepared(values)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "longdouble"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_any_float_is_measured_and_cast_as_numpy_does(
    dtype: str, order: Literal["C", "F"], stored: Literal["float16", "float32"]
) -> None:
    values = np.random.default_rng(0).standard_normal((64, 5)) * [1e-7, 1, -300, 0, -1e-30]
    values[3:9] = 0
    values[4, 2] = -0.0
    values = np.array(values.astype(dtype), order=order)
    image = prepare_image(RawImage(values), Form(8, 5), FeatureSpec(64, 5, stored, (8, 8)), "x")
    expected = values.astype(stored)
    np.testing.assert_array_equal(image.values, expected)
    assert image.values.flags.c_contiguous
    np.testing.assert_array_equal(image.cells, (values != 0).any(axis=1))
    assert image.largest_value == float(np.abs(values).max())
    exact = np.can_cast(values.dtype, expected.dtype, "safe")
    error = 0.0 if exact else float(np.abs(expected.astype(values.dtype) - values).max())
    assert image.cast_error == error


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_every_kind_of_no_number_is_refused(dtype: str, bad: float) -> None:
    values = np.ones((64, 5), dtype)
    values[7, 3] = bad
    with pytest.raises(RawDataError, match="1 of 320 values are NaN or infinite"):
        prepared(values)
