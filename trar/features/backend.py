"""What a container must offer so that the writer, the reader and verify need not know it.

A backend owns the array files of one dataset folder. Names are POSIX paths relative to that
folder, as ``store.json`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trar.features.chunk_table import ChunkTable
from trar.features.schema import FeatureSpec, FileEntry, StoreMeta

Table = Mapping[str, NDArray[Any]]
Sides = Callable[[], Table]


class ImageTable(NamedTuple):
    """What is kept of an image split beside its features, n images in row order.

    ``ids`` (n,) int64 ascending. ``cells`` (n, rows) bool: True where a row holds features and
    False where it is padding; None where ragged. ``offsets`` (n + 1,) int64: the flat rows of
    image i are offsets[i]:offsets[i + 1]; None where not ragged. ``sizes`` (n, 2) int32: height and
    width in pixels, zeros where unknown; None in a store without boxes.
    """

    ids: NDArray[np.int64]
    cells: NDArray[np.bool_] | None
    offsets: NDArray[np.int64] | None
    sizes: NDArray[np.int32] | None


class Backend(Protocol):
    """Reads and writes the arrays of one dataset folder."""

    def __init__(self, folder: Path) -> None: ...

    def create_images(
        self,
        split: str,
        spec: FeatureSpec,
        ids: NDArray[np.int64],
        shard_images: int,
        offsets: NDArray[np.int64] | None,
    ) -> list[str]:
        """Write an image split's descriptions, ids and, where ragged, offsets, keeping shards that
        are there already; returns the files that this call answers for."""

    def shard_files(self, split: str, shard: int, spec: FeatureSpec) -> dict[str, str]:
        """The files that one shard's writer writes: ``features``, and the matching chunk of
        ``cells`` (unless ragged) and of ``boxes`` (where the spec has them)."""

    def write_shard(
        self,
        target: Path,
        spec: FeatureSpec,
        chunks: Iterable[NDArray[np.generic]],
        shard_images: int,
        sides: Sides = dict,
    ) -> FileEntry:
        """Write at most ``shard_images`` chunks, each (chunk_rows, width), as a shard's bytes.

        ``sides``, asked once all chunks are taken, are the shard's cells and boxes, for a container
        that keeps them in the same file."""

    def write_side(self, target: Path, values: NDArray[Any], length: int) -> FileEntry:
        """Write the chunk of ``cells`` or ``boxes`` that belongs to a shard, filled up with zeros
        to ``length`` entries, where ``shard_files`` has a file for it."""

    def write_sizes(self, split: str, sizes: NDArray[np.int32]) -> list[str]:
        """Write the pixel sizes (n, 2) of a split's images; returns the files written."""

    def write_table(self, name: str, table: Table) -> list[str]:
        """Write named one-dimensional arrays as a group; returns the files written."""

    def write_view(self, meta: StoreMeta, files: Iterable[str]) -> list[str]:
        """Write what shows the whole store to other tools, from the splits of ``meta`` and the
        names of all ``files``; returns the files written."""

    def read_table(self, name: str) -> dict[str, NDArray[Any]]:
        """Every array of a group, whole and checked."""

    def read_images_table(self, split: str, spec: FeatureSpec) -> ImageTable:
        """What is kept of a split's images beside features and boxes."""

    def read_rows(self, split: str) -> dict[str, NDArray[Any]]:
        """Those of ``ids``, ``offsets`` and ``sizes`` that a split has and that can be read,
        whatever else of it is damaged."""

    def read_boxes(self, split: str) -> NDArray[np.float32]:
        """The boxes of a split: (n, rows, 4), or (flat rows, 4) where ragged."""

    def resolve_chunks(self, split: str) -> ChunkTable:
        """Where each chunk of a split lies, read from the container's own indexes."""
