"""The HDF5 container of a dataset folder: shards in ``images/``, one file a table in ``tables/``.

Every file is made in memory and written whole, never in place: HDF5 cannot be read while it is
written, and ends the process on a full disk. ``<dataset>.h5`` shows all of it to other tools.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import REMAKE, StoreError
from trar.features.backend import ImageTable, Sides, Table
from trar.features.chunk_table import ChunkTable
from trar.features.hdf5_columns import columns_file, read_columns
from trar.features.hdf5_shard import ShardBuilder, read_chunks, write_bytes
from trar.features.hdf5_view import shard_file, table_file, view_bytes
from trar.features.schema import (
    RAGGED_CHUNK_ROWS,
    SHARDS,
    FeatureSpec,
    FileEntry,
    StoreMeta,
    view_file,
)
from trar.fileio import atomic_write, disk_errors

_SHARD_IMAGES = "shard_images"  # one number, kept with the ids


class Hdf5Backend:
    """Reads and writes the arrays of one dataset folder; see ``backend.Backend``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create_images(
        self,
        split: str,
        spec: FeatureSpec,
        ids: NDArray[np.int64],
        shard_images: int,
        offsets: NDArray[np.int64] | None,
    ) -> list[str]:
        with disk_errors(self.folder):
            (self.folder / SHARDS).mkdir(exist_ok=True)
        table = {"ids": ids, _SHARD_IMAGES: np.array([shard_images], np.int64)}
        return self.write_table(
            f"images/{split}", table if offsets is None else {**table, "offsets": offsets}
        )

    def shard_files(self, split: str, shard: int, spec: FeatureSpec) -> dict[str, str]:
        return {"features": shard_file(split, shard)}

    def write_shard(
        self,
        target: Path,
        spec: FeatureSpec,
        chunks: Iterable[NDArray[np.generic]],
        shard_images: int,
        sides: Sides = dict,
    ) -> FileEntry:
        shard = ShardBuilder(spec, shard_images)
        try:
            shard.add(chunks)
            return write_bytes(target, shard.finish(sides()))
        finally:
            shard.close()

    def write_side(self, target: Path, values: NDArray[Any], length: int) -> FileEntry:
        raise AssertionError("cells and boxes stand in the shard's own file")

    def write_sizes(self, split: str, sizes: NDArray[np.int32]) -> list[str]:
        name = f"images/{split}"
        return self.write_table(name, {**self.read_table(name), "sizes": sizes})

    def write_table(self, name: str, table: Table) -> list[str]:
        return self._write(table_file(name), columns_file(dict(table)))

    def write_view(self, meta: StoreMeta, files: Iterable[str]) -> list[str]:
        return self._write(view_file(meta.dataset), view_bytes(meta, files))

    def _write(self, file_name: str, data: memoryview) -> list[str]:
        target = self.folder / file_name
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as file:
            file.write(data)
        return [file_name]

    def read_images_table(self, split: str, spec: FeatureSpec) -> ImageTable:
        columns = self.read_table(f"images/{split}")
        cells = None
        try:
            if not spec.ragged:
                cells = self._over_shards(split, columns, "cells")
            return ImageTable(
                columns["ids"],
                cells,
                columns["offsets"] if spec.ragged else None,
                columns["sizes"] if spec.boxes else None,
            )
        except KeyError as missing:
            raise self._lacks(split, missing) from None

    def read_rows(self, split: str) -> dict[str, NDArray[Any]]:
        with contextlib.suppress(StoreError):
            return self.read_table(f"images/{split}")
        return {}

    def read_boxes(self, split: str) -> NDArray[np.float32]:
        return self._over_shards(split, self.read_table(f"images/{split}"), "boxes")

    def read_table(self, name: str) -> dict[str, NDArray[Any]]:
        return read_columns(self.folder / table_file(name))

    def resolve_chunks(self, split: str) -> ChunkTable:
        columns = self.read_table(f"images/{split}")
        shard, offset, checksum = [], [], []
        for number, expected in enumerate(self._shard_chunks(split, columns)):
            path = self.folder / shard_file(split, number)
            found = read_chunks(path)
            if len(found.offset) != expected:
                raise StoreError(
                    f"{path}: {len(found.offset)} chunks, expected {expected}; {REMAKE}"
                )
            shard.append(np.full(expected, number, np.int32))
            offset.append(found.offset)
            checksum.append(found.crc32c)
        return ChunkTable(np.concatenate(shard), np.concatenate(offset), np.concatenate(checksum))

    def _over_shards(self, split: str, columns: Table, name: str) -> NDArray[Any]:
        """A column that each shard holds a part of."""
        shards = range(len(self._shard_chunks(split, columns)))
        paths = (self.folder / shard_file(split, number) for number in shards)
        return np.concatenate([read_columns(path, [name])[name] for path in paths])

    def _shard_chunks(self, split: str, columns: Table) -> list[int]:
        """The number of chunks in each shard of a split."""
        try:
            chunks = len(columns["ids"])
            if "offsets" in columns:
                chunks = -(-int(columns["offsets"][-1]) // RAGGED_CHUNK_ROWS)
            step = int(columns[_SHARD_IMAGES][0])
        except (KeyError, IndexError) as missing:
            raise self._lacks(split, missing) from None
        if step < 1:
            raise self._lacks(split, step)
        return [min(step, chunks - start) for start in range(0, max(1, chunks), step)]

    def _lacks(self, split: str, what: object) -> StoreError:
        path = self.folder / table_file(f"images/{split}")
        return StoreError(f"{path}: damaged (no usable {what}); {REMAKE}")
