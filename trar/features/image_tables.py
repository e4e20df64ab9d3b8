"""What a store keeps of its images beside their features: ids, lengths, cells, boxes, sizes.

b images are asked for at a time, by their row in an image split.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trar.errors import StoreError
from trar.features.backend import ImageTable
from trar.features.chunk_places import ChunkPlaces


class ImageTables:
    """The image splits of one dataset folder. Tables are read on first use."""

    def __init__(self, places: ChunkPlaces) -> None:
        self._path, self._meta, self._backend = places.folder, places.meta, places.backend
        self._kept: dict[tuple[str, str], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def table(self, split: str) -> ImageTable:
        """What is kept of a split's images beside features and boxes.

        Raises:
            StoreError: no such image split, or damaged.
        """
        key = ("images", self._known(split))
        if key not in self._kept:
            self._kept[key] = self._backend.read_images_table(split, self._meta.feature)
        return cast(ImageTable, self._kept[key])

    def offsets(self, split: str) -> NDArray[np.int64]:
        """Where each image's flat rows begin, and the last one's end, in a ragged store."""
        offsets = self.table(split).offsets
        assert offsets is not None
        return offsets

    def lengths(self, split: str, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows of features of images ``rows`` (b,), (b,)."""
        if not self._meta.feature.ragged:
            return np.full(len(rows), self._meta.feature.rows, np.int32)
        offsets = self.offsets(split)
        return (offsets[rows + 1] - offsets[rows]).astype(np.int32)

    def cells(self, split: str) -> NDArray[np.bool_]:
        """See ``FeatureStore.cells``."""
        table = self.table(split)
        if table.cells is not None:
            return table.cells
        lengths = self.lengths(split, np.arange(len(table.ids)))
        return np.arange(self._meta.feature.rows) < lengths[:, None]

    def boxes(self, split: str, rows: ArrayLike) -> NDArray[np.float32]:
        """See ``FeatureStore.boxes``."""
        if not self._meta.feature.boxes:
            raise self._no_boxes()
        wanted = np.asarray(rows, np.int64).reshape(-1)
        self.check_rows(split, wanted)
        key = ("boxes", split)
        if key not in self._kept:
            self._kept[key] = self._backend.read_boxes(split)
        every: NDArray[np.float32] = self._kept[key]
        if not self._meta.feature.ragged:
            return every[wanted]
        begin, count = self.offsets(split)[wanted], self.lengths(split, wanted)
        out = np.zeros((len(wanted), int(count.max(initial=0)), 4), np.float32)
        inside = np.arange(out.shape[1]) < count[:, None]
        out[inside] = every[(begin[:, None] + np.arange(out.shape[1]))[inside]]
        return out

    def sizes(self, split: str) -> NDArray[np.int32]:
        """See ``FeatureStore.sizes``."""
        sizes = self.table(split).sizes
        if sizes is None:
            raise self._no_boxes()
        return sizes

    def skipped(self, split: str) -> dict[int, str]:
        """See ``FeatureStore.skipped``."""
        found = self._meta.provenance.get("skipped", {}).get(split, {})
        return {int(image_id): why for image_id, why in found.items()}

    def check_rows(self, split: str, rows: NDArray[np.int64]) -> None:
        """Refuse rows outside a split and images that were left out.

        Raises:
            StoreError: says which.
        """
        images = self._meta.image_splits[self._known(split)].images
        if len(rows) and (rows.min() < 0 or rows.max() >= images):
            raise StoreError(
                f"{self._path}: rows {rows.min()}..{rows.max()} asked of image split {split}, "
                f"which has rows 0..{images - 1}"
            )
        key = ("skipped", split)
        if key not in self._kept:
            left_out = np.array(list(self.skipped(split)), np.int64)
            self._kept[key] = left_out
            if len(left_out):  # else the ids need not be read
                self._kept[key] = np.flatnonzero(np.isin(self.table(split).ids, left_out))
        if len(self._kept[key]) and (bad := np.isin(rows, self._kept[key])).any():
            image_id = int(self.table(split).ids[rows[bad][0]])
            raise StoreError(
                f"{self._path}: image {image_id} of {split} was left out when this store was "
                f"made: {self.skipped(split)[image_id]}"
            )

    def name_of_chunk(self, split: str, chunk: int) -> str:
        """Which image, or images where they are ragged, have values in a chunk, for a message: as
        far as that can be told, for more than this chunk may be damaged."""
        spec, kept = self._meta.feature, self._kept.get(("images", split))
        known = self._backend.read_rows(split) if kept is None else kept._asdict()
        ids = known.get("ids")
        if ids is None or (spec.ragged and "offsets" not in known):
            return f"chunk {chunk} of {split}"
        if not spec.ragged:
            return f"image {ids[chunk]} (row {chunk} of {split})"
        flat = [chunk * spec.chunk_rows, (chunk + 1) * spec.chunk_rows - 1]
        first, last = np.searchsorted(known["offsets"][1:], flat, "right")
        return f"a chunk of images {ids[first]} to {ids[min(int(last), len(ids) - 1)]} of {split}"

    def _known(self, split: str) -> str:
        if split not in self._meta.image_splits:
            have = ", ".join(self._meta.image_splits)
            raise StoreError(f"{self._path}: no image split {split!r}; it has {have}")
        return split

    def _no_boxes(self) -> StoreError:
        return StoreError(
            f"{self._path}: this store has no boxes; prepare it from features that have them "
            "(bottom-up .npz, LXMERT .tsv, HDF5 with image_bb)"
        )
