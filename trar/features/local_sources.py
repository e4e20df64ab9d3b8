"""Chunks from shards on a local disk: plain file reads, or memory maps.

``PreadSource`` copies a chunk from the page cache into its place in the batch, in one call with
the checksum behind it. ``MmapSource`` copies it from mapped memory, which saves the system call
and shows damage of the disk, or a file cut short in the very moment, as a bus error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.features.chunk_places import ChunkPlaces
from trar.features.chunk_source import ChunkFault, Landed, unchecked
from trar.features.open_shards import OpenShards, ShardHandle, ShardMap

MEMORY_INFO = Path("/proc/meminfo")
_CHECKSUM_BYTES = 4


class PreadSource:
    """Reads chunks by ``preadv``; see ``chunk_source.ChunkSource``."""

    def __init__(self, places: ChunkPlaces) -> None:
        self._places = places
        self._shards = OpenShards(places.shard_path, ShardHandle)

    def read(
        self, split: str, chunks: NDArray[np.int64], out: NDArray[Any], landed: Landed
    ) -> None:
        table = self._places.table(split)
        behind = bytearray(_CHECKSUM_BYTES if table.crc32c is None else 0)
        stored = None if table.crc32c is None else table.crc32c[chunks].tolist()
        size_bytes = self._places.chunk_bytes + len(behind)
        for number, (shard, offset) in enumerate(table.where(chunks)):
            try:
                handle = self._shards.get(split, shard)
                read = os.preadv(handle.number, (out[number], behind), offset)
            except OSError as error:
                raise _fault(number, error) from error
            if read != size_bytes:
                raise ChunkFault(number, f"is cut short: {read} of {size_bytes} bytes")
            landed(number, stored[number] if stored else int.from_bytes(behind, "little"))


class MmapSource:
    """Reads chunks from memory maps of the shards; see ``chunk_source.ChunkSource``."""

    def __init__(self, places: ChunkPlaces) -> None:
        self._places = places
        self._shards = OpenShards(places.shard_path, ShardMap)

    def read(
        self, split: str, chunks: NDArray[np.int64], out: NDArray[Any], landed: Landed
    ) -> None:
        table = self._places.table(split)
        size_bytes = self._places.chunk_bytes
        behind = _CHECKSUM_BYTES if table.crc32c is None else 0
        for number, (shard, offset) in enumerate(table.where(chunks)):
            mapped = self._mapped(split, shard, number)
            end = offset + size_bytes
            if end + behind > len(mapped.values):
                raise ChunkFault(number, "is cut short: it lies beyond the end of the shard")
            out[number] = mapped.values[offset:end]
            if landed is unchecked:
                continue
            if table.crc32c is None:
                stored = int.from_bytes(mapped.values[end : end + behind].tobytes(), "little")
            else:
                stored = int(table.crc32c[chunks[number]])
            landed(number, stored)

    def _mapped(self, split: str, shard: int, number: int) -> ShardMap:
        try:
            mapped = self._shards.get(split, shard)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise _fault(number, error) from error
        if not mapped.whole():
            raise ChunkFault(number, "cannot be read: the shard was cut or written to while open")
        return mapped


def fits_in_memory(sizes_bytes: Iterable[int]) -> bool:
    """Whether files of these sizes fit into the memory that the machine has available; False
    where it does not say."""
    available = available_memory()
    return available is not None and sum(sizes_bytes) <= available


def available_memory() -> int | None:
    """Bytes of memory that programs can still take on this machine; None where it does not say."""
    try:
        text = MEMORY_INFO.read_text(encoding="ascii")
        lines = dict(line.split(":", 1) for line in text.splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _fault(number: int, error: Exception) -> ChunkFault:
    if isinstance(error, FileNotFoundError):
        return ChunkFault(number, "cannot be read: the shard is missing")
    why = error.strerror if isinstance(error, OSError) else error
    return ChunkFault(number, f"cannot be read: {why}")
