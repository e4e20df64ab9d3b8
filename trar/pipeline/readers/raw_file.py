"""Bytes wherever they stand: a file of its own, or a range of an archive that is never unpacked.

A raw file is a small frozen dataclass that can be pickled. It carries no handle: each process
opens an archive once, keeps it for the next member, and a forked one starts afresh.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from trar.errors import RawDataError
from trar.fileio import disk_errors

MAX_IMAGE_BYTES = 64 << 20
"""What one image may decode to, whatever its file claims."""

_READER_BUFFER = 1 << 16
_OPEN_ARCHIVES = 8
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe would wait for its writer


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
        with reading(self.path), _opened(self.path) as (handle, size):
            refuse_large(size, self.name)
            data = _read_fully(handle, 0, size)
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
class Archive:
    """A file that holds others, as it was when its members were listed."""

    path: Path
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Archive:
        """The archive as it is now.

        Raises:
            RawDataError: missing, or no regular file.
            DiskError: it may not be read.
        """
        with reading(path), _opened(path) as (handle, _):
            status = os.fstat(handle)
            return cls(path, status.st_size, status.st_mtime_ns)

    def stamp(self, offset: int) -> str:
        """The stamp of the member at this byte."""
        return f"{self.size} {self.changed_ns} {offset}"

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer only where the archive ends.

        Raises:
            RawDataError: the archive is not what it was when its members were listed.
        """
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        with reading(self.path):
            handle = _handle_of(self)  # held here, so that no other thread's turn closes it
            data = _read_fully(handle.number, offset, count)
        if len(data) != count:
            raise cut_short(str(self.path), offset + len(data), self.size)
        return data


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


def cut_short(where: str, found: int, expected: int) -> RawDataError:
    """The error of bytes that end early."""
    return RawDataError(
        f"{where}: cut short at {found} bytes, expected {expected}; copy or download it again"
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the operating system says about ``path`` into one line.

    Raises:
        DiskError: it may not be read, or the disk is at fault.
        RawDataError: it is missing, or cannot be read for another reason.
    """
    try:
        with disk_errors(path):
            yield
    except FileNotFoundError:
        raise RawDataError(
            f"{path}: missing: moved or deleted since, or a link that leads nowhere; put it back"
        ) from None
    except OSError as error:
        raise RawDataError(f"{path}: cannot be read ({error}); copy or download it again") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """The descriptor of a regular file, and its size."""
    handle = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise RawDataError(f"{path}: {what}, expected a file; put the file itself there")
        yield handle, status.st_size
    finally:
        os.close(handle)


def _read_fully(handle: int, offset: int, count: int) -> bytes:
    data = os.pread(handle, count, offset)
    while data and len(data) < count:  # the system gives at most 2 GiB a call
        more = os.pread(handle, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class _Handle:
    """A file descriptor, closed when the last user lets go."""

    def __init__(self, archive: Archive) -> None:
        with _opened(archive.path) as (handle, size):
            if size != archive.size:
                raise RawDataError(
                    f"{archive.path}: {size} bytes, it had {archive.size} when this run began; "
                    "start again once it is no longer written to"
                )
            self.number = os.dup(handle)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


_handles: OrderedDict[Archive, _Handle] = OrderedDict()
_handles_lock = threading.Lock()


def _handle_of(archive: Archive) -> _Handle:
    with _handles_lock:
        handle = _handles.get(archive)
        if handle is None:
            handle = _handles[archive] = _Handle(archive)
            if len(_handles) > _OPEN_ARCHIVES:
                _handles.popitem(last=False)
        else:
            _handles.move_to_end(archive)
        return handle


def _start_afresh() -> None:
    global _handles_lock
    _handles_lock = threading.Lock()
    _handles.clear()


os.register_at_fork(after_in_child=_start_afresh)
