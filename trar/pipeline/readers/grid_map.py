"""TRAR's recipe from a detector's feature map to a square grid of cells.

A map (f, H, W), which is smaller than 32x32, is laid in the middle of 32x32 zeros; 2x2 max pooling
makes 16x16 of it, pooling twice 8x8. TRAR turns maps of portrait images (H > W) on their diagonal
first. Source: the published recipe, rentainhe/TRAR-Feature-Extraction ``utils.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import ConfigError, RawDataError
from trar.pipeline.readers.raw_file import refuse_large

PADDED = 32
SIDES = (8, 16, 32)


def pool_map(
    features: NDArray[Any], grid: int, where: str, *, keep_portrait: bool = False
) -> NDArray[Any]:
    """A float map (f, H, W) or (1, f, H, W) as (grid * grid, f) in raster order, contiguous.

    What reaches beyond 32 rows or columns is left out, as in the recipe.

    Raises:
        ConfigError: a grid other than 8, 16 or 32.
        RawDataError: no map of floats.
    """
    if grid not in SIDES:
        raise ConfigError(
            f"--grid {grid}: detector maps ({where}) are padded to 32x32 and pooled, which gives "
            "8, 16 or 32; choose one of them"
        )
    if features.ndim == 4 and features.shape[0] == 1:
        features = features[0]
    if features.ndim != 3 or not features.size or features.dtype.kind != "f":
        raise RawDataError(
            f"{where}: shape {features.shape} {features.dtype}, expected a float map (1, f, H, W) "
            "of one image"
        )
    channels, height, width = features.shape
    # float16 has no fast maximum; the way through float32 is exact
    wide = np.dtype(np.float32) if features.dtype == np.float16 else features.dtype
    refuse_large(PADDED * PADDED * channels * wide.itemsize, f"{where}, padded to 32x32")
    if height > width and not keep_portrait:
        features, height, width = features.transpose(0, 2, 1), width, height
    top, left = max(PADDED - height, 0) // 2, max(PADDED - width, 0) // 2
    height, width = min(height, PADDED), min(width, PADDED)
    pooled = PADDED // grid
    first_row, rows = _pooled_range(top, height, pooled)
    first_column, columns = _pooled_range(left, width, pooled)
    # only what the map touches is pooled, channels last: that runs along contiguous memory
    touched = np.zeros((rows * pooled, columns * pooled, channels), wide)
    row, column = top - first_row * pooled, left - first_column * pooled
    touched[row : row + height, column : column + width] = features[:, :height, :width].transpose(
        1, 2, 0
    )
    if pooled > 1:
        strips = touched.reshape(rows, pooled, columns * pooled, channels).max(axis=1)
        touched = strips.reshape(rows, columns, pooled, channels).max(axis=2)
    cells = np.zeros((grid, grid, channels), features.dtype)
    cells[first_row : first_row + rows, first_column : first_column + columns] = touched
    return cells.reshape(grid * grid, channels)


def _pooled_range(start: int, length: int, pooled: int) -> tuple[int, int]:
    """The first pooled row (or column) that start..start+length touches, and how many it does."""
    first = start // pooled
    return first, -(-(start + length) // pooled) - first
