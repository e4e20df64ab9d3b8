"""Region features in one table of text: LXMERT's ``obj36`` files and the bottom-up originals.

A line is an image, its columns are separated by tabs and the arrays are base64 of little-endian
values. Shapes: n regions, f channels. Two orders of columns are in use, and no header says which:

- LXMERT (`src/utils.py`): img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes
  boxes features;
- bottom-up-attention (`tools/generate_tsv.py`): image_id image_w image_h num_boxes boxes features,
  the width before the height.

A line is some 400 KB long and a file 20 GB, so one pass finds where the lines begin and what their
first bytes say; base64 is decoded when an image is read.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.id_table import parse_image_name
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.readers.raw_file import MAX_IMAGE_BYTES, PlainFile, RawFile
from trar.pipeline.readers.regular_file import reading
from trar.pipeline.readers.zip_members import list_zip

_BLOCK_BYTES = 8 << 20
_HEAD_BYTES = 32 << 10  # all columns but the features, for up to 600 regions
_MAX_LINE_BYTES = MAX_IMAGE_BYTES * 4 // 3
_MAX_SIDE = 1 << 16

_NUMBER = re.compile(rb"[0-9]{1,6}")
# Column 4 tells the two orders apart: a short number, or base64 of at least one int64 (12 letters).
_LXMERT = re.compile(rb"(?:[^\t]*\t){3}[^\t]{12,}\t(?:[^\t]*\t){3}([0-9]{1,6})\t[^\t]*\t")
_BOTTOM_UP = re.compile(rb"(?:[^\t]*\t){3}([0-9]{1,6})\t[^\t]*\t")


@dataclass(frozen=True)
class TsvImages:
    """The images of one table by ascending id; every column is (images,) int64.

    ``begins`` and ``ends`` are byte offsets, ``lines`` count from 1, ``counts`` are numbers of
    regions (-1: the line does not say), ``width`` is f of most of the file's images.
    """

    file: RawFile
    ids: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    lines: NDArray[np.int64]
    counts: NDArray[np.int64]
    width: int

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> TsvImages:
        """The images of rows start..stop, small enough to send to a worker."""
        rows = slice(start, stop)
        return TsvImages(
            self.file,
            self.ids[rows],
            self.begins[rows],
            self.ends[rows],
            self.lines[rows],
            self.counts[rows],
            self.width,
        )

    def with_form(self, form: Form) -> TsvImages:
        """The same images: a line says itself what form its regions have.

        Raises:
            RawDataError: a grid is asked for.
        """
        if form.grid is not None:
            raise RawDataError(
                f"{self.file.name}: regions with boxes, not a {form.grid}x{form.grid} grid; leave "
                "--grid out"
            )
        return self

    def read(self, row: int) -> RawImage:
        """The image of a row: features (n, f) float32, boxes (n, 4) float32 and the image's size.

        Raises:
            RawDataError: the line is cut short or damaged, or its columns contradict each other.
        """
        where, begin, end = self.name(row), int(self.begins[row]), int(self.ends[row])
        if end - begin > _MAX_LINE_BYTES:
            raise RawDataError(
                f"{where}: a line of {end - begin} bytes, one image may have {_MAX_LINE_BYTES}: "
                "not a line of region features"
            )
        with reading(Path(self.file.name)), self.file.open() as stream:
            stream.seek(begin)
            data = stream.read(end - begin)
        if len(data) != end - begin:
            raise RawDataError(
                f"{where}: the file ends within this line, it was longer when this run began; do "
                "not change raw files while they are read"
            )
        return _parse_line(data, self.width, where)

    def regions(self, row: int) -> int:
        """How many regions a row has, as found by the scan.

        Raises:
            RawDataError: the line does not say, with what is wrong with it.
        """
        count = int(self.counts[row])
        return count if count > 0 else len(self.read(row).features)

    def name(self, row: int) -> str:
        """File, line and image, for messages."""
        return f"{self.file.name}, line {self.lines[row]}, image {self.ids[row]}"

    def fingerprint(self) -> str:
        """Changes when the file is replaced, or its lines are others."""
        digest = hashlib.sha256(self.file.stamp().encode())
        for column in (self.ids, self.begins, self.ends):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def scan_tsv(path: Path, image_split: str) -> TsvImages:
    """Find the images of a ``.tsv``, or of the one in a ``.zip``, in one pass over its bytes.

    Raises:
        RawDataError: missing, empty or damaged, a line that names no image, an image of another
            split, or an image twice. What else a line can be wrong with is found by ``read``.
    """
    file = _open_table(path, image_split)
    table = array("q")
    widths: Counter[int] = Counter()
    with reading(path):
        for number, begin, end, head in _iterate_lines(file):
            image_id = _identify(file, number, head, image_split)
            if image_id is None:
                continue
            count, width = _measure(head, end - begin)
            widths[width] += count > 0
            table.extend((image_id, begin, end, number, count))
    if not table:
        raise RawDataError(f"{file.name}: no image in it: an empty file; download it again")
    rows = np.frombuffer(table, np.int64).reshape(-1, 5)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    ids, begins, ends, lines, counts = (np.ascontiguousarray(column) for column in rows.T)
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if len(again):
        first = int(again[0])
        raise RawDataError(
            f"{file.name}: image {ids[first]} in line {lines[first]} and again in line "
            f"{lines[first + 1]}; keep one"
        )
    width = widths.most_common(1)[0][0]
    return TsvImages(file, ids, begins, ends, lines, counts, width)


def _open_table(path: Path, image_split: str) -> RawFile:
    """The table itself, or the member of a zip that is one; LXMERT's val and test zips have it in a
    folder, train's has not."""
    if path.suffix.lower() != ".zip":
        return PlainFile(path)
    members = list_zip(path)
    tables = [one for one in members if _is_table(one.entry.name)]
    if len(tables) > 1:  # the one that says which split it is
        tables = [one for one in tables if image_split in PurePosixPath(one.entry.name).name]
    if len(tables) == 1:
        return tables[0]
    held = ", ".join(ascii(one.entry.name)[1:-1] for one in members[:8])
    raise RawDataError(
        f"{path}: expected one .tsv in it, or one whose name has {image_split}; it holds "
        f"{held or 'nothing'}{', ...' if len(members) > 8 else ''}. Unpack the right one"
    )


