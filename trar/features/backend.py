"""What a container must offer so that the writer, the reader and verify need not know it.

A backend owns the array files of one dataset folder. Names are POSIX paths relative to that
folder, as ``store.json`` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trar.features.chunk_table import ChunkTable
from trar.features.schema import FeatureSpec, FileEntry

Table = Mapping[str, NDArray[Any]]


class Backend(Protocol):
    """Reads and writes the arrays of one dataset folder."""

    def __init__(self, folder: Path) -> None: ...

    def create_images(
        self, split: str, spec: FeatureSpec, ids: NDArray[np.int64], shard_images: int
    ) -> list[str]:
        """Write an image split's descriptions and ids, keeping shards that are there already;
        returns the files that this call answers for."""

    def shard_files(self, split: str, shard: int) -> tuple[str, str]:
        """The file of one shard of ``features`` and of the matching chunk of ``cells``."""

    def write_shard(
        self,
        target: Path,
        spec: FeatureSpec,
        rows: Iterable[NDArray[np.generic]],
        shard_images: int,
    ) -> FileEntry:
        """Write at most ``shard_images`` images, each (rows, width), as the bytes of one shard."""

    def write_cells(self, target: Path, cells: NDArray[np.bool_], shard_images: int) -> FileEntry:
        """Write the chunk of ``cells`` that belongs to a shard, cells (images, rows) bool."""

    def write_table(self, name: str, table: Table) -> list[str]:
        """Write named one-dimensional arrays as a group; returns the files written."""

    def read_table(self, name: str) -> dict[str, NDArray[Any]]:
        """Every array of a group, whole and checked."""

    def read_images_table(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The ids (images,) and cells (images, rows) of a split; a cell is True where it holds
        features and False where the grid was padded."""

    def resolve_chunks(self, split: str) -> ChunkTable:
        """Where each image of a split lies, read from the container's own indexes."""
