"""TRAR's pooling of detector maps against the recipe written out cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trar.errors import ConfigError, RawDataError
from trar.pipeline.readers.grid_map import pool_map


def pool_by_loops(features: NDArray[Any], grid: int, keep_portrait: bool) -> NDArray[Any]:
    """Turn, pad to 32x32, pool 2x2 as often as needed, flatten: one number at a time."""
    channels, height, width = features.shape
    if height > width and not keep_portrait:
        features = np.swapaxes(features, 1, 2)
        height, width = width, height
    top, left = max((32 - height) // 2, 0), max((32 - width) // 2, 0)
    square = [[[0.0] * 32 for _ in range(32)] for _ in range(channels)]
    for channel in range(channels):
        for row in range(min(height, 32)):
            for column in range(min(width, 32)):
                square[channel][top + row][left + column] = float(features[channel, row, column])
    side = 32
    while side > grid:
        side //= 2
        square = [
            [
                [
                    max(one[2 * row + y][2 * column + x] for y in (0, 1) for x in (0, 1))
                    for column in range(side)
                ]
                for row in range(side)
            ]
            for one in square
        ]
    cells = [
        [square[c][row][column] for c in range(channels)] for row, column in np.ndindex(side, side)
    ]
    return np.array(cells, features.dtype)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    grid=st.sampled_from([8, 16, 32]),
    keep_portrait=st.booleans(),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_pooling_equals_plain_loops(
    height: int, width: int, grid: int, keep_portrait: bool, dtype: type, seed: int
) -> None:
    features = np.random.default_rng(seed).standard_normal((3, height, width)).astype(dtype)
    pooled = pool_map(features, grid, "x", keep_portrait=keep_portrait)
    assert pooled.dtype == dtype
    assert pooled.flags.c_contiguous
    np.testing.assert_array_equal(pooled, pool_by_loops(features, grid, keep_portrait))
    np.testing.assert_array_equal(
        pooled, pool_map(features[None], grid, "x", keep_portrait=keep_portrait)
    )


@pytest.mark.parametrize(
    ("height", "width", "of_256", "of_64"),
    [(19, 25, 130, 42), (19, 19, 100, 36), (19, 32, 160, 48)],
)
def test_cells_that_real_maps_reach(height: int, width: int, of_256: int, of_64: int) -> None:
    features = np.ones((1, 2048, height, width), np.float32)
    for grid, expected in ((16, of_256), (8, of_64)):
        cells = pool_map(features, grid, "x").any(axis=1)
        assert int(cells.sum()) == expected


def test_portrait_maps_are_turned_unless_kept() -> None:
    landscape = np.random.default_rng(0).random((5, 19, 25), np.float32)
    portrait = np.swapaxes(landscape, 1, 2)
    np.testing.assert_array_equal(pool_map(portrait, 8, "x"), pool_map(landscape, 8, "x"))
    kept = pool_map(portrait, 8, "x", keep_portrait=True).reshape(8, 8, 5)
    np.testing.assert_array_equal(
        np.swapaxes(kept, 0, 1).reshape(64, 5), pool_map(landscape, 8, "x")
    )


def test_what_reaches_beyond_the_square_is_left_out() -> None:
    features = np.random.default_rng(0).random((4, 33, 40), np.float32)
    np.testing.assert_array_equal(
        pool_map(features, 16, "x"), pool_map(features[:, :32, :32], 16, "x")
    )


def test_nan_stays_to_be_found() -> None:
    features = np.ones((2, 19, 25), np.float32)
    features[1, 3, 4] = np.nan
    assert int(np.isnan(pool_map(features, 8, "x")).sum()) == 1


@pytest.mark.parametrize("grid", [1, 7, 14, 64])
def test_other_grids_cannot_be_pooled_to(grid: int) -> None:
    with pytest.raises(ConfigError, match=r"--grid .*8, 16 or 32"):
        pool_map(np.ones((2, 19, 25), np.float32), grid, "x")


@pytest.mark.parametrize(
    "shape", [(2, 4, 19, 25), (19, 25), (0, 4, 4), (1, 4, 0, 4), (1, 1, 4, 4, 4)]
)
def test_other_shapes_are_no_map(shape: tuple[int, ...]) -> None:
    with pytest.raises(RawDataError, match=r"x: shape .*expected a float map \(1, f, H, W\)"):
        pool_map(np.zeros(shape, np.float32), 8, "x")


def test_integers_are_no_map() -> None:
    with pytest.raises(RawDataError, match="int64, expected a float map"):
        pool_map(np.zeros((4, 19, 25), np.int64), 8, "x")


def test_padding_sets_aside_no_more_than_one_image_may_have() -> None:
    with pytest.raises(RawDataError, match=r"padded to 32x32: .* one image may have"):
        pool_map(np.ones((20_000, 1, 1), np.float32), 8, "x")
