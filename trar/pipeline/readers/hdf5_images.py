"""Image features in one HDF5 file: clevr-iep's grids, and the regions of BUTD and BAN.

Shapes: N images, k regions of each, f channels. Read from their writers: clevr-iep
`extract_features.py` (``features`` (N, f, g, g)), bottom-up-attention-vqa
`detection_features_converter.py` (``image_features`` (N, k, f), ``image_bb`` (N, k, 4),
``spatial_features`` (N, k, 6)), ban-vqa `adaptive_detection_features_converter.py` (the same three
flat over all regions, and ``pos_boxes`` (N, 2), where each image's regions start and end).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.hdf5_layout import Dataset, read_layout
from trar.pipeline.readers.hdf5_rows import StoredRows
from trar.pipeline.readers.id_table import SUFFIXES, read_id_table
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.readers.regular_file import reading

_KNOWN = (
    "features (N, f, g, g) as clevr-iep makes it; image_features (N, k, f) with image_bb "
    "(N, k, 4) as bottom-up-attention-vqa does; image_features (regions, f) with image_bb "
    "(regions, 4) and pos_boxes (N, 2) as ban-vqa does"
)
_MAX_IMAGES = 1 << 23  # COCO has a third of a million
_MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class Hdf5Images:
    """The images of one HDF5 file by ascending id.

    ``starts`` and ``stops`` (images,) are each image's range in the first axis of ``features``,
    one entry for a grid or a fixed number of regions (``regions_each``; 0: an entry is a region).
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    features: StoredRows
    boxes: StoredRows | None
    spatial: StoredRows | None
    regions_each: int
    stamp: str

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Hdf5Images:
        """The images of rows start..stop, small enough to send to a worker."""
        starts, stops = self.starts[start:stop], self.stops[start:stop]
        return replace(
            self,
            ids=self.ids[start:stop],
            starts=starts,
            stops=stops,
            features=self.features.keep(starts, stops),
            boxes=None if self.boxes is None else self.boxes.keep(starts, stops),
            spatial=None if self.spatial is None else self.spatial.keep(starts, stops),
        )

    def with_form(self, form: Form) -> Hdf5Images:
        """The same images: an HDF5 file has one form, which this must not contradict.

        Raises:
            RawDataError: a grid is asked of regions.
        """
        if form.grid is not None and self.boxes is not None:
            raise RawDataError(
                f"{self.features.where()}: regions with boxes, not a {form.grid}x{form.grid} grid; "
                "leave --grid out"
            )
        return self

    def read(self, row: int) -> RawImage:
        """The image of a row: a grid (f, g, g), or regions (n, f) with their boxes (n, 4) and, with
        ``spatial_features``, the size of the image.

        Raises:
            RawDataError: damaged, or its regions are not in the file.
        """
        start, stop = self._range(row)
        whose = f", image {self.ids[row]}"

        def values(rows: StoredRows) -> NDArray[Any]:
            read = rows.read(start, stop, whose)
            return read[0] if self.regions_each else read

        features = values(self.features)
        if self.boxes is None:
            return RawImage(features)
        boxes = values(self.boxes).astype(np.float32)
        if self.spatial is None:
            return RawImage(features, boxes)
        return RawImage(features, boxes, _find_size(boxes, values(self.spatial)))

    def regions(self, row: int) -> int:
        """How many regions (of a grid: cells) a row has; nothing of it is read.

        Raises:
            RawDataError: its regions are not in the file.
        """
        start, stop = self._range(row)
        return self.regions_each or stop - start

    def name(self, row: int) -> str:
        """Where the image comes from, for messages."""
        return f"{self.features.where()}, image {self.ids[row]}"

    def fingerprint(self) -> str:
        """Changes when the file or the table of its ids is replaced."""
        digest = hashlib.sha256(self.stamp.encode())
        for column in (self.ids, self.starts, self.stops):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def _range(self, row: int) -> tuple[int, int]:
        start, stop = int(self.starts[row]), int(self.stops[row])
        if not 0 <= start < stop <= len(self.features):
            raise RawDataError(
                f"{self.name(row)}: its regions are said to be {start} to {stop} of "
                f"{len(self.features)}; make the file again"
            )
        return start, stop


def scan_hdf5(path: Path, image_split: str, ids: Path | None = None) -> Hdf5Images:
    """Find the images of an HDF5 file. ``ids`` is the table of image ids; None: the one beside the
    file (``train36.hdf5`` has ``train36_imgid2idx.pkl`` or ``.json``), and a grid without any has
    the images 0..N-1 of CLEVR.

    Raises:
        RawDataError: not HDF5, damaged, of an unknown layout, or the ids are missing or do not fit.
    """
    file = Archive.of(path)
    found, ranges = _open_rows(file, read_layout(file))
    table = ids if ids is not None else _table_beside(path)
    if table is None and found.boxes is None:
        image_ids = rows = np.arange(len(ranges), dtype=np.int64)
        stamp = file.stamp(0)
    elif table is None:
        beside = " or ".join(f"{path.stem}_imgid2idx{suffix}" for suffix in reversed(SUFFIXES))
        raise RawDataError(
            f"{path}: the table that tells which image each row is, {beside}, is not beside it; "
            "put it there"
        )
    else:
        image_ids, rows = read_id_table(table, image_split)
        _check_rows(path, table, rows, len(ranges))
        stamp = f"{file.stamp(0)} {Archive.of(table).stamp(0)}"
    starts, stops = ranges[rows, 0], ranges[rows, 1]
    return replace(found, ids=image_ids, starts=starts, stops=stops, stamp=stamp)


