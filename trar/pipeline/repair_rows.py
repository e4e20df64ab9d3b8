"""Proves which images the rows of a damaged store are, and makes their descriptions anew.

The store's own ids come first, if they can be read, else those of the raw files. They are proved
by writing them again: the files must get the digests that ``store.json`` states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError, StoreError, TrarError
from trar.features.backend import Backend
from trar.features.containers import open_backend
from trar.features.progress import Progress
from trar.features.questions import NameTable, Texts
from trar.pipeline.chosen_images import ChosenImages
from trar.pipeline.config import PrepareConfig
from trar.pipeline.readers.image import Form, Images
from trar.pipeline.replacement import Replacement
from trar.pipeline.sources import Source
from trar.pipeline.spec import flat_offsets

Raw = Callable[[], tuple[PrepareConfig, Source]]
"""Where the raw files are; asked only when they are needed."""


@dataclass(frozen=True)
class Rows:
    """The images of a split in row order: ``ids`` (n,), ``offsets`` (n + 1,) where ragged, and
    which were ``left_out`` (n,) when the store was made."""

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64] | None
    left_out: NDArray[np.bool_]


class RowsRepair:
    """The rows of every image split, and the files that hold them; ``aside`` writes aside."""

    def __init__(self, state: Replacement, aside: Backend, raw: Raw, progress: Progress) -> None:
        self.state, self.meta, self.raw, self.progress = state, state.meta, raw, progress
        self.stored = open_backend(state.folder, self.meta.container)
        self._aside = aside
        self._rows: dict[str, Rows | TrarError] = {}

    def prove(self, split: str) -> None:
        """Find the rows of a split; take over descriptions, ids, offsets, sizes and names.

        Raises:
            TrarError: neither the store nor the raw files have the rows.
        """
        try:
            self._describe(split)
        except TrarError as error:
            self._rows[split] = error
            raise

    def rows(self, split: str) -> Rows:
        """The images of a split, proved.

        Raises:
            TrarError: the store's own ids are damaged, and the raw files have others.
        """
        found = self._rows.get(split, StoreError(f"the store has no image split {split!r}"))
        if isinstance(found, TrarError):
            raise found
        return found

    def images(self, split: str, rows: Rows) -> ChosenImages:
        """The raw images of a split's rows, those that are there."""
        return ChosenImages.find(split, rows.ids, rows.left_out, self._raw_images(split))

    def form(self) -> Form:
        """How raw images are read for this store."""
        spec = self.meta.feature
        side = None if spec.grid is None else spec.grid[0]
        return Form(side, spec.width, self.raw()[0].keep_portrait)

    def _describe(self, split: str) -> None:
        """Prove the rows; descriptions, ids, offsets and sizes come with that."""
        spec, stated, backend = self.meta.feature, self.meta.image_splits[split], self._aside
        for ids, offsets, sizes in self._candidates(split):
            rows = Rows(ids, offsets, np.isin(ids, self._left_out(split)))
            names = backend.create_images(split, spec, ids, stated.shard_images, offsets)
            alone = self._right(names)  # sizes may stand in the same file as ids
            if not alone and spec.boxes:
                names = [*names, *backend.write_sizes(split, self._sizes(split, rows, sizes))]
            if self._right(names):
                self._rows[split] = rows
                self.state.take_over(self.state.undecided() & {*names}, str)
                if alone and spec.boxes:
                    self._repair_sizes(split, rows, sizes)
                if stated.named:
                    self._repair_names(split, rows)
                return
        raise StoreError(
            f"the ids of {split}'s images are damaged, and the raw features that are there are "
            f"not the {stated.images} images that the store has; {self.state.way_out()}"
        )

    def _right(self, names: list[str]) -> bool:
        return all(name in self.meta.files and self.state.is_right(name) for name in names)

    def _candidates(self, split: str) -> Iterator[tuple[Any, Any, NDArray[np.int32] | None]]:
        """Ids, offsets (None unless ragged) and sizes (None: unknown) that the rows may be."""
        stated, spec = self.meta.image_splits[split], self.meta.feature
        columns = self.stored.read_rows(split)
        ids, offsets = columns.get("ids"), columns.get("offsets") if spec.ragged else None
        fits = ids is not None and ids.shape == (stated.images,)
        if fits and (not spec.ragged or _spans(offsets, stated.images, stated.flat_rows)):
            yield ids, offsets, _sizes_of(columns, stated.images)
        images = self._raw_images(split)
        made = self.meta.provenance.get("splits", {})
        limits = [
            made.get(name, {}).get("limit")
            for name, one in self.meta.question_splits.items()
            if split in one.image_splits
        ]
        images = images.part(0, min([len(images), *filter(None, limits)]))
        if len(images) == stated.images:
            if spec.ragged:
                offsets = flat_offsets(self.raw()[0], images, spec, split, self.progress)
            if not spec.ragged or _spans(offsets, stated.images, stated.flat_rows):
                yield images.ids, offsets, None

    def _repair_sizes(self, split: str, rows: Rows, known: NDArray[np.int32] | None) -> None:
        """Where sizes are files of their own."""

        def make() -> None:
            self._aside.write_sizes(split, self._sizes(split, rows, None))

        blank = np.zeros((len(rows.ids), 2), np.int32)
        names = self._aside.write_sizes(split, blank if known is None else known)
        if self._right(names):
            self.state.take_over(self.state.undecided() & {*names}, str)
        else:
            why = f"the raw files state other sizes; {self.state.way_out()}"
            self.state.attempt(names, make, lambda: why)

    def _sizes(self, split: str, rows: Rows, known: NDArray[np.int32] | None) -> NDArray[np.int32]:
        """Height and width of each image, from its raw file unless ``known``."""
        if known is not None:
            return known
        sizes = np.zeros((len(rows.ids), 2), np.int32)
        images = self.images(split, rows)
        for row in np.flatnonzero(~rows.left_out).tolist():
            self.progress(f"sizes {split}", row, len(sizes))
            sizes[row] = images.read(row).size or (0, 0)
        return sizes

    def _repair_names(self, split: str, rows: Rows) -> None:
        def make() -> None:
            names = self.raw()[1].image_names(split)
            if names is None or rows.ids.max() >= len(names):
                raise RawDataError(f"the images have other names now; {self.state.way_out()}")
            known = Texts.pack([names[image_id] for image_id in rows.ids.tolist()])
            self._aside.write_table(f"names/{split}", NameTable(known).columns())

        own = [name for name in self.state.undecided() if f"names/{split}" in name]
        why = f"the images have other names now; {self.state.way_out()}"
        self.state.attempt(own, make, lambda: why)

    def _raw_images(self, split: str) -> Images:
        return self.raw()[1].images(split).with_form(self.form())

    def _left_out(self, split: str) -> list[int]:
        return [int(one) for one in self.meta.provenance.get("skipped", {}).get(split, ())]


def _spans(offsets: NDArray[np.int64] | None, images: int, total: int) -> bool:
    """Whether offsets can be those of so many images with so many regions in all."""
    return (
        offsets is not None
        and offsets.shape == (images + 1,)
        and (offsets[0], offsets[-1]) == (0, total)
        and bool((np.diff(offsets) >= 0).all())
    )


def _sizes_of(columns: dict[str, NDArray[Any]], images: int) -> NDArray[np.int32] | None:
    sizes = columns.get("sizes")
    return sizes if sizes is not None and sizes.shape == (images, 2) else None
