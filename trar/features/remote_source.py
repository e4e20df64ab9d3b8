"""Chunks of a store in an object store: ranged requests, joined where they lie close, at once.

A chunk in a Zarr shard is ``chunk_bytes`` of values and their crc32c, so that one request brings
both. Chunks of a call that lie close together in a shard come in one request; the bytes between
them are read and dropped, which costs less than a round trip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import TrarError
from trar.features.chunk_places import ChunkPlaces
from trar.features.chunk_source import ChunkFault, Landed
from trar.features.remote_cache import ChunkCache
from trar.features.s3_client import line, ranges
from trar.features.zarr_shard import CHECKSUM_BYTES

GAP_BYTES = 256 << 10
"""Chunks that are further apart are asked for one by one: about what a round trip is worth."""
REQUEST_BYTES = 8 << 20
"""Requests are not made longer than this by joining, so that several run at once."""


@dataclass(frozen=True)
class Request:
    """One range of a shard: bytes ``start`` to ``stop``, in which each chunk of ``members``, as
    numbered in the call, begins at its own of ``offsets``."""

    shard: int
    start: int
    stop: int
    members: NDArray[np.int64]
    offsets: NDArray[np.int64]


class RemoteSource:
    """See ``chunk_source.ChunkSource``. Connections are the process's own (``s3_client``); a local
    cache is used where the environment names one (``remote_cache``)."""

    def __init__(self, places: ChunkPlaces) -> None:
        self._places = places
        self._cache = ChunkCache.from_environment(places.meta)
        self._first: dict[str, int] = {}  # numbers run on through all image splits
        total = 0
        for split, images in places.meta.image_splits.items():
            self._first[split] = total
            total += images.chunks(places.meta.feature)

    def read(
        self, split: str, chunks: NDArray[np.int64], out: NDArray[Any], landed: Landed
    ) -> None:
        left = np.arange(len(chunks))
        if self._cache is not None:
            missing = self._from_cache(self._cache, split, chunks, out, landed)
            left = np.fromiter(missing, np.int64)
        if len(left):
            self._fetch(split, chunks, left, out, landed)

    def _from_cache(
        self,
        cache: ChunkCache,
        split: str,
        chunks: NDArray[np.int64],
        out: NDArray[Any],
        landed: Landed,
    ) -> Iterator[int]:
        """Takes what the cache holds; yields the others."""
        first = self._first[split]
        for member, chunk in enumerate(chunks.tolist()):
            checksum = cache.read(first + chunk, out[member])
            if checksum is None:
                yield member
            else:
                landed(member, checksum)

    def _fetch(
        self,
        split: str,
        chunks: NDArray[np.int64],
        left: NDArray[np.int64],
        out: NDArray[Any],
        landed: Landed,
    ) -> None:
        """Ask for the chunks with these numbers in the call."""
        table, size = self._places.table(split), self._places.chunk_bytes
        shard, offset = table.shard[chunks[left]], table.offset[chunks[left]]
        wanted = list(requests(shard, offset, left, size + CHECKSUM_BYTES))
        places = [
            (str(self._places.shard_path(split, one.shard)), one.start, one.stop) for one in wanted
        ]
        for number, data in ranges(places):
            one = wanted[number]
            if isinstance(data, TrarError):
                raise data
            if isinstance(data, FileNotFoundError):
                raise ChunkFault(int(one.members[0]), "is missing: its shard is not there")
            if isinstance(data, Exception):
                raise ChunkFault(int(one.members[0]), f"cannot be read: {line(data)}")
            for member, checksum in self._spread(one, np.frombuffer(data, np.uint8), out):
                if self._cache is not None:
                    number = self._first[split] + int(chunks[member])
                    self._cache.write(number, out[member], checksum)
                landed(member, checksum)

    def _spread(
        self, one: Request, data: NDArray[np.uint8], out: NDArray[Any]
    ) -> Iterator[tuple[int, int]]:
        """Bring a request's chunks to their places; yields each with the crc32c that follows it."""
        size = self._places.chunk_bytes
        for member, offset in zip(one.members.tolist(), one.offsets.tolist(), strict=True):
            chunk = data[offset : offset + size + CHECKSUM_BYTES]
            if len(chunk) < size + CHECKSUM_BYTES:
                raise ChunkFault(
                    member, f"is cut short: {len(chunk)} of {size + CHECKSUM_BYTES} bytes"
                )
            out[member] = chunk[:size]
            yield member, int.from_bytes(chunk[size:].tobytes(), "little")


def requests(
    shard: NDArray[np.int32],
    offset: NDArray[np.int64],
    numbers: NDArray[np.int64],
    size_bytes: int,
) -> Iterator[Request]:
    """Ranges that cover chunks ``numbers`` (k,), each of ``size_bytes`` at ``offset`` (k,) of
    ``shard`` (k,), in order of their places. A chunk that is asked for twice is read once."""
    order = np.lexsort((offset, shard))
    shard, offset = shard[order], offset[order]
    start = 0
    for number in range(1, len(order) + 1):
        if number < len(order) and _joins(shard, offset, start, number, size_bytes):
            continue
        begin = int(offset[start])
        end = int(offset[number - 1]) + size_bytes
        members = numbers[order[start:number]]
        yield Request(int(shard[start]), begin, end, members, offset[start:number] - begin)
        start = number


def _joins(
    shard: NDArray[np.int32], offset: NDArray[np.int64], start: int, number: int, size_bytes: int
) -> bool:
    """Whether chunk ``number`` belongs into the request that begins with chunk ``start``."""
    gap = int(offset[number] - offset[number - 1]) - size_bytes
    length = int(offset[number] - offset[start]) + size_bytes
    return shard[number] == shard[start] and gap <= GAP_BYTES and length <= REQUEST_BYTES
