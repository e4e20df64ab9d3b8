"""Reads images of a store by row: whole chunks into the batch, or parts of them where ragged.

By default every chunk is compared with its crc32c, so a flipped byte is an error that names the
shard and the image, never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from crc32c import crc32c
from numpy.typing import ArrayLike, NDArray

from trar.errors import StoreError
from trar.features.backend import Backend
from trar.features.buffers import aligned_empty
from trar.features.chunk_places import ChunkPlaces
from trar.features.chunk_source import ChunkFault, Landed, unchecked
from trar.features.image_tables import ImageTables
from trar.features.ragged_parts import cut
from trar.features.schema import FeatureSpec, StoreMeta
from trar.features.source_choice import Access, Sources

VerifyReads = Literal["all", "sample", "none"]
"""Which chunks are compared with their crc32c when they are read: every one; each when a process
first reads it and then every 64th time; or none, so that damage is read as numbers."""

_SAMPLE = 64  # of the reads of a chunk, one in so many is checked
SCRATCH_CHUNKS = 64
"""Chunks of a ragged batch that are read in one call; so many are kept for each thread."""


class ImageBatch(NamedTuple):
    """``features`` (b, n, width) in the store's dtype, ``lengths`` (b,) int32: rows per image.

    n is the store's rows (which of them are padding stands in ``FeatureStore.cells``), or, where
    images are ragged, the longest of the batch; rows beyond an image's length are zero."""

    features: NDArray[Any]
    lengths: NDArray[np.int32]


class RowReader:
    """The images of one dataset folder, by image split and row; see ``FeatureStore`` for the
    settings, and ``source_choice`` for ``other_layouts``.

    Tables and handles are opened on first use. Safe to share between threads, and across fork and
    pickling (open files are dropped and opened again).
    """

    def __init__(
        self,
        path: Path,
        meta: StoreMeta,
        backend: Backend,
        *,
        verify_reads: VerifyReads = "all",
        access: Access = "auto",
        other_layouts: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.meta = path, meta
        self.places = ChunkPlaces(path, meta, backend)
        self.tables = ImageTables(self.places)
        self._verify = verify_reads
        self._sources = Sources(self.places, access, verify_reads != "none", other_layouts or {})
        self._times_read: dict[str, bytearray] = {}
        self._scratch: list[NDArray[Any]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scratch": [], "_times_read": {}}

    def read(self, image_split: str, rows: ArrayLike, out: NDArray[Any] | None) -> ImageBatch:
        """See ``FeatureStore.read``."""
        spec = self.meta.feature
        wanted = np.asarray(rows, np.int64).reshape(-1)
        self.tables.check_rows(image_split, wanted)
        lengths = self.tables.lengths(image_split, wanted)
        shape = (len(wanted), int(lengths.max(initial=0)) if spec.ragged else spec.rows, spec.width)
        if out is None:
            out = aligned_empty(shape, spec.dtype)
        elif not _fits(out, shape, spec):
            raise ValueError(f"out is {out.dtype} {out.shape}, expected {spec.dtype} {shape}")
        elif not out.flags.c_contiguous:
            raise ValueError("out is not C-contiguous")
        batch = out[: shape[0], : shape[1]]
        if spec.ragged:
            self._read_ragged(image_split, wanted, lengths, batch)
        else:
            flat = batch.reshape(len(wanted), spec.rows * spec.width).view(np.uint8)
            self._read_chunks(image_split, wanted, flat)
        return ImageBatch(batch, lengths)

    def chunks(self, image_split: str, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """See ``FeatureStore.chunks``."""
        spec = self.meta.feature
        chunk = aligned_empty((1, spec.chunk_rows, spec.width), spec.dtype)
        data = chunk.reshape(1, -1).view(np.uint8)
        for number in range(start, stop):
            self._read_chunks(image_split, np.array([number]), data)
            yield chunk[0]

    def _read_ragged(
        self,
        split: str,
        rows: NDArray[np.int64],
        lengths: NDArray[np.int32],
        batch: NDArray[Any],
    ) -> None:
        """Each chunk that an image of the batch lies in is read once, and copied at once to where
        its rows belong; what is beyond an image's length is 0."""
        spec = self.meta.feature
        plan = cut(self.tables.offsets(split)[rows], lengths, spec.chunk_rows)
        scratch = self._take_scratch()
        values = scratch.view(spec.dtype).reshape(len(scratch), spec.chunk_rows, spec.width)
        for start in range(0, len(plan.chunks), SCRATCH_CHUNKS):

            def place(number: int, start: int = start) -> None:
                for image, row, begin, count in plan.of_chunk(start + number):
                    batch[image, row : row + count] = values[number, begin : begin + count]

            chunks = plan.chunks[start : start + SCRATCH_CHUNKS]
            self._read_chunks(split, chunks, scratch, place)
        for image, length in enumerate(lengths.tolist()):
            batch[image, length:] = 0
        self._scratch.append(scratch)

    def _take_scratch(self) -> NDArray[Any]:
        """Room for chunks (chunk_bytes each): as many are kept as threads have read at once."""
        try:
            return self._scratch.pop()
        except IndexError:
            return aligned_empty((SCRATCH_CHUNKS, self.places.chunk_bytes), np.uint8)

    def _read_chunks(
        self,
        split: str,
        chunks: NDArray[np.int64],
        out: NDArray[Any],
        then: Callable[[int], None] | None = None,
    ) -> None:
        """Fill ``out`` (>= k, chunk_bytes) with chunks (k,), check them as ``verify_reads`` says,
        and call ``then`` with the number of each as soon as that is done."""
        landed = check = self._check(split, chunks, out)
        if then is not None:

            def landed(number: int, stored_crc32c: int | None) -> None:
                check(number, stored_crc32c)
                then(number)

        try:
            self._sources.of(split).read(split, chunks, out, landed)
        except ChunkFault as fault:
            raise self._damaged(split, int(chunks[fault.number]), fault.why) from fault

    def _check(self, split: str, chunks: NDArray[np.int64], out: NDArray[Any]) -> Landed:
        if self._verify == "none":
            return unchecked

        def check(number: int, stored_crc32c: int | None) -> None:
            if stored_crc32c is not None and crc32c(out[number]) != stored_crc32c:
                raise ChunkFault(number, "does not match its crc32c: damaged")

        if self._verify == "all":
            return check
        total = self.meta.image_splits[split].chunks(self.meta.feature)
        times = self._times_read.setdefault(split, bytearray(total))
        numbers = chunks.tolist()

        def check_some(number: int, stored_crc32c: int | None) -> None:
            chunk = numbers[number]
            if times[chunk] == 0:
                check(number, stored_crc32c)
            times[chunk] = (times[chunk] + 1) % _SAMPLE

        return check_some

    def _damaged(self, split: str, chunk: int, why: str) -> StoreError:
        shard = chunk // self.meta.image_splits[split].shard_images
        return StoreError(
            f"{self.places.shard_path(split, shard)}: {self.tables.name_of_chunk(split, chunk)} "
            f"{why}; {way_out(self.path)}"
        )


def way_out(folder: Path) -> str:
    """What to do about damage to the dataset ``folder``, for the end of a message."""
    return (
        f"`trar-data repair --store {folder}` makes it anew from the raw files; where those have "
        f"changed, delete {folder} and prepare it again"
    )


def _fits(out: NDArray[Any], shape: tuple[int, int, int], spec: FeatureSpec) -> bool:
    rows = out.shape[1] >= shape[1] if spec.ragged else out.shape[1:2] == shape[1:2]
    return out.dtype == spec.dtype and len(out) >= shape[0] and rows and out.shape[2] == shape[2]
