"""The Zarr v3 container of a dataset folder: ``arrays.zarr``.

zarr-python writes the descriptions and the tables and can read everything; the shards of the
features are written by ``zarr_shard``. Every chunk carries a crc32c, so that any Zarr tool notices
a flipped byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from trar.errors import StoreError
from trar.features.backend import Table
from trar.features.chunk_table import ChunkTable
from trar.features.schema import ARRAYS, FeatureSpec, FileEntry
from trar.features.zarr_shard import CHECKSUM_BYTES, read_index, write_chunk, write_shard
from trar.fileio import disk_errors

_TABLE_CHUNK = 1 << 20  # elements per chunk of a table: a few MiB each, few files
_INNER_CODECS = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
)


class ZarrBackend:
    """Reads and writes the arrays of one dataset folder; see ``backend.Backend``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create_images(
        self, split: str, spec: FeatureSpec, ids: NDArray[np.int64], shard_images: int
    ) -> list[str]:
        base = f"images/{split}"
        with disk_errors(self.folder):
            root = zarr.open_group(self.folder / ARRAYS, mode="a", zarr_format=3)
            group = root.require_group(base)
            _create_or_keep(
                group,
                "features",
                shape=(len(ids), spec.rows, spec.width),
                dtype=spec.dtype,
                chunks=(1, spec.rows, spec.width),
                shards=(shard_images, spec.rows, spec.width),
            )
            _create_or_keep(
                group,
                "cells",
                shape=(len(ids), spec.rows),
                dtype="bool",
                chunks=(shard_images, spec.rows),
                shards=None,
            )
        features = [f"{ARRAYS}/{base}/{name}/zarr.json" for name in ("features", "cells")]
        return [*_group_files(base), *features, *self._write_column(base, "ids", ids)]

    def shard_files(self, split: str, shard: int) -> tuple[str, str]:
        base = f"{ARRAYS}/images/{split}"
        return f"{base}/features/c/{shard}/0/0", f"{base}/cells/c/{shard}/0"

    def write_shard(
        self,
        target: Path,
        spec: FeatureSpec,
        rows: Iterable[NDArray[np.generic]],
        shard_images: int,
    ) -> FileEntry:
        return write_shard(target, rows, spec.dtype, shard_images)

    def write_cells(self, target: Path, cells: NDArray[np.bool_], shard_images: int) -> FileEntry:
        whole = np.zeros((shard_images, cells.shape[1]), np.bool_)
        whole[: len(cells)] = cells
        return write_chunk(target, whole)

    def write_table(self, name: str, table: Table) -> list[str]:
        with disk_errors(self.folder):
            root = zarr.open_group(self.folder / ARRAYS, mode="a", zarr_format=3)
            root.require_group(name)
        files = _group_files(name)
        for key, values in table.items():
            files += self._write_column(name, key, values)
        return files

    def _write_column(self, group: str, key: str, values: NDArray[Any]) -> list[str]:
        with disk_errors(self.folder), zarr.config.set({"array.write_empty_chunks": True}):
            array = zarr.create_array(
                self.folder / ARRAYS,
                name=f"{group}/{key}",
                shape=values.shape,
                dtype=values.dtype,
                chunks=(max(1, min(_TABLE_CHUNK, len(values))),),
                filters=None,
                compressors=[Crc32cCodec()],
                fill_value=0,
                zarr_format=3,
                overwrite=True,
            )
            array[:] = values
        base = f"{ARRAYS}/{group}/{key}"
        return [f"{base}/zarr.json", *(f"{base}/c/{i}" for i in range(array.nchunks))]

    def read_images_table(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        base = f"images/{split}"
        with self._damage(base):
            return self._read_array(f"{base}/ids"), self._read_array(f"{base}/cells")

    def read_table(self, name: str) -> dict[str, NDArray[Any]]:
        with self._damage(name):
            group = zarr.open_group(self.folder / ARRAYS, path=name, mode="r", zarr_format=3)
            return {key: self._read_array(f"{name}/{key}") for key in sorted(group.array_keys())}

    def resolve_chunks(self, split: str) -> ChunkTable:
        name = f"images/{split}/features"
        with self._damage(name):
            array = zarr.open_array(self.folder / ARRAYS, path=name, mode="r", zarr_format=3)
        self._check_fast_layout(split, array)
        assert array.shards is not None
        images, shard_images = array.shape[0], array.shards[0]
        chunk_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize + CHECKSUM_BYTES
        offset = np.empty(images, np.int64)
        for shard, start in enumerate(range(0, images, shard_images)):
            path = self.folder / self.shard_files(split, shard)[0]
            used = read_index(path, shard_images)[: images - start]
            if (used[:, 1] != chunk_bytes).any():
                row = start + int(np.argmax(used[:, 1] != chunk_bytes))
                raise StoreError(
                    f"{path}: image row {row} is absent or of another size; "
                    "prepare this dataset again"
                )
            offset[start : start + len(used)] = used[:, 0]
        return ChunkTable((np.arange(images) // shard_images).astype(np.int32), offset)

    def _check_fast_layout(self, split: str, array: zarr.Array[Any]) -> None:
        """Refuse what plain file reads would misread: another byte order, codec or index place."""
        codecs: Any = array.metadata.to_dict()["codecs"]
        inner = codecs[0].get("configuration", {}) if len(codecs) == 1 else {}
        if tuple(inner.get("codecs", ())) == _INNER_CODECS and inner["index_location"] == "end":
            return
        raise StoreError(
            f"{self.folder / ARRAYS}/images/{split}/features: not in the layout of docs/format.md "
            "(sharding_indexed of little-endian bytes + crc32c, index at the end) but "
            f"{[codec['name'] for codec in codecs]}: written by another tool? "
            "prepare it with trar-data"
        )

    def _read_array(self, name: str) -> NDArray[Any]:
        array = zarr.open_array(self.folder / ARRAYS, path=name, mode="r", zarr_format=3)
        return np.asarray(array[...])

    @contextlib.contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        """Whatever zarr-python makes of damaged bytes becomes one line that names the place."""
        try:
            yield
        except Exception as error:  # a flipped bit in a zarr.json can end in any exception
            what = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(
                f"{self.folder / ARRAYS / name}: damaged ({what}); prepare this dataset again"
            ) from error


def _create_or_keep(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    dtype: str,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
) -> None:
    """Describe an array whose chunks others write; one of the same form keeps its chunks."""
    old = group.get(name)
    form = (shape, chunks, shards, np.dtype(dtype))
    if isinstance(old, zarr.Array) and form == (old.shape, old.chunks, old.shards, old.dtype):
        return
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=0,
        overwrite=True,
    )


def _group_files(name: str) -> list[str]:
    """The descriptions of a group and of every group above it."""
    parts = name.split("/")
    return ["/".join([ARRAYS, *parts[:depth], "zarr.json"]) for depth in range(len(parts) + 1)]
