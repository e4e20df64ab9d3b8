"""The features of an image in a ``.npy`` or ``.npz`` file. Nothing is ever unpickled.

Shapes: n grid cells or regions, f channels of each, G the side of a grid. Known layouts: TRAR's
``.npy`` (n, f); openvqa's and MCAN's ``.npz`` with x (f, n) and bbox; bottom-up-attention.pytorch's
with x (n, f), bbox and a pickled info; ROSITA's with x and boxes; CLEVR's with x in Fortran order.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.readers.npy_format import (
    LONGEST_HEADER,
    NPY_MAGIC,
    ArrayHeader,
    read_header,
    read_values,
)
from trar.pipeline.readers.raw_file import RawFile
from trar.pipeline.readers.zip_members import (
    ReadAt,
    ZipEntry,
    entry_bytes,
    entry_head,
    list_entries,
)

_FEATURES = ("x", "features", "feature", "image_features", "feat", "arr_0")
_BOXES = ("bbox", "boxes")
_COUNT = "num_bbox"
_SIZES = (("image_h", "image_w"), ("image_height", "image_width"), ("img_h", "img_w"))
_WIDTH = 2048  # f of every published region feature
_LARGEST_SIDE = 1 << 20  # pixels


def array_image(data: bytes, form: Form, where: str) -> RawImage:
    """The image in the bytes of a ``.npy`` or ``.npz``; regions as (n, f).

    Raises:
        RawDataError: damaged, an object array, or no array that can be an image in this form.
    """
    if data.startswith(NPY_MAGIC):
        header = read_header(data, len(data), where)
        return image_of_array(read_values(data, header, where), form, where)
    view = memoryview(data)
    npz = _open_npz(io.BytesIO(data), lambda offset, count: view[offset : offset + count], where)
    name = npz.choose(form)
    features, size = npz.load(name), npz.image_size()
    if form.grid is not None:
        return RawImage(features, size=size)
    boxes = npz.boxes()
    image = image_of_array(features, form, f"{where}, array {name}", boxes)
    npz.check_count(len(image.features))
    return RawImage(image.features, boxes, size)


def image_of_array(
    array: NDArray[Any], form: Form, where: str, boxes: NDArray[Any] | None = None
) -> RawImage:
    """The image in an array; regions as (n, f).

    A (f, G, G) read as regions of a width not yet known stays as it is, so that the caller can see
    that it is a grid.

    Raises:
        RawDataError: it cannot be an image in this form.
    """
    if array.ndim not in (2, 3) or not array.size:
        raise RawDataError(f"{where}: shape {array.shape}, {_expected(form)}")
    if form.grid is None and array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if form.grid is None and not (array.ndim == 3 and _fits(array.shape, form)):
        array = orient_regions(array, form, boxes, where)
    return RawImage(array, boxes)


def count_regions(file: RawFile, form: Form) -> int:
    """n of the image in a ``.npy`` or ``.npz``, by its headers alone.

    Raises:
        RawDataError: as ``array_image``, as far as headers tell.
    """
    boxes: int | None = None
    with file.open() as stream:
        head = stream.read(LONGEST_HEADER)
        if head.startswith(NPY_MAGIC):
            shape = read_header(head, file.size, file.name).shape
        else:
            npz = _open_npz(stream, _reader_of(stream), file.name)
            shape = npz.headers[npz.choose(form)].shape
            boxes = npz.box_count()
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    return shape[_region_axis(shape, form, boxes, file.name)]


def orient_regions(
    array: NDArray[Any], form: Form, boxes: NDArray[Any] | None, where: str
) -> NDArray[Any]:
    """Bring (n, f) or (f, n) into (n, f), without a copy.

    f is the axis of ``form.width`` (2048 where no width is known yet), else n is the axis as long
    as the boxes, else the shorter one.

    Raises:
        RawDataError: not two axes, neither fits, or another number of boxes than of regions.
    """
    count = None if boxes is None else len(boxes)
    oriented = array if _region_axis(array.shape, form, count, where) == 0 else array.T
    if count is not None and len(oriented) != count:
        raise RawDataError(
            f"{where}: {len(oriented)} regions but {count} boxes, expected one box a region; "
            "extract this image again"
        )
    return oriented


def _region_axis(shape: tuple[int, ...], form: Form, boxes: int | None, where: str) -> int:
    """The axis of the regions, 0 or 1."""
    if len(shape) == 2 and all(shape):
        width = form.width if form.width is not None else _WIDTH
        if width in shape:
            return 0 if shape[1] == width else 1
        if form.width is None:
            if boxes in shape:
                return 0 if shape[0] == boxes else 1
            return 0 if shape[0] <= shape[1] else 1
    raise RawDataError(f"{where}: shape {shape}, {_expected(form)}")


def _fits(shape: tuple[int, ...], form: Form) -> bool:
    """Whether an array of this shape can be an image in this form."""
    if len(shape) not in (2, 3) or not all(shape):
        return False
    if form.grid is not None:
        cells = form.grid * form.grid
        return cells in shape if len(shape) == 2 else shape[1:] == (form.grid, form.grid)
    if len(shape) == 3 and shape[0] != 1:
        return form.width is None and shape[1] == shape[2]
    return form.width is None or form.width in shape[-2:]


def _expected(form: Form) -> str:
    if form.grid is not None:
        cells = form.grid * form.grid
        return (
            f"expected ({cells}, f), (f, {cells}) or (f, {form.grid}, {form.grid}) for a "
            f"{form.grid}x{form.grid} grid; use features of that grid, or --grid for another side"
        )
    if form.width is None:
        return "expected (n, f) or (f, n) for n regions of f channels"
    return (
        f"expected (n, {form.width}) or ({form.width}, n) for n regions, as in this store (its "
        "first image, or --feature-dim); features of two extractors must not be mixed"
    )


@dataclass(frozen=True)
class _Npz:
    """The arrays of a ``.npz`` by name: their headers, or what is wrong with them."""

    where: str
    read_at: ReadAt
    entries: dict[str, ZipEntry]
    headers: dict[str, ArrayHeader]
    faults: dict[str, RawDataError]

    def header(self, name: str) -> ArrayHeader | None:
        """None where there is no such array; a fault counts only in an array that is needed."""
        if name in self.faults:
            raise self.faults[name]
        return self.headers.get(name)

    def load(self, name: str) -> NDArray[Any]:
        where = f"{self.where}, array {name}"
        header = self.headers[name]
        if header.dtype.hasobject:  # refused, and not even unpacked
            return read_values(b"", header, where)
        return read_values(entry_bytes(self.read_at, self.entries[name], where), header, where)

    def choose(self, form: Form) -> str:
        """The array of the features: by name, else the first float array that fits."""
        for name in _FEATURES:
            header = self.header(name)
            if header is not None and (header.dtype.hasobject or _fits(header.shape, form)):
                return name
        for name, header in self.headers.items():
            if header.dtype.kind == "f" and name not in _BOXES and _fits(header.shape, form):
                return name
        for fault in self.faults.values():
            raise fault
        found = [f"{name} {one.shape} {one.dtype}" for name, one in self.headers.items()]
        raise RawDataError(
            f"{self.where}: no array of features, {_expected(form)}; "
            f"it holds {', '.join(found) or 'no array'}"
        )

    def boxes(self) -> NDArray[Any] | None:
        for name in _BOXES:
            header = self.header(name)
            if header is not None and not header.dtype.hasobject:
                boxes = self.load(name)
                if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
                    raise RawDataError(
                        f"{self.where}, array {name}: {boxes.shape} {boxes.dtype}, expected (n, 4) "
                        "numbers, x1 y1 x2 y2 of each region; extract this image again"
                    )
                return boxes
        return None

    def box_count(self) -> int | None:
        found = [header for header in map(self.header, _BOXES) if header is not None]
        return next((header.shape[0] for header in found if header.shape), None)

    def image_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels."""
        for names in _SIZES:
            height, width = (self._number(name) for name in names)
            if height is None or width is None:
                continue
            if not (1 <= height <= _LARGEST_SIDE and 1 <= width <= _LARGEST_SIDE):
                raise RawDataError(
                    f"{self.where}: {names[0]} {height:g} and {names[1]} {width:g}, expected sizes "
                    "in pixels; extract this image again"
                )
            return int(height), int(width)
        return None

    def check_count(self, regions: int) -> None:
        stated = self._number(_COUNT)
        if stated is not None and stated != regions:
            raise RawDataError(
                f"{self.where}: {_COUNT} is {stated:g}, its features have {regions} regions: "
                "damaged, or another width than --feature-dim; extract this image again"
            )

    def _number(self, name: str) -> float | None:
        header = self.header(name)
        if header is None or header.dtype.kind not in "fiu" or header.shape not in ((), (1,)):
            return None
        return float(self.load(name).reshape(-1)[0])


def _open_npz(stream: BinaryIO, read_at: ReadAt, where: str) -> _Npz:
    entries: dict[str, ZipEntry] = {}
    headers: dict[str, ArrayHeader] = {}
    faults: dict[str, RawDataError] = {}
    for entry in list_entries(stream, where):
        name = entry.name.removesuffix(".npy")
        if name == entry.name or name in entries:
            continue
        place = f"{where}, array {name if name.isprintable() else ascii(name)}"
        entries[name] = entry
        try:
            headers[name] = read_header(entry_head(read_at, entry, place), entry.size, place)
        except RawDataError as fault:
            faults[name] = fault
    return _Npz(where, read_at, entries, headers, faults)


def _reader_of(stream: BinaryIO) -> ReadAt:
    def read_at(offset: int, count: int) -> bytes:
        stream.seek(offset)
        return stream.read(count)

    return read_at
