"""Where each chunk of a dataset folder lies: its chunk tables by split, and its shard files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trar.errors import StoreError
from trar.features.backend import Backend
from trar.features.chunk_table import ChunkTable, read_chunk_table, table_file
from trar.features.schema import StoreMeta


class ChunkPlaces:
    """The chunk tables and shard files of one dataset folder; tables are read on first use."""

    def __init__(self, folder: Path, meta: StoreMeta, backend: Backend) -> None:
        self.folder, self.meta, self.backend = folder, meta, backend
        self.chunk_bytes = meta.feature.chunk_bytes
        self._tables: dict[str, ChunkTable] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def table(self, split: str) -> ChunkTable:
        """Shard and offset of each chunk of an image split.

        Raises:
            StoreError: no such split, or its table is missing or damaged.
        """
        if split not in self._tables:
            if split not in self.meta.image_splits:
                have = ", ".join(self.meta.image_splits)
                raise StoreError(f"{self.folder}: no image split {split!r}; it has {have}")
            chunks = self.meta.image_splits[split].chunks(self.meta.feature)
            digest = self.meta.files[table_file(split)].sha256
            self._tables[split] = read_chunk_table(self.folder, split, chunks, digest)
        return self._tables[split]

    def shard_name(self, split: str, shard: int) -> str:
        """A shard's file, relative to the folder, as ``store.json`` lists it."""
        return self.backend.shard_files(split, shard, self.meta.feature)["features"]

    def shard_path(self, split: str, shard: int) -> Path:
        """A shard's file."""
        return self.folder / self.shard_name(split, shard)