def _is_table(member: str) -> bool:
    name = PurePosixPath(member)
    outside = name.is_absolute() or ".." in name.parts
    return name.suffix.lower() == ".tsv" and name.parts[0] != "__MACOSX" and not outside


def _iterate_lines(file: RawFile) -> Iterator[tuple[int, int, int, bytes]]:
    """Number, first byte, end and first bytes (32 KiB) of each line; the newline is not in it."""
    block = bytearray(_BLOCK_BYTES)
    number, begin, offset, head = 1, 0, 0, b""
    with file.open() as stream:
        while count := stream.readinto(block):  # type: ignore[attr-defined]
            position = 0
            while position < count:
                end = block.find(b"\n", position, count)
                stop = count if end < 0 else end
                if len(head) < _HEAD_BYTES:
                    head += block[position : min(stop, position + _HEAD_BYTES - len(head))]
                if end < 0:
                    break
                yield number, begin, offset + end, head
                number, begin, head, position = number + 1, offset + end + 1, b"", end + 1
            offset += count
    if begin < offset:
        yield number, begin, offset, head


def _identify(file: RawFile, number: int, head: bytes, image_split: str) -> int | None:
    """The image of a line; None for a blank line, or a header at the top."""
    first, tab, _ = head.partition(b"\t")
    if not head.strip() or (number == 1 and first in (b"img_id", b"image_id")):
        return None
    image = parse_image_name(first.decode("ascii", "replace")) if tab else None
    where = f"{file.name}, line {number}"
    if image is None:
        start = ascii(first[:40])[1:]
        cut = "" if tab else " and no tab follows"
        raise RawDataError(
            f"{where}: begins with {start}{cut}, expected an image such as "
            f"COCO_{image_split}_000000000009: cut short, damaged, or not a table of region "
            "features; download it again"
        )
    if image[0] not in (None, image_split):
        raise RawDataError(
            f"{where}: an image of {image[0]} in the file of {image_split}; put the file of the "
            "right split there"
        )
    return image[1]


def _measure(head: bytes, line_bytes: int) -> tuple[int, int]:
    """Number of regions and channels of a line by its first bytes and length; -1, 0 if unclear."""
    match = _LXMERT.match(head) or _BOTTOM_UP.match(head)
    count = int(match[1]) if match is not None else 0
    if match is None or count == 0:
        return -1, 0
    features = (line_bytes - match.end()) // 4 * 3  # up to 2 too many, less than a region's
    return count, features // (4 * count)


def _parse_line(data: bytes, width: int, where: str) -> RawImage:
    fields = data.removesuffix(b"\r").split(b"\t")
    if len(fields) == 10 and not _NUMBER.fullmatch(fields[3]):
        (height, wide), (number, boxes, features) = fields[1:3], fields[7:]
    elif len(fields) == 6:
        (wide, height), (number, boxes, features) = fields[1:3], fields[3:]
    else:
        raise RawDataError(
            f"{where}: {len(fields)} columns, expected 10 (LXMERT) or 6 (bottom-up-attention): cut "
            "short or damaged; download it again"
        )
    size = _whole(height, "the height", where), _whole(wide, "the width", where)
    count = _whole(number, "the number of boxes", where)
    if count == 0 or width == 0:
        raise RawDataError(f"{where}: {count} regions of {width} channels; extract it again")
    shown = 0 < size[0] < _MAX_SIDE and 0 < size[1] < _MAX_SIDE
    return RawImage(
        _decode(features, (count, width), "features", where),
        _decode(boxes, (count, 4), "boxes", where),
        size if shown else None,
    )


def _whole(field: bytes, what: str, where: str) -> int:
    if not _NUMBER.fullmatch(field):
        raise RawDataError(
            f"{where}: {what} is {ascii(field[:20])[1:]}, expected a whole number: damaged; "
            "download the file again"
        )
    return int(field)


def _decode(field: bytes, shape: tuple[int, int], what: str, where: str) -> NDArray[np.float32]:
    """The float32 array of a base64 column, whose length is checked before it is decoded."""
    expected = 4 * shape[0] * shape[1]
    found = len(field) // 4 * 3 - field[-2:].count(b"=")
    if found != expected or len(field) % 4:
        raise RawDataError(
            f"{where}: {len(field)} letters of {what}, which is {found} bytes, expected {expected} "
            f"for {shape[0]} regions of {shape[1]}: cut short, damaged or of another extractor; "
            "download the file again"
        )
    try:
        values = binascii.a2b_base64(field, strict_mode=True)
    except binascii.Error as error:
        raise RawDataError(
            f"{where}: {what} are not base64 ({error}): damaged; download the file again"
        ) from None
    return np.frombuffer(values, "<f4").reshape(shape)
