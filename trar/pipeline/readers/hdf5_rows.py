"""Reads rows of an HDF5 dataset where its layout says they lie, without libhdf5.

Rows are entries of the first axis. A dataset in one piece takes one read; one in chunks a read per
chunk, of the wanted rows alone where the chunks are not compressed. The filters understood are
shuffle, deflate and fletcher32 (HDF5 File Format Specification 3.0, section IV.A.2.l).
"""

from __future__ import annotations

import itertools
import math
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.fileio import human_bytes
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.hdf5_layout import Dataset
from trar.pipeline.readers.raw_file import MAX_IMAGE_BYTES
from trar.pipeline.readers.regular_file import cut_short

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_CHECKSUM_BYTES = 4
_MAX_INFLATED_BYTES = MAX_IMAGE_BYTES // 2  # inflating holds a chunk twice
_KEPT_BYTES = 2 * _MAX_INFLATED_BYTES
_CHECKSUM_WORDS = 1 << 20

Bytes = NDArray[np.uint8]


class InflatedChunks:
    """The chunks of a file that were inflated last, for the rows that share them; by offset."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[int, Bytes] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[InflatedChunks], tuple[()]]:
        return InflatedChunks, ()

    def get(self, offset: int) -> Bytes | None:
        """The chunk at ``offset`` if it is still there."""
        with self._lock:
            if offset in self._chunks:
                self._chunks.move_to_end(offset)
            return self._chunks.get(offset)

    def keep(self, offset: int, data: Bytes) -> None:
        """Keep a chunk, and let go of the oldest."""
        with self._lock:
            if offset not in self._chunks:
                self._size_bytes += len(data)
            self._chunks[offset] = data
            while self._size_bytes > _KEPT_BYTES:
                self._size_bytes -= len(self._chunks.popitem(last=False)[1])


@dataclass(frozen=True)
class StoredRows:
    """The rows of one dataset of ``file``.

    ``bands`` are the numbers along the first axis, ascending, of the chunks that ``dataset.table``
    still has; None: all of them, or no chunks.
    """

    file: Archive
    dataset: Dataset
    inflated: InflatedChunks = field(default_factory=InflatedChunks, compare=False)
    bands: NDArray[np.int64] | None = None

    @classmethod
    def open(cls, file: Archive, dataset: Dataset) -> StoredRows:
        """Check that the values can be read here.

        Raises:
            RawDataError: they cannot, with the reason; or one row takes too much memory.
        """
        rows = cls(file, dataset)
        if dataset.problem is not None:
            raise RawDataError(f"{rows.where()}: {dataset.problem}")
        for code, name in dataset.filters:
            if code not in (_DEFLATE, _SHUFFLE, _FLETCHER32):
                raise RawDataError(
                    f"{rows.where()}: compressed with {name or f'filter {code}'}, expected gzip or "
                    "nothing; repack it (h5repack -f NONE OLD NEW)"
                )
        if len(rows):
            rows._refuse_costly(0, 1, rows.where())
        return rows

    def __len__(self) -> int:
        return self.dataset.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As in the file, byte order included."""
        return np.dtype(self.dataset.type)

    def where(self) -> str:
        """File and dataset, for messages."""
        return f"{self.file.path}, dataset {self.dataset.name}"

    def keep(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> StoredRows:
        """Fit to read these ranges of rows alone, and so small enough to send to a worker.

        A range that is none (start >= stop, or outside) is left out.
        """
        table, chunk = self.dataset.table, self.dataset.chunk
        if table is None or chunk is None:
            return self
        good = (starts >= 0) & (starts < stops) & (stops <= len(self))
        change = np.zeros(self._bands_in_all() + 1, np.int64)  # +1 where a range of bands begins
        np.add.at(change, starts[good] // chunk[0], 1)
        np.add.at(change, (stops[good] - 1) // chunk[0] + 1, -1)
        bands = np.flatnonzero(np.cumsum(change) > 0)
        held = np.arange(self._bands_in_all()) if self.bands is None else self.bands
        in_bands = table.reshape(len(held), -1, 3) if len(held) else table.reshape(0, 1, 3)
        kept = in_bands[np.searchsorted(held, bands)].reshape(-1, 3)
        return replace(self, dataset=replace(self.dataset, table=kept), bands=bands)

    def _bands_in_all(self) -> int:
        assert self.dataset.chunk is not None
        return -(-len(self) // self.dataset.chunk[0])

    def read(self, start: int, stop: int, whose: str = "") -> NDArray[Any]:
        """Rows start..stop as (stop - start, ...) in native byte order; the caller has checked
        0 <= start <= stop <= len(self). ``whose`` names the image in messages.

        Raises:
            RawDataError: damaged, or larger than an image may be.
        """
        where = self.where() + whose
        self._refuse_costly(start, stop, where)
        shape = (stop - start, *self.dataset.shape[1:])
        if self.dataset.offset is not None:
            row_bytes = self.dtype.itemsize * math.prod(shape[1:])
            data = self._bytes(self.dataset.offset + start * row_bytes, (stop - start) * row_bytes)
            values = data.view(self.dtype).reshape(shape)
            return values.astype(self.dtype.newbyteorder("="), copy=False)
        values = np.empty(shape, self.dtype.newbyteorder("="))
        self._gather(values, start, stop, where)
        return values

    def _gather(self, values: NDArray[Any], start: int, stop: int, where: str) -> None:
        """Fill ``values`` from the chunks that hold rows start..stop."""
        chunk, table = self.dataset.chunk, self.dataset.table
        assert chunk is not None
        assert table is not None
        sides = [
            [slice(begin, min(begin + step, size)) for begin in range(0, size, step)]
            for size, step in zip(self.dataset.shape[1:], chunk[1:], strict=True)
        ]
        places = list(itertools.product(*sides))
        for band in range(start // chunk[0], -(-stop // chunk[0])):
            held = band if self.bands is None else int(np.searchsorted(self.bands, band))
            low = max(start - band * chunk[0], 0)
            high = min(stop - band * chunk[0], chunk[0])
            target = values[band * chunk[0] + low - start : band * chunk[0] + high - start]
            for number, place in enumerate(places):
                piece = self._read_chunk(
                    table[held * len(places) + number].tolist(), low, high, where
                )
                inside = tuple(slice(0, one.stop - one.start) for one in place)
                target[(slice(None), *place)] = piece[(slice(None), *inside)]

    def _read_chunk(self, entry: list[int], low: int, high: int, where: str) -> NDArray[Any]:
        """Rows low..high of one chunk."""
        offset = entry[0]
        chunk = self.dataset.chunk
        assert chunk is not None
        row_bytes = self.dtype.itemsize * math.prod(chunk[1:])
        if not self.dataset.filters:
            data = self._bytes(offset + low * row_bytes, (high - low) * row_bytes)
            return data.view(self.dtype).reshape(high - low, *chunk[1:])
        data_or_none = self.inflated.get(offset)
        if data_or_none is None:
            data = self._unfilter(entry, chunk[0] * row_bytes, where)
            if chunk[0] > 1:  # else no other row is in it
                self.inflated.keep(offset, data)
        else:
            data = data_or_none
        return data.view(self.dtype).reshape(chunk)[low:high]

    def _bytes(self, offset: int, length: int) -> Bytes:
        data = self.file.read_at(offset, length)
        if len(data) != length:  # the layout was found before someone cut the file
            raise cut_short(str(self.file.path), offset + len(data), offset + length)
        return np.frombuffer(data, np.uint8)

    def _unfilter(self, entry: list[int], size: int, where: str) -> Bytes:
        """One whole chunk of ``size`` bytes as it was before its filters."""
        offset, stored, skipped = entry
        where = f"{where}, chunk at byte {offset}"
        if stored > size + size // 100 + 1024:  # no filter makes data much longer
            raise RawDataError(f"{where}: {stored} bytes for {size}: damaged; copy the file again")
        data = self._bytes(offset, stored)
        for number, (code, _) in reversed(list(enumerate(self.dataset.filters))):
            if skipped >> number & 1:
                continue
            if code == _FLETCHER32:
                data = _strip_checksum(data, where)
            elif code == _DEFLATE:
                data = _inflate(data, size + _CHECKSUM_BYTES, where)
            elif len(data) % self.dtype.itemsize == 0:
                data = np.ascontiguousarray(data.reshape(self.dtype.itemsize, -1).T).reshape(-1)
        if len(data) != size:
            raise RawDataError(
                f"{where}: holds {len(data)} bytes, expected {size}: damaged; copy the file again"
            )
        return data

    def _refuse_costly(self, start: int, stop: int, where: str) -> None:
        """Refuse what would take more memory than any image's features, before it is taken."""
        chunk, shape = self.dataset.chunk, self.dataset.shape
        packed = chunk is not None and bool(self.dataset.filters)
        count, row = stop - start, shape
        if chunk is not None:  # chunks are stored whole, beyond the array's border too
            row = tuple(-(-size // step) * step for size, step in zip(shape, chunk, strict=True))
            if packed:
                count = (-(-stop // chunk[0]) - start // chunk[0]) * chunk[0]
        size = self.dtype.itemsize * math.prod(row[1:]) * count
        limit = _MAX_INFLATED_BYTES if packed else MAX_IMAGE_BYTES
        if size > limit:
            remedy = "no image has so many features"
            if chunk is not None and packed and chunk[0] > 1:
                better = "x".join(map(str, (1, *shape[1:])))
                remedy = (
                    f"its compressed chunks of {chunk} hold many images each; repack it "
                    f"(h5repack -l {self.dataset.name}:CHUNK={better} OLD NEW)"
                )
            raise RawDataError(
                f"{where}: reading rows {start} to {stop} takes {human_bytes(size)}, one image may "
                f"take {human_bytes(limit)}: {remedy}"
            )


def _inflate(data: Bytes, limit: int, where: str) -> Bytes:
    """Inflate a zlib stream of at most ``limit`` bytes; a longer one is cut there."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data.data, limit)
    except zlib.error as error:
        raise RawDataError(f"{where}: {error}; damaged: copy the file again") from None
    if not stream.eof:
        raise RawDataError(f"{where}: its compressed data do not end: damaged; copy the file again")
    return np.frombuffer(inflated, np.uint8)


def _strip_checksum(data: Bytes, where: str) -> Bytes:
    """Check and remove the Fletcher-32 sum at the end: big-endian words modulo 65535."""
    body = data[:-_CHECKSUM_BYTES]
    low = high = 0
    for begin in range(0, len(body), 2 * _CHECKSUM_WORDS):
        block = body[begin : begin + 2 * _CHECKSUM_WORDS]
        words = np.zeros(-(-len(block) // 2) * 2, np.uint8)
        words[: len(block)] = block
        values = words.view(">u2").astype(np.int64)
        ahead = np.arange(len(values), 0, -1)  # how often each word is in the sum of sums
        high = (high + low * len(values) + int((values * ahead).sum())) % 65535
        low = (low + int(values.sum())) % 65535
    stored = int.from_bytes(data[-_CHECKSUM_BYTES:].tobytes(), "little")
    if (stored & 0xFFFF) % 65535 != low or (stored >> 16) % 65535 != high:
        raise RawDataError(f"{where}: its checksum does not fit: damaged; copy the file again")
    return body
