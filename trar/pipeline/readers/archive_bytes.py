"""The bytes of an archive that is read where it lies and never unpacked.

Each process opens an archive once and keeps it for the next member; a forked one starts afresh.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from trar.errors import RawDataError
from trar.pipeline.readers.regular_file import cut_short, opened, read_fully, reading

_OPEN_ARCHIVES = 8


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
        with reading(path), opened(path) as (handle, _):
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
            data = read_fully(handle.number, offset, count)
        if len(data) != count:
            raise cut_short(str(self.path), offset + len(data), self.size)
        return data


class _Handle:
    """A file descriptor, closed when the last user lets go."""

    def __init__(self, archive: Archive) -> None:
        with opened(archive.path) as (handle, size):
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
