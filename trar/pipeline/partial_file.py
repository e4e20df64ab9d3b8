"""A file that is still being fetched: ``<name>.partial`` and its note ``<name>.partial.json``.

The note says where the bytes came from, so that a later run can go on or knows that it cannot. A
partial file without a note was not made here and is never touched.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from trar.errors import RawDataError
from trar.fileio import disk_errors, sync_folder, write_json


class Note(msgspec.Struct):
    """What is remembered of a partial file between runs."""

    url: str
    total: int | None = None
    etag: str | None = None
    last_modified: str | None = None


class PartialFile:
    """The partial file, its note, and the lock that keeps a second run away from both."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.partial")
        self.note_path = target.with_name(f"{target.name}.partial.json")
        self.note = Note("")
        self.size = 0
        self.pieced = False  # holds bytes of more than one request
        self._file: BinaryIO | None = None

    def __enter__(self) -> PartialFile:
        with disk_errors(self.path):
            if self.path.exists():
                self.note = self._read_note()
            else:
                self._write_note()
            self._file = self.path.open("ab")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise RawDataError(
                    f"{self.path}: another trar-data fetch is writing it; wait for that one"
                ) from None
            except OSError:  # a file system without locks
                pass
            self.size = os.fstat(self._file.fileno()).st_size
        self.pieced = self.size > 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        with disk_errors(self.path):
            if self.size == 0 and not self._file.closed:  # nothing to go on from
                self.path.unlink(missing_ok=True)
                self.note_path.unlink(missing_ok=True)
            self._file.close()

    def begin(self, note: Note) -> None:
        """Remember where the coming bytes are from."""
        if note != self.note:
            self.note = note
            self._write_note()

    def write(self, block: bytes) -> None:
        assert self._file is not None
        with disk_errors(self.path):
            self._file.write(block)
        self.size += len(block)

    def empty(self) -> None:
        """Forget every byte: they are of another file, or wrong."""
        assert self._file is not None
        with disk_errors(self.path):
            self._file.truncate(0)
        self.size = 0
        self.pieced = False

    def flush(self) -> None:
        assert self._file is not None
        with disk_errors(self.path):
            self._file.flush()

    def take_name(self) -> None:
        """Give the whole file its name; it must not have been taken meanwhile."""
        assert self._file is not None
        with disk_errors(self.target):
            self._file.flush()
            os.fsync(self._file.fileno())
            if self.target.exists():
                raise RawDataError(
                    f"{self.target}: appeared while it was fetched; it is not overwritten: move "
                    "one of the two away"
                )
            self.path.rename(self.target)
            self.note_path.unlink(missing_ok=True)
            self._file.close()
            sync_folder(self.target.parent)

    def _read_note(self) -> Note:
        try:
            return msgspec.json.decode(self.note_path.read_bytes(), type=Note)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            raise RawDataError(
                f"{self.path}: not made by this command, for {self.note_path.name} does not "
                "describe it: move it away"
            ) from None

    def _write_note(self) -> None:
        write_json(self.note_path, msgspec.to_builtins(self.note))
