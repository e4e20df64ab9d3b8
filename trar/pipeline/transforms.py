"""From a raw image to what the store keeps: orientation, checks, cast.

Shapes: n grid cells in raster order, or n regions; f channels of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.features.schema import FeatureSpec
from trar.features.shard_writer import PreparedImage
from trar.pipeline.half_cast import to_half
from trar.pipeline.readers.arrays import orient_regions
from trar.pipeline.readers.image import Form, RawImage

_UNSIGNED: dict[int, Any] = {2: np.uint16, 4: np.uint32, 8: np.uint64}  # by bytes


def fits_grid(shape: tuple[int, ...], grid: int) -> bool:
    """Whether an array of this shape can be the features of a grid x grid image."""
    cells = grid * grid
    return (len(shape) == 2 and cells in shape) or (
        len(shape) == 3 and shape[1:] == (grid, grid) and shape[0] > 0
    )


def orient_grid(array: NDArray[Any], grid: int, where: str) -> NDArray[Any]:
    """Bring (n, f), (f, n) or (f, grid, grid) into (n, f) with n = grid * grid.

    A square (n, n) is taken as (n, f). Nothing is ever cut or padded.

    Raises:
        RawDataError: any other shape, for example a 16x16 file under an 8x8 grid.
    """
    cells = grid * grid
    if not fits_grid(array.shape, grid):
        found = grid_side(array.shape)
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


def grid_side(shape: tuple[int, ...]) -> int | None:
    """The side of the grid that an array of this shape looks like, or None."""
    for size in shape[:2] if len(shape) == 2 else ():
        side: int = round(size**0.5)
        if side > 1 and side * side == size and side <= 32:
            return side
    if len(shape) == 3 and shape[1] == shape[2]:
        return int(shape[1])
    return None


def prepare_image(raw: RawImage, form: Form, spec: FeatureSpec, where: str) -> PreparedImage:
    """Check one image and cast it to the store's dtype.

    ``cells`` are found before the cast, so that tiny values that become zero stay cells.

    Raises:
        RawDataError: another shape than the store's, NaN or infinity, or a value that the
            store's dtype cannot hold.
    """
    if form.grid is not None:
        values = orient_grid(raw.features, form.grid, where)
    else:
        values = orient_regions(raw.features, form, raw.boxes, where)
    _check_shape(values, raw, spec, where)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    tops = _largest_of_rows(values)
    largest = float(tops.max())
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
    stored, error = _cast(values, spec.dtype)
    cells: NDArray[np.bool_] = tops != 0
    boxes = _check_boxes(raw, spec, len(values), where)
    size = raw.size if raw.size is not None else (0, 0)
    return PreparedImage(np.ascontiguousarray(stored), cells, largest, error, boxes, size)


def _largest_of_rows(values: NDArray[Any]) -> NDArray[Any]:
    """The largest magnitude of each row, (n,); NaN or infinity where the row has one.

    Without its sign bit a float is ordered as an unsigned integer is, NaN above infinity; numpy
    compares integers at the speed of memory, and float16 fifty times slower.
    """
    kind = _UNSIGNED.get(values.dtype.itemsize)
    if kind is None:
        tops: NDArray[Any] = np.abs(values).max(axis=1)
        return tops
    magnitudes = values.view(kind) & kind(np.iinfo(kind).max >> 1)
    return np.ascontiguousarray(magnitudes.max(axis=1)).view(values.dtype)


def _cast(values: NDArray[Any], dtype: str) -> tuple[NDArray[Any], float]:
    """In the store's dtype, and the largest difference that this makes."""
    if values.dtype == np.float32 and dtype == "float16":
        return to_half(values)
    stored = values.astype(dtype, copy=False)
    if np.can_cast(values.dtype, stored.dtype, "safe"):
        return stored, 0.0
    return stored, float(np.abs(stored.astype(values.dtype) - values).max())


def _check_shape(values: NDArray[Any], raw: RawImage, spec: FeatureSpec, where: str) -> None:
    rows, width = values.shape
    if width != spec.width:
        raise RawDataError(
            f"{where}: {width} channels a cell, expected {spec.width} as in this store "
            "(its first image, or --feature-dim); features of two extractors must not be mixed"
        )
    if values.dtype.kind != "f":
        raise RawDataError(
            f"{where}: dtype {values.dtype}, expected float16, float32 or float64 features"
        )
    if not spec.ragged and rows != spec.rows:
        raise RawDataError(
            f"{where}: {rows} regions, the images before it have {spec.rows}: adaptive features? "
            "prepare them with --layout ragged"
        )


def _check_boxes(
    raw: RawImage, spec: FeatureSpec, regions: int, where: str
) -> NDArray[np.float32] | None:
    if not spec.boxes:
        return None
    if raw.boxes is None:
        raise RawDataError(
            f"{where}: no boxes, the first image of this store has them; use one kind of features"
        )
    boxes = np.asarray(raw.boxes, np.float32)
    if boxes.shape != (regions, 4):
        raise RawDataError(
            f"{where}: boxes of shape {boxes.shape}, expected ({regions}, 4): one box x1 y1 x2 y2 "
            "for each region"
        )
    if not np.isfinite(boxes).all():
        raise RawDataError(f"{where}: a box is NaN or infinite; extract this image again")
    return boxes
