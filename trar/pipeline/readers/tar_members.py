"""Tars and gzipped tars, read member by member where they lie.

Source: POSIX.1-2001 ustar and pax, with GNU tar's long names and base-256 numbers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from trar.errors import RawDataError
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.gzip_source import GzipSource
from trar.pipeline.readers.gzip_stream import GzipStream, new_index_file
from trar.pipeline.readers.raw_file import (
    MAX_IMAGE_BYTES,
    FileRange,
    member_name,
    open_range,
    refuse_large,
)
from trar.pipeline.readers.regular_file import cut_short

BLOCK = 512
_FILES = b"\x000" + b"7"  # regular: old, new, contiguous
_LINKS = b"12"
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes
_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL, _SPARSE = b"L", b"K", b"x", b"g", b"S"
_LONGEST_EXTRA = 1 << 20  # what a long name or a pax header may take
_PAX_RECORD = re.compile(rb"([0-9]{1,8}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class GzipMember:
    """A member of a gzipped tar, as a raw file."""

    stream: GzipStream
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return member_name(self.stream.source.archive, self.member)

    def stamp(self) -> str:
        return self.stream.source.archive.stamp(self.offset)

    def read(self) -> bytes:
        refuse_large(self.size, self.name)
        data = self.stream.read_at(self.offset, self.size)
        if len(data) != self.size:
            raise cut_short(self.name, len(data), self.size)
        return data

    def open(self) -> BinaryIO:
        if self.size <= MAX_IMAGE_BYTES:  # once is cheaper than every jump within it
            return io.BytesIO(self.read())
        return open_range(self.stream.read_at, self.offset, self.size, self.name)


@dataclass(frozen=True, slots=True)
class TarEntry:
    """What a tar says of a member; ``plain`` is False for links and sparse files, whose bytes do
    not stand at ``offset``."""

    name: str
    offset: int
    size: int
    plain: bool


def list_tar(archive: Archive) -> Iterator[tuple[TarEntry, FileRange]]:
    """The files and links in a tar, in its order.

    Raises:
        RawDataError: cut short (with the byte where it ends) or damaged.
    """
    for entry in walk_tar(archive.read_at, archive.size, str(archive.path)):
        yield entry, FileRange(archive, entry.name, entry.offset, entry.size)


def list_gzipped_tar(archive: Archive) -> Iterator[tuple[TarEntry, GzipMember]]:
    """The files and links in a gzipped tar, in its order; the first one comes after a pass over
    the whole archive, which makes the later reads quick.

    Raises:
        RawDataError: cut short (with the byte where it ends), damaged, or no tar in it.
    """
    place = str(archive.path)
    source = GzipSource(archive, place, 0, archive.size)
    stream = GzipStream(source, new_index_file(archive, 0))
    if not is_tar_header(stream.read_at(0, BLOCK)):
        raise RawDataError(
            f"{place}: a gzip file without a tar in it; unpack it with gunzip, or pack the "
            "feature files as .tar.gz"
        )
    for entry in walk_tar(stream.read_at, stream.decoded_size(), f"{place}, unzipped"):
        yield entry, GzipMember(stream, entry.name, entry.offset, entry.size)


def is_tar_header(block: bytes) -> bool:
    """Whether 512 bytes are a tar header with a right checksum, or the empty block of an empty
    tar."""
    return len(block) == BLOCK and (block == bytes(BLOCK) or _checksum_fits(block))


def walk_tar(read_at: Callable[[int, int], bytes], size: int, where: str) -> Iterator[TarEntry]:
    """Every file and link of ``size`` bytes of tar that ``read_at(offset, count)`` gives.

    Raises:
        RawDataError: as ``list_tar``.
    """
    position = 0
    long_name: str | None = None
    pax_size: int | None = None
    while True:
        block = read_at(position, BLOCK)
        if len(block) < BLOCK:
            raise RawDataError(
                f"{where}: cut short at {size} bytes: the blocks that end a tar are missing; "
                "download or copy it again"
            )
        if block == bytes(BLOCK):
            return
        if not _checksum_fits(block):
            raise RawDataError(
                f"{where}: damaged at byte {position}: no tar header there; download it again"
            )
        kind = block[156:157]
        data = position + BLOCK
        length = _number(block[124:136], f"{where}: damaged at byte {position}")
        if kind in (_GNU_NAME, _PAX):
            extra = _extra(read_at, data, length, where)
            if kind == _GNU_NAME:
                long_name = _text(extra)
            else:
                path, pax_size = _pax(extra, f"{where}: damaged at byte {data}")
                long_name = path if path is not None else long_name
        elif kind not in (_GNU_LINK, _PAX_GLOBAL):
            length = pax_size if pax_size is not None else length
            if kind in _WITHOUT_DATA:
                length = 0
            name = long_name if long_name is not None else _header_name(block)
            if data + length > size:
                raise RawDataError(
                    f"{where}: cut short at {size} bytes, within {name[:200]!a}; download the "
                    "rest or all of it again"
                )
            if kind in _FILES + _LINKS + _SPARSE and not name.endswith("/"):
                yield TarEntry(name, data, length, kind in _FILES)
            long_name = pax_size = None
        position = data + -(-length // BLOCK) * BLOCK


def _checksum_fits(block: bytes) -> bool:
    try:
        stated = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    rest = block[:148] + block[156:]
    if stated == sum(rest) + 8 * 0x20:
        return True
    signed = sum(byte - 256 if byte > 127 else byte for byte in rest)  # some old tars
    return stated == signed + 8 * 0x20


def _number(field: bytes, where: str) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        value = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        value = -1
    if value < 0:
        raise RawDataError(f"{where}: a size of {field!r}; download it again")
    return value


def _extra(read_at: Callable[[int, int], bytes], offset: int, length: int, where: str) -> bytes:
    if length > _LONGEST_EXTRA:
        raise RawDataError(
            f"{where}: damaged at byte {offset}: a member's name takes {length} bytes; pack it "
            "again with a usual tar"
        )
    return read_at(offset, length)


def _pax(data: bytes, where: str) -> tuple[str | None, int | None]:
    """The path and the size that a pax header states; the last of each."""
    path, size, position = None, None, 0
    while position < len(data) and data[position] != 0:
        match = _PAX_RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data):
            raise RawDataError(f"{where}: no pax header there; download it again")
        value = data[match.end() : end - 1]
        if match[2] == b"path":
            path = _text(value)
        elif match[2] == b"size":
            if not value.isdigit() or len(value) > 19:
                raise RawDataError(f"{where}: a size of {value[:40]!r}; download it again")
            size = int(value)
        elif match[2].startswith(b"GNU.sparse."):
            raise RawDataError(f"{where}: a sparse file; pack it again without --sparse")
        position = end
    return path, size


def _header_name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""  # GNU's has times there
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")
