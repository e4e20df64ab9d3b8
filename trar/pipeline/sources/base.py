"""What every dataset offers to the pipeline, whatever its raw files look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trar.features.schema import TargetRule


@dataclass(frozen=True)
class Questions:
    """One split of questions as parallel columns, in the order of their file.

    ``answers`` is None where the split has none (a test split). An image is named by id within
    the split's image splits; ``answer_types`` are names of ``questions.ANSWER_TYPES``.
    """

    ids: Sequence[int]
    image_ids: Sequence[int]
    texts: Sequence[str]
    types: Sequence[str]
    answers: Sequence[Sequence[str]] | None = None
    majority: Sequence[str] = ()
    answer_types: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Questions:
        """Only these rows, in this order."""

        def pick(column: Sequence[Any]) -> list[Any]:
            return [column[row] for row in rows]

        return Questions(
            pick(self.ids),
            pick(self.image_ids),
            pick(self.texts),
            pick(self.types),
            None if self.answers is None else pick(self.answers),
            pick(self.majority) if self.majority else (),
            pick(self.answer_types) if self.answer_types else (),
        )


class Images(Protocol):
    """The images of one image split, by row; small and picklable after ``part``."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """Image ids, (n,) ascending."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> Images:
        """Rows start..stop."""

    def read(self, row: int) -> NDArray[Any]:
        """Raw features of a row, in an orientation that ``transforms.orient`` knows."""

    def name(self, row: int) -> str:
        """Where the row comes from, for messages."""

    def fingerprint(self) -> str:
        """A digest that changes when the raw data of these images do."""


class Source(Protocol):
    """A dataset's raw files."""

    dataset: str
    rule: TargetRule
    min_count: int
    splits: tuple[str, ...]
    """Every question split this dataset can have, in the order that makes the vocabulary."""
    grid: int

    def present(self) -> list[str]:
        """The splits whose question file is there, in vocabulary order."""

    def vocabulary_note(self) -> str | None:
        """A warning when question files are missing that published checkpoints were made with."""

    def answer_splits(self) -> list[str]:
        """The splits whose answers make the answer dictionary, those present."""

    def texts(self, split: str) -> Sequence[str]:
        """The questions' texts alone, for the vocabulary; needs no annotation file."""

    def majority(self, split: str) -> Sequence[str]:
        """The answers that the answer dictionary counts, one a question, in their file's order."""

    def questions(self, split: str) -> Questions:
        """Read a split whole.

        Raises:
            RawDataError: a file is missing, damaged, of another split, or does not join.
        """

    def image_splits(self, split: str) -> list[str]:
        """The image splits that a question split refers to."""

    def images(self, image_split: str) -> Images:
        """Find the images of an image split.

        Raises:
            RawDataError: the folder is missing or holds something else.
        """

    def files(self, split: str) -> dict[str, Path]:
        """The raw files of a split by the name that the store's provenance gives them."""
