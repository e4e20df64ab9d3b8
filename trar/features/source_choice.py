"""Chooses where the chunks of an image split come from: the place, the layout and the settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from trar.features.chunk_places import ChunkPlaces
from trar.features.chunk_source import ChunkSource
from trar.features.containers import refuse_compression
from trar.features.library_source import LibrarySource
from trar.features.local_sources import MmapSource, PreadSource, fits_in_memory
from trar.features.place import is_remote
from trar.features.zstd_source import ZstdSource, can_read

Access = Literal["auto", "preadv", "mmap", "library"]
"""How chunks come from a local disk: by ``preadv``, from memory maps, or through zarr-python or
h5py. "auto" takes memory maps where nothing is verified and the images fit into memory, else
``preadv``. What is compressed with zstd is decoded, and any layout that trar does not know is read
through the library, whatever this says."""

_LOG = logging.getLogger("trar.features")


class Sources:
    """The sources of one dataset folder, each made when a split first needs it.

    ``other_layouts``: the image splits whose features are not laid out as trar writes them, and
    how they are.
    """

    def __init__(
        self,
        places: ChunkPlaces,
        access: Access,
        verified: bool,
        other_layouts: Mapping[str, str],
    ) -> None:
        if places.meta.feature.compression is not None:
            refuse_compression(places.folder, places.meta.container)
        self._places, self._access, self._verified = places, access, verified
        self._other_layouts = other_layouts
        self._made: dict[Any, ChunkSource] = {}
        self._of_split: dict[str, ChunkSource] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}, "_of_split": {}}

    def of(self, split: str) -> ChunkSource:
        """The source of a split's chunks."""
        if split not in self._of_split:
            kind = self._kind(split)
            self._of_split[split] = self._made.setdefault(kind, kind(self._places))
        return self._of_split[split]

    def _kind(self, split: str) -> Any:
        if split in self._other_layouts:
            kind = ZstdSource if can_read(self._places, split) else LibrarySource
            library = "h5py" if self._places.meta.container == "hdf5" else "zarr-python"
            _LOG.warning(
                "%s: the features of %s are not laid out as trar writes them (%s): they are read "
                "through %s, many times slower; prepare this dataset again for full speed",
                self._places.folder,
                split,
                self._other_layouts[split],
                "a decoder" if kind is ZstdSource else library,
            )
            return kind
        if is_remote(self._places.folder):
            from trar.features.remote_source import RemoteSource  # s3fs only where it is needed

            return RemoteSource
        if self._access == "library":
            return LibrarySource
        if self._places.meta.feature.compression is not None:
            return ZstdSource
        if self._access == "mmap" or (
            self._access == "auto" and not self._verified and self._fits(split)
        ):
            return MmapSource
        return PreadSource

    def _fits(self, split: str) -> bool:
        meta = self._places.meta
        shards = range(meta.image_splits[split].shards(meta.feature))
        names = (self._places.shard_name(split, shard) for shard in shards)
        return fits_in_memory(meta.files[name].bytes for name in names)
