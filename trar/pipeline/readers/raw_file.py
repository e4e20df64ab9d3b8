"""Bytes wherever they stand: a file of its own, or a range of an archive that is never unpacked.

A raw file is a small frozen dataclass that can be pickled. It carries no handle: archives are kept
open by ``archive_bytes``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from trar.errors import RawDataError
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.regular_file import cut_short, opened, read_fully, reading

MAX_IMAGE_BYTES = 64 << 20
"""What one image may decode to, whatever its file claims."""

_READER_BUFFER = 1 << 16


class RawFile(Protocol):
    """One file of raw data."""

    @property
    def name(self) -> str:
        """Where it stands, for messages: ``/a/b.npz`` or ``/a/b.zip, member x/9.npz``."""

    @property
    def size(self) -> int:
        """Bytes, decoded.

        Raises:
            RawDataError: the file is missing.
        """

    def stamp(self) -> str:
        """A string that changes when the raw data do: size and modification time, and the place in
        the archive for a member.

        Raises:
            RawDataError: the file is missing.
        """

    def read(self) -> bytes:
        """All bytes.

        Raises:
            RawDataError: more than ``MAX_IMAGE_BYTES``, cut short, damaged, or missing.
        """

    def open(self) -> BinaryIO:
        """A seekable reader of this file alone, of any size, cheap to open again and again.

        Raises:
            RawDataError: as ``read``, here or while it is read.
        """


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        return self._status().st_size

    def stamp(self) -> str:
        status = self._status()
        return f"{status.st_size} {status.st_mtime_ns}"

    def read(self) -> bytes:
        with reading(self.path), opened(self.path) as (handle, size):
            refuse_large(size, self.name)
            data = read_fully(handle, 0, size)
        if len(data) != size:
            raise cut_short(self.name, len(data), size)
        return data

    def open(self) -> BinaryIO:
        whole = Archive.of(self.path)
        return open_range(whole.read_at, 0, whole.size, self.name)

    def _status(self) -> os.stat_result:
        with reading(self.path):
            return self.path.stat()


@dataclass(frozen=True, slots=True)
class FileRange:
    """A member that stands in its archive as it is, such as those of a ``.tar``."""

    archive: Archive
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return member_name(self.archive, self.member)

    def stamp(self) -> str:
        return self.archive.stamp(self.offset)

    def read(self) -> bytes:
        refuse_large(self.size, self.name)
        data = self.archive.read_at(self.offset, self.size)
        if len(data) != self.size:
            raise cut_short(self.name, len(data), self.size)
        return data

    def open(self) -> BinaryIO:
        return open_range(self.archive.read_at, self.offset, self.size, self.name)


class _RangeReader(io.RawIOBase):
    """Bytes offset..offset+size of what ``read_at(offset, count)`` gives, as a file."""

    def __init__(
        self, read_at: Callable[[int, int], bytes], offset: int, size: int, name: str
    ) -> None:
        self._read_at = read_at
        self._offset = offset
        self._size = size
        self._name = name
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._position)
        if count <= 0:
            return 0
        data = self._read_at(self._offset + self._position, count)
        if len(data) != count:
            raise cut_short(self._name, self._position + len(data), self._size)
        buffer[:count] = data
        self._position += count
        return count


def open_range(read_at: Callable[[int, int], bytes], offset: int, size: int, name: str) -> BinaryIO:
    """A buffered file over ``size`` bytes at ``offset`` of ``read_at(offset, count)``."""
    return io.BufferedReader(_RangeReader(read_at, offset, size, name), _READER_BUFFER)


def member_name(archive: Archive, member: str) -> str:
    """A member as messages name it, on one line whatever it is called."""
    return f"{archive.path}, member {member if member.isprintable() else ascii(member)}"


def refuse_large(size: int, where: str) -> None:
    """Refuse before memory is set aside.

    Raises:
        RawDataError: more than one image may have.
    """
    if size > MAX_IMAGE_BYTES:
        raise RawDataError(
            f"{where}: {size} bytes, one image may have {MAX_IMAGE_BYTES}: not the features of one "
            "image; give a file for each image"
        )
