"""Gzip data within an archive, as they stand: a ``.tar.gz``, or the deflated bytes of a zip member.

Offsets and sizes are in bytes of the gzip stream itself, unless said otherwise.
"""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass

from trar.errors import RawDataError
from trar.pipeline.readers.archive_bytes import Archive

_BLOCK = 1 << 20
_SAMPLE = 4 << 20
_GZIP = 31  # zlib's number for gzip headers and checksums


@dataclass(frozen=True, slots=True)
class GzipSource:
    """``length`` bytes at ``start`` of an archive, called ``name`` in messages.

    ``head`` and ``tail`` are put before and after them: they make a gzip stream of the bare deflate
    data of a zip member, with the checksum that the zip states.
    """

    archive: Archive
    name: str
    start: int
    length: int
    head: bytes = b""
    tail: bytes = b""

    @property
    def size(self) -> int:
        return len(self.head) + self.length + len(self.tail)

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer only at the end.

        Raises:
            RawDataError: the archive is not what it was.
        """
        if not self.head and not self.tail:
            return self.archive.read_at(self.start + offset, min(count, self.length - offset))
        end = offset + count
        low, high = len(self.head), len(self.head) + self.length
        parts = [self.head[offset:end]]
        if offset < high and end > low:
            first, last = max(offset, low), min(end, high)
            parts.append(self.archive.read_at(self.start + first - low, last - first))
        if end > high:
            parts.append(self.tail[max(offset - high, 0) : end - high])
        return b"".join(parts)

    def sampled_ratio(self) -> float:
        """Decoded to encoded bytes, by the first of them."""
        data = self.read_at(0, _SAMPLE)
        inflater = zlib.decompressobj(_GZIP)
        encoded, decoded = len(data), 0
        with contextlib.suppress(zlib.error):
            while data and not inflater.eof:
                decoded += len(inflater.decompress(data, _BLOCK))
                data = inflater.unconsumed_tail
        return decoded / max(encoded - len(data) - len(inflater.unused_data), 1)

    def check(self) -> int:
        """Inflate all of it, against every checksum; returns the decoded size.

        Raises:
            RawDataError: cut short or damaged.
        """
        decoded = position = 0
        inflater, data = zlib.decompressobj(_GZIP), b""
        while True:
            if not data:
                data = self.read_at(position, _BLOCK)
                position += len(data)
            if inflater.eof:  # zeros, other bytes, or another stream may follow
                data = data.lstrip(b"\0")
                if not data and position < self.size:
                    continue
                if not data.startswith(b"\x1f"):
                    return decoded
                inflater = zlib.decompressobj(_GZIP)
            if not data:
                raise RawDataError(
                    f"{self.name}: cut short at {self.length} bytes: the data go on where it ends; "
                    "download the rest or all of it again"
                )
            try:
                decoded += len(inflater.decompress(data, _BLOCK))
            except zlib.error as error:
                raise RawDataError(
                    f"{self.name}: damaged before byte {position} ({error}); download it again"
                ) from None
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
