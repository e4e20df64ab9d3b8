"""A bounded cache of chunks on a local disk, for stores that are read from an object store.

One file a store below ``<folder>/trar-cache``, with a fixed number of slots. Chunk n of a store can
only be in slot n modulo their number: its values, then their crc32c, n, and a crc32c of these two.
What does not agree with its checksums is not a hit, whether it was never written, is being written
by another process, or was damaged; so nothing is locked. A file has its whole length from the
beginning (without blocks behind it), and all files together stay below the bound.

Only files in that one folder that bear the cache's own names and header are ever removed, the one
that was used longest ago first, and none that a process has open.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from trar.errors import ConfigError
from trar.features.schema import StoreMeta

DIR_VARIABLE, SIZE_VARIABLE = "TRAR_CACHE_DIR", "TRAR_CACHE_SIZE"
FOLDER = "trar-cache"
DEFAULT_BYTES = 10 << 30
_NAME = re.compile(r"[0-9a-f]{32}\.chunks")
_HEADER = b"trar chunk cache 1\n".ljust(4096, b"\0")
_TAIL_BYTES = 16  # crc32c of the values, number of the chunk (8 bytes), crc32c of these twelve
_REPLACE_EVERY = 8
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LOG = logging.getLogger("trar.features")


class ChunkCache:
    """The chunks of one store, numbered through all its image splits. Safe to share between
    threads, processes, and across fork and pickling; what the disk refuses ends the caching and
    nothing else."""

    def __init__(self, folder: Path, size_bytes: int, meta: StoreMeta) -> None:
        self._folder, self._size_bytes = folder / FOLDER, size_bytes
        self._name = f"{meta.fingerprint[:32]}.chunks"
        self._chunk_bytes = meta.feature.chunk_bytes
        self._chunks = sum(one.chunks(meta.feature) for one in meta.image_splits.values())
        self._misses = 0
        self._file: int | None = None
        self._slots = 0
        self._closed = False

    @classmethod
    def from_environment(cls, meta: StoreMeta) -> ChunkCache | None:
        """The cache that ``TRAR_CACHE_DIR`` and ``TRAR_CACHE_SIZE`` ask for, if they do."""
        folder = os.environ.get(DIR_VARIABLE)
        if not folder:
            return None
        text = os.environ.get(SIZE_VARIABLE, str(DEFAULT_BYTES))
        return cls(Path(folder), _parse_size(text), meta)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        if self.__dict__.get("_file") is not None:
            os.close(self.__dict__["_file"])

    def read(self, number: int, out: NDArray[np.uint8]) -> int | None:
        """Fill ``out`` (chunk_bytes,) with chunk ``number`` and return its crc32c, which it has;
        None where the cache does not hold it: ``out`` is then undefined."""
        file = self._open()
        if file is None:
            return None
        tail = bytearray(_TAIL_BYTES)
        with self._stops_at_errors():
            read = os.preadv(file, [out.data, tail], self._place(number))
            if read == self._chunk_bytes + _TAIL_BYTES and _number(tail) == number:
                checksum = int.from_bytes(tail[:4], "little")
                if crc32c(out.data) == checksum:
                    return checksum
        return None

    def write(self, number: int, values: NDArray[np.uint8], checksum: int) -> None:
        """Keep a chunk that was fetched, if it is sound and its slot is to be had.

        An epoch reads every chunk once. If each miss replaced what is in its slot, a cache of a
        quarter of a store would be hit once in sixteen times instead of four; so a slot in use is
        seldom given to another chunk, but often enough that old ones leave."""
        file = self._open()
        if file is None or crc32c(values.data) != checksum:
            return
        place = self._place(number)
        with self._stops_at_errors():
            held = _number(os.pread(file, _TAIL_BYTES, place + self._chunk_bytes))
            if held is not None and held != number:
                self._misses += 1
                if self._misses % _REPLACE_EVERY:
                    return
            os.pwritev(file, [values.data, _tail(number, checksum)], place)

    def _place(self, number: int) -> int:
        return len(_HEADER) + number % self._slots * (self._chunk_bytes + _TAIL_BYTES)

    def _open(self) -> int | None:
        """This process's handle; None where there is no room for a single chunk."""
        if self._file is None and not self._closed:
            with self._stops_at_errors():
                self._file = self._open_file()
                self._closed = self._file is None
        return None if self._closed else self._file

    def _open_file(self) -> int | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with _only_one(self._folder):
            path = self._folder / self._name
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            length = os.fstat(file).st_size
            if length and os.pread(file, len(_HEADER), 0) != _HEADER:
                os.close(file)
                raise OSError(f"{path} is not of this cache")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # others read it: their slots are ours
                pass
            else:
                length = self._length()
                os.truncate(file, length)
                os.pwrite(file, _HEADER, 0)
            os.utime(file)
            fcntl.flock(file, fcntl.LOCK_SH)
        self._slots = (length - len(_HEADER)) // (self._chunk_bytes + _TAIL_BYTES)
        if self._slots > 0:
            return file
        os.close(file)
        return None

    def _length(self) -> int:
        """Bytes that the file may have; makes room for it by removing files of other stores."""
        record = self._chunk_bytes + _TAIL_BYTES
        wanted = min(self._size_bytes, len(_HEADER) + self._chunks * record)
        others = [path for path in self._folder.iterdir() if path.name != self._name]
        own = sorted(filter(_is_ours, others), key=lambda path: path.stat().st_mtime_ns)
        taken = sum(path.stat().st_size for path in own)
        for path in own:
            if taken + wanted <= self._size_bytes:
                break
            size_bytes = path.stat().st_size
            if _remove_unused(path):
                taken -= size_bytes
        room = min(wanted, self._size_bytes - taken) - len(_HEADER)
        return len(_HEADER) + max(0, room // record * record)

    @contextlib.contextmanager
    def _stops_at_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._closed:
                _LOG.warning("%s: no longer used as a cache: %s", self._folder, error)
            self._closed = True


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{SIZE_VARIABLE}={text}: expected a size like 20G or 500M")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _tail(number: int, checksum: int) -> bytes:
    head = checksum.to_bytes(4, "little") + number.to_bytes(8, "little")
    return head + crc32c(head).to_bytes(4, "little")


def _number(tail: bytes | bytearray) -> int | None:
    """Which chunk a slot says it holds; None where it says nothing."""
    sound = len(tail) == _TAIL_BYTES and crc32c(tail[:12]) == int.from_bytes(tail[12:], "little")
    return int.from_bytes(tail[4:12], "little") if sound else None


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep other processes from deciding about the folder's files at the same time."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_ours(path: Path) -> bool:
    if not _NAME.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def _remove_unused(path: Path) -> bool:
    """Remove a cache file unless a process has it open."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
    return True
