"""Zips, read member by member where they lie: archives of feature files, and what ``.npz`` and
torch files are made of.

``read_at(offset, count)`` stands for the zip's own bytes, on disk or in memory.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trar.errors import RawDataError
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.gzip_source import GzipSource
from trar.pipeline.readers.gzip_stream import GzipStream, new_index_file
from trar.pipeline.readers.raw_file import MAX_IMAGE_BYTES, member_name, open_range, refuse_large
from trar.pipeline.readers.regular_file import cut_short, reading

ReadAt = Callable[[int, int], bytes | memoryview]

_LOCAL = struct.Struct("<4s22xHH")  # of a member's own header: magic, lengths of name and extra
_LOCAL_MAGIC = b"PK\x03\x04"
_SLACK = 64  # extra fields are short: header and data come in one read
_ENCRYPTED = 1
_HEAD_BYTES = 1 << 12
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_AGAIN = "download or copy it again"
_NO_DIRECTORY = "File is not a zip file"  # as zipfile says it
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """A member as the zip's directory states it: its header's place, its bytes as they stand and
    decoded, and their CRC-32."""

    name: str
    header_offset: int
    packed_size: int
    size: int
    checksum: int
    deflated: bool


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member of a zip on disk, as a raw file; ``index_file`` is for one too big to inflate
    whole."""

    archive: Archive
    entry: ZipEntry
    index_file: str = ""

    @property
    def name(self) -> str:
        return member_name(self.archive, self.entry.name)

    @property
    def size(self) -> int:
        return self.entry.size

    def stamp(self) -> str:
        return self.archive.stamp(self.entry.header_offset)

    def read(self) -> bytes:
        return bytes(entry_bytes(self.archive.read_at, self.entry, self.name))

    def open(self) -> BinaryIO:
        if self.entry.deflated and not self.index_file:
            return io.BytesIO(self.read())
        offset, _ = _locate(self.archive.read_at, self.entry, 0, self.name)
        if not self.entry.deflated:
            return open_range(self.archive.read_at, offset, self.size, self.name)
        tail = struct.pack("<II", self.entry.checksum, self.size & 0xFFFFFFFF)
        packed = self.entry.packed_size
        source = GzipSource(self.archive, self.name, offset, packed, _GZIP_HEAD, tail)
        stream = GzipStream(source, self.index_file)
        if stream.decoded_size() != self.size:
            raise cut_short(self.name, stream.decoded_size(), self.size)
        return open_range(stream.read_at, 0, self.size, self.name)


def list_zip(path: Path) -> list[ZipMember]:
    """The files in a zip on disk, in the order of its directory.

    Raises:
        RawDataError: cut short, damaged, encrypted, or packed in a way that cannot be read.
    """
    archive = Archive.of(path)
    with reading(path), path.open("rb") as file:
        entries = list_entries(file, str(path))
    return [
        ZipMember(archive, entry, new_index_file(archive, entry.header_offset))
        if entry.deflated and entry.size > MAX_IMAGE_BYTES
        else ZipMember(archive, entry)
        for entry in entries
    ]


def list_entries(file: BinaryIO, where: str) -> list[ZipEntry]:
    """The files in a zip, in the order of its directory.

    Raises:
        RawDataError: as ``list_zip``.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    except _BAD_ZIP as error:
        size = file.seek(0, io.SEEK_END)
        what = f"a damaged zip of {size} bytes ({error})"
        if str(error) == _NO_DIRECTORY:
            what = f"a zip cut short at {size} bytes: its directory, at the end, is missing"
        raise RawDataError(f"{where}: {what}; {_AGAIN}") from None
    entries = []
    for info in infos:
        if info.flag_bits & _ENCRYPTED:
            raise RawDataError(
                f"{where}: encrypted; unpack it and pack it again without a password"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RawDataError(
                f"{where}: {info.filename[:200]!a} is packed by method {info.compress_type}, only "
                "0 (stored) and 8 (deflated) can be read in place; pack it again by one of them"
            )
        if info.header_offset < 0:
            raise RawDataError(f"{where}: a zip without its first bytes; {_AGAIN}")
        entries.append(
            ZipEntry(
                info.filename,
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.CRC,
                info.compress_type == zipfile.ZIP_DEFLATED,
            )
        )
    return entries


def entry_bytes(read_at: ReadAt, entry: ZipEntry, where: str) -> bytes | memoryview:
    """All bytes of a member, checked against its CRC.

    Raises:
        RawDataError: more than one image may have, cut short, or damaged.
    """
    refuse_large(entry.size, where)
    refuse_large(entry.packed_size, where)
    _, packed = _locate(read_at, entry, entry.packed_size, where)
    if len(packed) != entry.packed_size:
        raise cut_short(where, len(packed), entry.packed_size)
    data: bytes | memoryview = packed
    if entry.deflated:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflater.decompress(packed, entry.size + 1)  # one more shows a false claim
        except zlib.error as error:
            raise RawDataError(f"{where}: damaged ({error}); {_AGAIN}") from None
    if len(data) != entry.size:
        raise RawDataError(
            f"{where}: damaged: {len(data)} bytes or more, the directory says {entry.size}; "
            f"{_AGAIN}"
        )
    if zlib.crc32(data) != entry.checksum:
        raise RawDataError(f"{where}: damaged: its checksum does not fit; {_AGAIN}")
    return data


def entry_head(read_at: ReadAt, entry: ZipEntry, where: str) -> bytes:
    """The first bytes of a member (4 KiB or all of a shorter one), unchecked.

    Raises:
        RawDataError: damaged.
    """
    _, packed = _locate(read_at, entry, min(entry.packed_size, _HEAD_BYTES), where)
    if not entry.deflated:
        return bytes(packed)
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, _HEAD_BYTES)
    except zlib.error as error:
        raise RawDataError(f"{where}: damaged ({error}); {_AGAIN}") from None


def _locate(
    read_at: ReadAt, entry: ZipEntry, count: int, where: str
) -> tuple[int, bytes | memoryview]:
    """Where a member's data begin, and their first ``count`` bytes or fewer."""
    guess = _LOCAL.size + len(entry.name.encode(errors="replace")) + _SLACK
    block = read_at(entry.header_offset, guess + count)
    if len(block) < _LOCAL.size:
        raise cut_short(where, len(block), entry.packed_size)
    magic, name_size, extra_size = _LOCAL.unpack_from(block)
    if magic != _LOCAL_MAGIC:
        raise RawDataError(f"{where}: damaged: no member begins at {entry.header_offset}; {_AGAIN}")
    start = _LOCAL.size + name_size + extra_size
    if start > guess:
        return entry.header_offset + start, read_at(entry.header_offset + start, count)
    return entry.header_offset + start, block[start : start + count]
