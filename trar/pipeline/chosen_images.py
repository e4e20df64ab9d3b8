"""The raw images that a store's rows were made from, found again by their ids."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.fileio import sha256_json
from trar.pipeline.readers.image import Form, Images, RawImage


@dataclass(frozen=True)
class ChosenImages:
    """Images ``ids`` (n,) of a split, as they lie among ``raw``, whatever else is there.

    ``rows`` (n,) are their rows in ``raw``, -1 where they are gone; ``left_out`` (n,) marks those
    that the store was made without: they are not read. Without ``raw`` none can be read.
    """

    split: str
    ids: NDArray[np.int64]
    left_out: NDArray[np.bool_]
    rows: NDArray[np.int64]
    raw: Images | None = None

    @classmethod
    def find(
        cls, split: str, ids: NDArray[np.int64], left_out: NDArray[np.bool_], raw: Images
    ) -> ChosenImages:
        """Look the ids up."""
        row = np.minimum(np.searchsorted(raw.ids, ids), len(raw.ids) - 1)
        rows = np.where(raw.ids[row] == ids, row, -1)
        return cls(split, ids, left_out, rows, raw)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> ChosenImages:
        rows, raw = self.rows[start:stop], self.raw
        there = rows[rows >= 0]
        if raw is not None and len(there):
            first = int(there.min())
            raw, rows = raw.part(first, int(there.max()) + 1), np.where(rows < 0, -1, rows - first)
        elif raw is not None:
            raw = raw.part(0, 1)  # none of them is there: as small as can be
        return ChosenImages(self.split, self.ids[start:stop], self.left_out[start:stop], rows, raw)

    def with_form(self, form: Form) -> ChosenImages:
        return self if self.raw is None else replace(self, raw=self.raw.with_form(form))

    def read(self, row: int) -> RawImage:
        return self._raw(row).read(int(self.rows[row]))

    def regions(self, row: int) -> int:
        return self._raw(row).regions(int(self.rows[row]))

    def name(self, row: int) -> str:
        if self.raw is None or self.rows[row] < 0:
            return f"image {self.ids[row]} of {self.split}"
        return self.raw.name(int(self.rows[row]))

    def fingerprint(self) -> str:
        raw = "" if self.raw is None else self.raw.fingerprint()
        return sha256_json([raw, self.ids.tolist(), self.rows.tolist(), self.left_out.tolist()])

    def _raw(self, row: int) -> Images:
        if self.left_out[row]:
            raise RawDataError(f"{self.name(row)}: left out when the store was made")
        if self.raw is None or self.rows[row] < 0:
            raise RawDataError(
                f"{self.name(row)}: its raw features are gone; put the file back that the store "
                "was made from"
            )
        return self.raw
