"""Reads images of a store by row: one checked file read each, or a few where images are ragged.

Every chunk is compared with its crc32c, so a flipped byte is an error that names the shard and the
image, never a wrong number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from crc32c import crc32c
from numpy.typing import ArrayLike, NDArray

from trar.errors import StoreError
from trar.features.backend import Backend, ImageTable
from trar.features.chunk_table import ChunkTable, read_chunk_table
from trar.features.schema import FeatureSpec, StoreMeta
from trar.fileio import disk_errors


class ImageBatch(NamedTuple):
    """``features`` (b, n, width) in the store's dtype, ``lengths`` (b,) int32: rows per image.

    n is the store's rows (which of them are padding stands in ``FeatureStore.cells``), or, where
    images are ragged, the longest of the batch; rows beyond an image's length are zero."""

    features: NDArray[Any]
    lengths: NDArray[np.int32]


class RowReader:
    """The images of one dataset folder, by image split and row.

    Tables and handles are opened on first use. Safe to share between threads, and across fork and
    pickling (open files are dropped and opened again).
    """

    def __init__(self, path: Path, meta: StoreMeta, backend: Backend) -> None:
        self.path, self.meta = path, meta
        self._backend = backend
        self._kept: dict[tuple[str, str], Any] = {}
        self._files: dict[tuple[str, int], int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_kept": {}}

    def __del__(self) -> None:
        for handle in self.__dict__.get("_files", {}).values():
            os.close(handle)

    def read(self, image_split: str, rows: ArrayLike, out: NDArray[Any] | None) -> ImageBatch:
        """See ``FeatureStore.read``."""
        spec = self.meta.feature
        wanted = np.asarray(rows, np.int64).reshape(-1)
        self._check_rows(image_split, wanted)
        lengths = self.lengths(image_split, wanted)
        shape = (len(wanted), int(lengths.max(initial=0)) if spec.ragged else spec.rows, spec.width)
        if out is None:
            out = np.empty(shape, spec.dtype)
        elif not _fits(out, shape, spec):
            raise ValueError(f"out is {out.dtype} {out.shape}, expected {spec.dtype} {shape}")
        elif not out.flags.c_contiguous:
            raise ValueError("out is not C-contiguous")
        batch = out[: shape[0], : shape[1]]
        table = self._chunk_table(image_split)
        if spec.ragged:
            self._read_ragged(image_split, table, wanted, batch)
        else:
            flat = batch.reshape(len(wanted), spec.rows * spec.width).view(np.uint8)
            for number, chunk in enumerate(wanted.tolist()):
                self._read_chunk(image_split, table, chunk, flat[number].data)
        return ImageBatch(batch, lengths)

    def _read_ragged(
        self, split: str, table: ChunkTable, rows: NDArray[np.int64], batch: NDArray[Any]
    ) -> None:
        """Each image from the chunks that its regions lie in; what is beyond its length is 0."""
        spec = self.meta.feature
        offsets = self._offsets(split)
        chunk = np.empty((spec.chunk_rows, spec.width), spec.dtype)
        data = chunk.reshape(-1).view(np.uint8).data
        held = -1
        for number, row in enumerate(rows.tolist()):
            begin, end = int(offsets[row]), int(offsets[row + 1])
            done = begin
            while done < end:
                place, inside = divmod(done, spec.chunk_rows)
                if place != held:  # the next image of a batch often begins where this one ends
                    held = -1
                    self._read_chunk(split, table, place, data)
                    held = place
                taken = min(end - done, spec.chunk_rows - inside)
                batch[number, done - begin : done - begin + taken] = chunk[inside : inside + taken]
                done += taken
            batch[number, end - begin :] = 0

    def chunks(self, image_split: str, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """See ``FeatureStore.chunks``."""
        spec, table = self.meta.feature, self._chunk_table(image_split)
        chunk = np.empty((spec.chunk_rows, spec.width), spec.dtype)
        for number in range(start, stop):
            self._read_chunk(image_split, table, number, chunk.reshape(-1).view(np.uint8).data)
            yield chunk

    def _read_chunk(self, split: str, table: ChunkTable, chunk: int, values: memoryview) -> None:
        checksum = bytearray(4 if table.crc32c is None else 0)  # it follows the values, or not
        shard = int(table.shard[chunk])
        with disk_errors(self.path):
            handle = self._open_shard(split, shard)
            read = os.preadv(handle, [values, checksum], int(table.offset[chunk]))
        if table.crc32c is None:
            expected = int.from_bytes(checksum, "little")
        else:
            expected = int(table.crc32c[chunk])
        if read != len(values) + len(checksum) or crc32c(values) != expected:
            raise self._damaged(split, shard, chunk)

    def table(self, split: str) -> ImageTable:
        """What is kept of a split's images beside features and boxes.

        Raises:
            StoreError: no such image split, or damaged.
        """
        key = ("images", self._known(split))
        if key not in self._kept:
            self._kept[key] = self._backend.read_images_table(split, self.meta.feature)
        return cast(ImageTable, self._kept[key])

    def lengths(self, split: str, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows of features of images ``rows`` (b,), (b,)."""
        if not self.meta.feature.ragged:
            return np.full(len(rows), self.meta.feature.rows, np.int32)
        offsets = self._offsets(split)
        return (offsets[rows + 1] - offsets[rows]).astype(np.int32)

    def boxes(self, image_split: str, rows: ArrayLike) -> NDArray[np.float32]:
        """See ``FeatureStore.boxes``."""
        if not self.meta.feature.boxes:
            raise self._no_boxes()
        wanted = np.asarray(rows, np.int64).reshape(-1)
        self._check_rows(image_split, wanted)
        key = ("boxes", image_split)
        if key not in self._kept:
            self._kept[key] = self._backend.read_boxes(image_split)
        every: NDArray[np.float32] = self._kept[key]
        if not self.meta.feature.ragged:
            return every[wanted]
        begin, count = self._offsets(image_split)[wanted], self.lengths(image_split, wanted)
        out = np.zeros((len(wanted), int(count.max(initial=0)), 4), np.float32)
        inside = np.arange(out.shape[1]) < count[:, None]
        out[inside] = every[(begin[:, None] + np.arange(out.shape[1]))[inside]]
        return out

    def sizes(self, image_split: str) -> NDArray[np.int32]:
        """See ``FeatureStore.sizes``."""
        sizes = self.table(image_split).sizes
        if sizes is None:
            raise self._no_boxes()
        return sizes

    def skipped(self, image_split: str) -> dict[int, str]:
        """See ``FeatureStore.skipped``."""
        found = self.meta.provenance.get("skipped", {}).get(image_split, {})
        return {int(image_id): why for image_id, why in found.items()}

    def _offsets(self, split: str) -> NDArray[np.int64]:
        offsets = self.table(split).offsets
        assert offsets is not None
        return offsets

    def _chunk_table(self, split: str) -> ChunkTable:
        key = ("chunks", self._known(split))
        if key not in self._kept:
            chunks = self.meta.image_splits[split].chunks(self.meta.feature)
            self._kept[key] = read_chunk_table(self.path, split, chunks)
        return cast(ChunkTable, self._kept[key])

    def _known(self, split: str) -> str:
        if split not in self.meta.image_splits:
            raise StoreError(
                f"{self.path}: no image split {split!r}; it has {', '.join(self.meta.image_splits)}"
            )
        return split

    def _check_rows(self, split: str, rows: NDArray[np.int64]) -> None:
        images = self.meta.image_splits[self._known(split)].images
        if len(rows) and (rows.min() < 0 or rows.max() >= images):
            raise StoreError(
                f"{self.path}: rows {rows.min()}..{rows.max()} asked of image split {split}, "
                f"which has rows 0..{images - 1}"
            )
        key = ("skipped", split)
        if key not in self._kept:
            left_out = np.array(list(self.skipped(split)), np.int64)
            self._kept[key] = np.flatnonzero(np.isin(self.table(split).ids, left_out))
        if len(self._kept[key]) and (bad := np.isin(rows, self._kept[key])).any():
            image_id = int(self.table(split).ids[rows[bad][0]])
            raise StoreError(
                f"{self.path}: image {image_id} of {split} was left out when this store was made: "
                f"{self.skipped(split)[image_id]}"
            )

    def _no_boxes(self) -> StoreError:
        return StoreError(
            f"{self.path}: this store has no boxes; prepare it from features that have them "
            "(bottom-up .npz, LXMERT .tsv, HDF5 with image_bb)"
        )

    def _open_shard(self, split: str, shard: int) -> int:
        handle = self._files.get((split, shard))
        if handle is None:
            path = self._shard_path(split, shard)
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # it was there when the store was opened
                raise StoreError(f"{path}: missing; {way_out(self.path)}") from None
            first = self._files.setdefault((split, shard), handle)
            if first != handle:  # another thread opened it in the meantime
                os.close(handle)
            handle = first
        return handle

    def _shard_path(self, split: str, shard: int) -> Path:
        return self.path / self._backend.shard_files(split, shard, self.meta.feature)["features"]

    def _damaged(self, split: str, shard: int, chunk: int) -> StoreError:
        spec, ids = self.meta.feature, self.table(split).ids
        if spec.ragged:
            flat = np.array([chunk, chunk + 1]) * spec.chunk_rows
            first, last = np.searchsorted(self._offsets(split)[1:], [flat[0], flat[1] - 1], "right")
            last = min(int(last), len(ids) - 1)
            what = f"a chunk of images {ids[first]} to {ids[last]} of {split}"
        else:
            what = f"image {ids[chunk]} (row {chunk} of {split})"
        return StoreError(
            f"{self._shard_path(split, shard)}: {what} does not match its crc32c: damaged; "
            f"{way_out(self.path)}"
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
