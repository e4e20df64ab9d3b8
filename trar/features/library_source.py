"""Chunks through zarr-python or h5py, where features are not laid out as docs/format.md says.

Another tool may have written the features of a split again: compressed, big-endian, in other
chunks. Their places in the files then mean nothing, and the library that knows the container reads
them: the same values, many times slower. Shape and type must be those of ``store.json``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features import zarr_layout
from trar.features.chunk_places import ChunkPlaces
from trar.features.chunk_source import ChunkFault, Landed
from trar.features.open_shards import OpenShards
from trar.features.place import is_remote
from trar.features.schema import ARRAYS, SHARDS, FeatureSpec, StoreMeta

_FEATURES, _CHECKSUMS = "features", "features_crc32c"  # in an HDF5 shard; see hdf5_shard


class LibrarySource:
    """Reads chunks through the container's library; see ``chunk_source.ChunkSource``."""

    def __init__(self, places: ChunkPlaces) -> None:
        self._places = places
        self._opened: dict[str, Chunks] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def read(
        self, split: str, chunks: NDArray[np.int64], out: NDArray[Any], landed: Landed
    ) -> None:
        if self._process != os.getpid():  # a library's handles do not survive a fork
            self._opened, self._process = {}, os.getpid()
        for number, chunk in enumerate(chunks.tolist()):
            try:
                if split not in self._opened:
                    self._opened[split] = _open(self._places, split)
                values, stored = self._opened[split].read(chunk)
            except Exception as error:  # damaged bytes can end in any exception of a library
                what = " ".join(str(error).split()) or type(error).__name__
                raise ChunkFault(number, f"cannot be read: {what}") from error
            out[number] = values
            landed(number, stored)


def other_layout(places: ChunkPlaces, split: str) -> str | None:
    """How the features of a split are laid out where it is not as trar writes them, else None.

    None too where they are not this split's features at all, or where some of them are missing:
    that is damage, not another layout. In an object store no other layout is known.
    """
    if is_remote(places.folder):
        return None
    with contextlib.suppress(Exception):  # damaged bytes can end in any exception of a library
        return _open(places, split).layout()
    return None


def split_of(meta: StoreMeta, name: str) -> str | None:
    """The image split whose features are in the file ``name`` of a store, None for other files."""
    for split in meta.image_splits:
        if meta.container == "zarr":
            found = name.startswith(f"{ARRAYS}/images/{split}/features/")
        else:
            found = name.startswith(f"{SHARDS}/{split}-") and name[-8:-3].isdigit()
        if found:
            return split
    return None


class Chunks(Protocol):
    """The features of one split, opened through a library."""

    def read(self, chunk: int) -> tuple[NDArray[np.uint8], int | None]:
        """A chunk's values as bytes, and their crc32c where one is kept beside them."""

    def layout(self) -> str | None:
        """See ``other_layout``."""


def _open(places: ChunkPlaces, split: str) -> Chunks:
    return (_Hdf5Chunks if places.meta.container == "hdf5" else _ZarrChunks)(places, split)


