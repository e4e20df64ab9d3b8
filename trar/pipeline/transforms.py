"""From a raw feature array to what the store keeps: orientation, checks, cast.

Shapes: n grid cells in raster order, f channels a cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.features.schema import FeatureSpec
from trar.features.writer import PreparedImage


def fits_grid(shape: tuple[int, ...], grid: int) -> bool:
    """Whether an array of this shape can be the features of a grid x grid image."""
    cells = grid * grid
    return (len(shape) == 2 and cells in shape) or (
        len(shape) == 3 and shape[1:] == (grid, grid) and shape[0] > 0
    )


def orient(array: NDArray[Any], grid: int, where: str) -> NDArray[Any]:
    """Bring (n, f), (f, n) or (f, grid, grid) into (n, f) with n = grid * grid.

    A square (n, n) is taken as (n, f). Nothing is ever cut or padded.

    Raises:
        RawDataError: any other shape, for example a 16x16 file under an 8x8 grid.
    """
    cells = grid * grid
    if not fits_grid(array.shape, grid):
        found = _square_side(array.shape)
        hint = f"it looks like a {found}x{found} grid: " if found else ""
        raise RawDataError(
            f"{where}: shape {array.shape}, expected ({cells}, f), (f, {cells}) or "
            f"(f, {grid}, {grid}) for a {grid}x{grid} grid; {hint}use features of that grid, or "
            "--grid for another side"
        )
    if array.ndim == 3:
        array = array.reshape(array.shape[0], cells)
        return array.T
    return array if array.shape[0] == cells else array.T


def prepare_image(array: NDArray[Any], spec: FeatureSpec, where: str) -> PreparedImage:
    """Check one image and cast it to the store's dtype.

    ``cells`` are found before the cast, so that tiny values that become zero stay cells.

    Raises:
        RawDataError: another shape than the store's, NaN or infinity, or a value that the
            store's dtype cannot hold.
    """
    values = orient(array, spec.grid[0], where)
    if values.shape[1] != spec.width:
        raise RawDataError(
            f"{where}: {values.shape[1]} channels a cell, expected {spec.width} as in this store "
            "(its first image, or --feature-dim); features of two extractors must not be mixed"
        )
    if values.dtype.kind != "f":
        raise RawDataError(
            f"{where}: dtype {values.dtype}, expected float16, float32 or float64 features"
        )
    largest = float(max(values.max(), -values.min()))
    if not np.isfinite(largest):
        bad = int((~np.isfinite(values)).sum())
        raise RawDataError(
            f"{where}: {bad} of {values.size} values are NaN or infinite; extract this image again"
        )
    limit = float(np.finfo(spec.dtype).max)
    if largest > limit:
        raise RawDataError(
            f"{where}: largest value {largest:g}, {spec.dtype} holds at most {limit:g}; "
            "use --dtype float32, or check the extractor"
        )
    stored = values.astype(spec.dtype)
    exact = np.can_cast(values.dtype, stored.dtype, "safe")
    error = 0.0 if exact else float(np.abs(stored.astype(values.dtype) - values).max())
    cells: NDArray[np.bool_] = np.any(values, axis=1)
    return PreparedImage(np.ascontiguousarray(stored), cells, largest, error)


def _square_side(shape: tuple[int, ...]) -> int | None:
    for size in shape[:2] if len(shape) == 2 else ():
        side: int = round(size**0.5)
        if side > 1 and side * side == size and side <= 32:
            return side
    if len(shape) == 3 and shape[1] == shape[2]:
        return int(shape[1])
    return None
