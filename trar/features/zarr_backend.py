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
from zarr.codecs import Crc32cCodec, ZstdCodec

from trar.errors import REMAKE, DiskError, StoreError
from trar.features.backend import ImageTable, Sides, Table
from trar.features.chunk_table import ChunkTable
from trar.features.place import is_remote, place_of
from trar.features.schema import ARRAYS, Compression, FeatureSpec, FileEntry, StoreMeta
from trar.features.zarr_columns import map_column, write_column
from trar.features.zarr_layout import is_zstd, other_layout
from trar.features.zarr_shard import (
    ABSENT,
    CHECKSUM_BYTES,
    ZSTD_LEVEL,
    read_index,
    write_chunk,
    write_shard,
)
from trar.fileio import disk_errors


class ZarrBackend:
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
        base = f"images/{split}"
        length = len(ids) if offsets is None else int(offsets[-1])
        inner = (1, spec.rows) if offsets is None else (spec.chunk_rows,)
        shard = (inner[0] * shard_images, *inner[1:])
        names = ["features"]
        with disk_errors(self.folder):
            root = zarr.open_group(self.folder / ARRAYS, mode="a", zarr_format=3)
            group = root.require_group(base)
            shape = (length, *inner[1:])
            _create_or_keep(
                group,
                "features",
                shape=(*shape, spec.width),
                dtype=spec.dtype,
                chunks=(*inner, spec.width),
                shards=(*shard, spec.width),
                compression=spec.compression,
            )
            if offsets is None:
                names.append("cells")
                _create_or_keep(group, "cells", shape, "bool", chunks=shard, shards=None)
            if spec.boxes:
                names.append("boxes")
                _create_or_keep(
                    group, "boxes", (*shape, 4), "float32", chunks=(*shard, 4), shards=None
                )
        described = [f"{ARRAYS}/{base}/{name}/zarr.json" for name in names]
        columns = self._write_column(base, "ids", ids)
        if offsets is not None:
            columns += self._write_column(base, "offsets", offsets)
        return [*_group_files(base), *described, *columns]

    def shard_files(self, split: str, shard: int, spec: FeatureSpec) -> dict[str, str]:
        base = f"{ARRAYS}/images/{split}"
        tail = "/0" if spec.ragged else "/0/0"
        files = {"features": f"{base}/features/c/{shard}{tail}"}
        if not spec.ragged:
            files["cells"] = f"{base}/cells/c/{shard}/0"
        if spec.boxes:
            files["boxes"] = f"{base}/boxes/c/{shard}{tail}"
        return files

    def write_shard(
        self,
        target: Path,
        spec: FeatureSpec,
        chunks: Iterable[NDArray[np.generic]],
        shard_images: int,
        sides: Sides = dict,
    ) -> FileEntry:
        return write_shard(target, chunks, spec.dtype, shard_images, spec.compression)

    def write_side(self, target: Path, values: NDArray[Any], length: int) -> FileEntry:
        whole = np.zeros((length, *values.shape[1:]), values.dtype)
        whole[: len(values)] = values
        return write_chunk(target, whole)

    def write_sizes(self, split: str, sizes: NDArray[np.int32]) -> list[str]:
        return self._write_column(f"images/{split}", "sizes", sizes)

    def write_table(self, name: str, table: Table) -> list[str]:
        with disk_errors(self.folder):
            root = zarr.open_group(self.folder / ARRAYS, mode="a", zarr_format=3)
            root.require_group(name)
        files = _group_files(name)
        for key, values in table.items():
            files += self._write_column(name, key, values)
        return files

    def write_view(self, meta: StoreMeta, files: Iterable[str]) -> list[str]:
        return []  # the hierarchy shows itself

    def _write_column(self, group: str, key: str, values: NDArray[Any]) -> list[str]:
        with disk_errors(self.folder):
            files = write_column(self.folder / ARRAYS, f"{group}/{key}", values)
        return [f"{ARRAYS}/{name}" for name in files]

    def read_images_table(self, split: str, spec: FeatureSpec) -> ImageTable:
        base = f"images/{split}"
        with self._damage(base):
            return ImageTable(
                self._read_array(f"{base}/ids"),
                None if spec.ragged else self._read_array(f"{base}/cells"),
                self._read_array(f"{base}/offsets") if spec.ragged else None,
                self._read_array(f"{base}/sizes") if spec.boxes else None,
            )

    def read_rows(self, split: str) -> dict[str, NDArray[Any]]:
        columns = {}
        for key in ("ids", "offsets", "sizes"):
            with contextlib.suppress(StoreError), self._damage(f"images/{split}/{key}"):
                columns[key] = self._read_array(f"images/{split}/{key}")
        return columns

    def read_boxes(self, split: str) -> NDArray[np.float32]:
        base = f"images/{split}/boxes"
        with self._damage(base):
            return self._read_array(base)

    def read_table(self, name: str) -> dict[str, NDArray[Any]]:
        with self._damage(name):
            source = self._source(name)
            group = zarr.open_group(source, path=name, mode="r", zarr_format=3)
            keys = sorted(group.array_keys())
            return {key: self._read_array(f"{name}/{key}", source) for key in keys}

    def resolve_chunks(self, split: str) -> ChunkTable:
        name = f"images/{split}/features"
        with self._damage(name):
            source = self._source(f"{name}/zarr.json")
            array = zarr.open_array(source, path=name, mode="r", zarr_format=3)
        compressed = is_zstd(array)
        other = other_layout(array, "zstd" if compressed else None)
        if other is not None or array.shards is None:
            raise StoreError(
                f"{self.folder / ARRAYS / name}: not in the layout of docs/format.md "
                "(sharding_indexed of little-endian bytes + crc32c, index at the end) but "
                f"{other}: written by another tool? prepare it with trar-data"
            )
        chunk_rows = array.chunks[0]
        chunks, shard_images = -(-array.shape[0] // chunk_rows), array.shards[0] // chunk_rows
        chunk_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize + CHECKSUM_BYTES
        place = np.empty((chunks, 2), np.int64)
        tail = "/0" * (array.ndim - 1)
        starts = range(0, chunks, shard_images)
        paths = [self.folder / ARRAYS / f"{name}/c/{i}{tail}" for i in range(len(starts))]
        indexes = place_of(self.folder).each(lambda path: read_index(path, shard_images), paths)
        for path, start, index in zip(paths, starts, indexes, strict=True):
            used = index[: chunks - start]
            wrong = used[:, 1] == ABSENT if compressed else used[:, 1] != chunk_bytes
            if wrong.any():
                row = start + int(np.argmax(wrong))
                raise StoreError(f"{path}: chunk {row} is absent or of another size; {REMAKE}")
            place[start : start + len(used)] = used
        shard = (np.arange(chunks) // shard_images).astype(np.int32)
        offset, size = (np.ascontiguousarray(column) for column in place.T)
        return ChunkTable(shard, offset, size=size if compressed else None)

    def _source(self, name: str) -> Any:
        """What zarr-python reads everything below ``name`` from."""
        return place_of(self.folder / ARRAYS).arrays(name)

    def _read_array(self, name: str, source: Any = None) -> NDArray[Any]:
        if not is_remote(self.folder):
            mapped = map_column(self.folder / ARRAYS / name)
            if mapped is not None:
                return mapped
        source = source or self._source(name)
        array = zarr.open_array(source, path=name, mode="r", zarr_format=3)
        return np.asarray(array[...])

    @contextlib.contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        """Whatever zarr-python makes of damaged bytes becomes one line that names the place."""
        try:
            yield
        except DiskError:  # the place cannot be read: nothing is known to be damaged
            raise
        except Exception as error:  # a flipped bit in a zarr.json can end in any exception
            what = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(
                f"{self.folder / ARRAYS / name}: damaged ({what}); {REMAKE}"
            ) from error


def _create_or_keep(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    *,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    compression: Compression | None = None,
) -> None:
    """Describe an array whose chunks others write; one of the same form keeps its chunks."""
    old = group.get(name)
    codecs = (*([ZstdCodec(level=ZSTD_LEVEL)] if compression else []), Crc32cCodec())
    form = (shape, chunks, shards, np.dtype(dtype), codecs)
    if isinstance(old, zarr.Array) and form == (
        old.shape,
        old.chunks,
        old.shards,
        old.dtype,
        old.compressors,
    ):
        return
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        filters=None,
        compressors=codecs,
        fill_value=0,
        overwrite=True,
    )


def _group_files(name: str) -> list[str]:
    """The descriptions of a group and of every group above it."""
    parts = name.split("/")
    return ["/".join([ARRAYS, *parts[:depth], "zarr.json"]) for depth in range(len(parts) + 1)]