class _ZarrChunks:
    """The array ``features`` of a split; its crc32c, if it has one, is the library's to check.

    zarr-python reads a missing file as zeros, so each file is looked for first.
    """

    def __init__(self, places: ChunkPlaces, split: str) -> None:
        self._spec = places.meta.feature
        path = f"images/{split}/features"
        self._folder = places.folder / ARRAYS / path
        self._array = zarr.open_array(places.folder / ARRAYS, path=path, mode="r", zarr_format=3)
        images = places.meta.image_splits[split]
        _check_form(self._array, self._spec, images.chunks(self._spec), images.flat_rows)
        self._file_shape = self._array.shards or self._array.chunks

    def read(self, chunk: int) -> tuple[NDArray[np.uint8], int | None]:
        step = self._spec.chunk_rows if self._spec.ragged else 1
        rows = range(chunk * step, min((chunk + 1) * step, self._array.shape[0]))
        self._need_files(rows)
        return _whole(self._array[rows.start : rows.stop], self._spec), None

    def layout(self) -> str | None:
        self._need_files(range(self._array.shape[0]))
        return zarr_layout.other_layout(self._array, self._spec.compression)

    def _need_files(self, rows: range) -> None:
        """Refuse rows that some file is missing for."""
        first, *others = self._file_shape
        counts = [-(-n // size) for n, size in zip(self._array.shape[1:], others, strict=True)]
        files = range(rows.start // first, (rows.stop - 1) // first + 1)
        for place in itertools.product(files, *map(range, counts)):
            path = self._folder / self._array.metadata.encode_chunk_key(place)
            if not path.is_file():
                raise StoreError(f"{path.relative_to(self._folder)} is missing")


class _Hdf5Chunks:
    """The shards of a split, each with its ``features`` and the crc32c of the original chunks."""

    def __init__(self, places: ChunkPlaces, split: str) -> None:
        self._spec, self._images = places.meta.feature, places.meta.image_splits[split]
        self._split = split
        self._shards = OpenShards(places.shard_path, _open_hdf5)

    def read(self, chunk: int) -> tuple[NDArray[np.uint8], int | None]:
        shard, place = divmod(chunk, self._images.shard_images)
        features, checksums = self._shard(shard)
        step = self._spec.chunk_rows if self._spec.ragged else 1
        values = _whole(features[place * step : (place + 1) * step], self._spec)
        return values, int(checksums[place])

    def layout(self) -> str | None:
        spec, found = self._spec, None
        whole = (spec.chunk_rows, spec.width) if spec.ragged else (1, spec.rows, spec.width)
        for shard in range(self._images.shards(spec)):  # all of them: each must be sound
            features, _ = self._shard(shard)
            compression = features.compression or ("shuffled" if features.shuffle else None)
            if features.dtype.byteorder == ">" or features.chunks != whole or compression:
                found = (
                    f"{features.dtype.str}, chunks {features.chunks} of {features.shape}, "
                    f"{compression or 'no'} compression"
                )
        return found

    def _shard(self, shard: int) -> tuple[Any, NDArray[np.uint32]]:
        features, checksums = self._shards.get(self._split, shard)
        images, spec = self._images, self._spec
        chunks = min(images.shard_images, images.chunks(spec) - shard * images.shard_images)
        _check_form(features, spec, chunks, chunks * spec.chunk_rows)
        if checksums.shape != (chunks,):
            raise StoreError(f"{len(checksums)} checksums of {chunks} chunks")
        return features, checksums


def _open_hdf5(path: Path) -> tuple[Any, NDArray[np.uint32]]:
    from trar.features.hdf5_columns import open_file, read_columns  # h5py only where it is needed

    return open_file(path)[_FEATURES], read_columns(path, [_CHECKSUMS])[_CHECKSUMS]


def _check_form(array: Any, spec: FeatureSpec, chunks: int, flat_rows: int) -> None:
    """Refuse features of another shape or type than the store's; any byte order will do."""
    shape = (flat_rows, spec.width) if spec.ragged else (chunks, spec.rows, spec.width)
    if array.shape != shape or array.dtype.newbyteorder("=") != np.dtype(spec.dtype):
        raise StoreError(f"features are {array.dtype} {array.shape}, not {spec.dtype} {shape}")


def _whole(values: Any, spec: FeatureSpec) -> NDArray[np.uint8]:
    """The bytes of a chunk, little-endian; regions that are missing at the end are zeros."""
    chunk = np.zeros((spec.chunk_rows, spec.width), np.dtype(spec.dtype).newbyteorder("<"))
    rows = np.asarray(values).reshape(-1, spec.width)
    chunk[: len(rows)] = rows
    return chunk.reshape(-1).view(np.uint8)