def _open_rows(file: Archive, layout: dict[str, Dataset]) -> tuple[Hdf5Images, NDArray[np.int64]]:
    """The arrays of a known layout, and each image's range of entries, (N, 2), in the file's
    order."""

    def rows(name: str) -> StoredRows:
        return StoredRows.open(file, layout[name])

    shapes = {name: one.shape for name, one in layout.items()}
    grid, features, boxes, positions = (
        shapes.get(name, ()) for name in ("features", "image_features", "image_bb", "pos_boxes")
    )
    if len(grid) == 4 and min(grid) > 0 and grid[2] == grid[3]:
        found = _without_ids(rows("features"), None, None, grid[2] * grid[3])
        return found, _one_each(found.features)
    fixed = len(features) == 3 and boxes == (*features[:2], 4)
    ragged = len(features) == 2 and boxes == (features[0], 4) and positions[1:] == (2,)
    if min(features, default=0) < 1 or not (fixed or ragged):
        held = ", ".join(sorted(one.describe() for one in layout.values())[:20])
        raise RawDataError(
            f"{file.path}: not a layout known here: it holds {held or 'no dataset'}; "
            f"expected {_KNOWN}"
        )
    spatial = layout.get("spatial_features")
    if spatial is not None and (spatial.shape != (*features[:-1], 6) or spatial.problem):
        spatial = None  # it only tells the size of the images, which nothing depends on
    found = _without_ids(
        rows("image_features"),
        rows("image_bb"),
        None if spatial is None else rows(spatial.name),
        features[1] if fixed else 0,
    )
    return found, _one_each(found.features) if fixed else _read_ranges(rows("pos_boxes"))


def _without_ids(
    features: StoredRows, boxes: StoredRows | None, spatial: StoredRows | None, regions_each: int
) -> Hdf5Images:
    if features.dtype.kind != "f":
        raise RawDataError(
            f"{features.where()}: {features.dtype.name}, expected float16, float32 or float64"
        )
    none = np.zeros(0, np.int64)
    return Hdf5Images(none, none, none, features, boxes, spatial, regions_each, "")


def _one_each(features: StoredRows) -> NDArray[np.int64]:
    if len(features) > _MAX_IMAGES:
        raise RawDataError(
            f"{features.where()}: claims {len(features)} images, at most {_MAX_IMAGES} are "
            "expected: damaged; copy or download the file again"
        )
    starts = np.arange(len(features), dtype=np.int64)
    return np.stack([starts, starts + 1], 1)


def _read_ranges(positions: StoredRows) -> NDArray[np.int64]:
    """``pos_boxes``; that its ranges lie in the file is checked image by image."""
    values = positions.read(0, len(positions))
    if values.dtype.kind not in "iu":
        raise RawDataError(f"{positions.where()}: {values.dtype.name}, expected whole numbers")
    return values.astype(np.int64)


def _table_beside(path: Path) -> Path | None:
    with reading(path):
        for suffix in SUFFIXES:
            table = path.with_name(f"{path.stem}_imgid2idx{suffix}")
            if table.exists():
                return table
    return None


def _check_rows(path: Path, table: Path, rows: NDArray[np.int64], images: int) -> None:
    if len(rows) != images:
        raise RawDataError(
            f"{table}: {len(rows)} image ids, {path.name} has {images} images; they are not of "
            "one extraction: put the table there that came with the file"
        )
    if not np.array_equal(np.sort(rows), np.arange(images)):
        raise RawDataError(
            f"{table}: the rows are not 0 to {images - 1}, each once; put the table there that "
            f"came with {path.name}"
        )


def _find_size(boxes: NDArray[np.float32], spatial: NDArray[Any]) -> tuple[int, int] | None:
    """Height and width of the image, from boxes in pixels (n, 4) and relative to it (n, 6)."""
    sides = []
    for column in (3, 2):  # y2, x2
        row = int(np.argmax(boxes[:, column]))  # the largest gives the least rounding
        pixels, share = float(boxes[row, column]), float(spatial[row, column])
        if not (math.isfinite(pixels) and 0 < share <= 1.01):
            return None
        side = round(pixels / share)
        if not 0 < side < _MAX_SIDE:
            return None
        sides.append(side)
    return sides[0], sides[1]
