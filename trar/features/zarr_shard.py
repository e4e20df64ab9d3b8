"""One Zarr v3 shard, to the byte: the chunks of its images, then an index with a crc32c.

The ``sharding_indexed`` codec of the Zarr v3 specification with inner codecs [bytes little,
crc32c], ``index_location: end`` and index codecs [bytes little, crc32c]. Chunks are written one by
one as they come, so that memory is bounded by one image and not by one shard. Each begins at a
multiple of 64 bytes, after at most 63 unused ones: a processor copies between places that lie alike
in their cache lines, as batch buffers and chunks then do, up to twice as fast as between others.
Compressed chunks have the inner codecs [bytes little, zstd, crc32c] and differ in length.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from crc32c import crc32c
from numcodecs import zstd
from numpy.typing import NDArray

from trar.errors import REMAKE, StoreError
from trar.features.place import place_of
from trar.features.schema import Compression, FileEntry
from trar.fileio import disk_errors

CHECKSUM_BYTES = 4
CHUNK_ALIGNMENT = 64  # bytes: a cache line
ZSTD_LEVEL = 1  # higher ones gain 1 % on features and take up to four times as long
_LARGE = 1 << 16  # bytes from which a thread is worth its while
ABSENT = np.uint64(2**64 - 1)  # offset and size of a chunk that a shard does not hold


def checksum(data: bytes | memoryview) -> bytes:
    """The crc32c of ``data`` as the four bytes that Zarr's codec appends."""
    return crc32c(data).to_bytes(CHECKSUM_BYTES, "little")


def write_shard(
    target: Path,
    rows: Iterable[NDArray[np.generic]],
    dtype: str,
    shard_images: int,
    compression: Compression | None = None,
) -> FileEntry:
    """Write up to ``shard_images`` chunks, durably; the index marks the rest as absent."""
    index = np.full((shard_images, 2), ABSENT, dtype="<u8")
    little = np.dtype(dtype).newbyteorder("<")
    with disk_errors(target), target.open("wb") as file, _HashedFile(file) as hashed:
        for number, row in enumerate(rows):
            values = np.ascontiguousarray(row, dtype=little).reshape(-1).view(np.uint8).data
            chunk = values if compression is None else zstd.compress(values, ZSTD_LEVEL)
            hashed.write(bytes(-hashed.bytes % CHUNK_ALIGNMENT))
            index[number] = hashed.bytes, len(chunk) + CHECKSUM_BYTES
            hashed.write(chunk)
            hashed.write(checksum(chunk))
        tail = index.tobytes()
        hashed.write(tail + checksum(tail))
        return hashed.finish()


def write_chunk(target: Path, values: NDArray[np.generic]) -> FileEntry:
    """Write one chunk with its crc32c as a file of its own, durably."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    with disk_errors(target), target.open("wb") as file, _HashedFile(file) as hashed:
        hashed.write(data)
        hashed.write(checksum(data))
        return hashed.finish()


class _HashedFile:
    """Counts and digests what is written, so that a shard need not be read again.

    Large pieces are digested by a thread while they are written: hashlib lets go of the GIL, and
    the sha256 of a chunk takes about as long as its way to the disk's cache.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.bytes = 0
        self.digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "trar-digest")

    def __enter__(self) -> _HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def write(self, data: bytes | memoryview) -> None:
        if len(data) < _LARGE:
            self.digest.update(data)
            self.file.write(data)
        else:
            digested = self._thread.submit(self.digest.update, data)
            self.file.write(data)
            digested.result()  # ``data`` is the caller's again
        self.bytes += len(data)

    def finish(self) -> FileEntry:
        self.file.flush()
        os.fsync(self.file.fileno())
        return FileEntry(self.bytes, self.digest.hexdigest())


def read_index(path: Path, shard_images: int) -> NDArray[np.uint64]:
    """Offset and size of each chunk, (shard_images, 2); absent chunks are all ones.

    Raises:
        StoreError: the file is too short, or the index does not match its crc32c.
    """
    size = shard_images * 16 + CHECKSUM_BYTES
    tail = place_of(path.parent).tail(path.name, size)
    if len(tail) < size:
        raise StoreError(f"{path}: shorter than its own index: cut off; {REMAKE}")
    if checksum(tail[:-CHECKSUM_BYTES]) != tail[-CHECKSUM_BYTES:]:
        raise StoreError(f"{path}: the shard's index does not match its crc32c: damaged; {REMAKE}")
    return np.frombuffer(tail[:-CHECKSUM_BYTES], "<u8").reshape(shard_images, 2)
