"""What every dataset offers to the pipeline, whatever its raw files look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from trar.features.answers import AnswerDictionary
from trar.features.columns import take_rows
from trar.features.schema import TargetRule
from trar.pipeline.readers.image import Images


@dataclass(frozen=True)
class Questions:
    """One split of questions as parallel columns, in the order of their file.

    Any sequences will do; those of large files are arrays and the columns of ``features.columns``.
    ``answers`` is None where the split has none (a test split); ``scores`` gives each answer's
    score where the raw file states it (LXMERT's labels), else the rule makes it. An image is named
    by id within the split's image splits; ``answer_types`` are names of ``questions.ANSWER_TYPES``.
    ``notes`` are warnings about what was left out on the way.
    """

    ids: Sequence[int]
    image_ids: Sequence[int]
    texts: Sequence[str]
    types: Sequence[str]
    answers: Sequence[Sequence[str]] | None = None
    majority: Sequence[str] = ()
    answer_types: Sequence[str] = ()
    scores: Sequence[Sequence[float]] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Questions:
        """Only these rows, in this order."""
        wanted = np.asarray(rows, np.int64)
        return Questions(
            take_rows(self.ids, wanted),
            take_rows(self.image_ids, wanted),
            take_rows(self.texts, wanted),
            take_rows(self.types, wanted),
            None if self.answers is None else take_rows(self.answers, wanted),
            take_rows(self.majority, wanted) if self.majority else (),
            take_rows(self.answer_types, wanted) if self.answer_types else (),
            None if self.scores is None else take_rows(self.scores, wanted),
            self.notes,
        )


class Source(Protocol):
    """A dataset's raw files."""

    dataset: str
    rule: TargetRule
    min_count: int
    splits: tuple[str, ...]
    """Every question split this dataset can have, in the order that makes the vocabulary."""
    grid: int
    """The side of the grid where the files themselves leave it open."""

    def present(self) -> list[str]:
        """The splits whose questions make the vocabulary: those whose file is there, in order."""

    def vocabulary_note(self) -> str | None:
        """A warning when question files are missing that published checkpoints were made with."""

    def answer_splits(self) -> list[str]:
        """The splits whose answers make the answer dictionary, those present."""

    def use_answers(self, answers: AnswerDictionary) -> None:
        """Told before any questions are read, for sources that keep questions by their answer."""

    def texts(self, split: str) -> Sequence[str]:
        """The questions' texts alone, for the vocabulary; needs no annotation file."""

    def majority(self, split: str) -> Sequence[str]:
        """The answers that the answer dictionary counts, one a question, in their file's order."""

    def questions(self, split: str) -> Questions:
        """Read a split whole.

        Raises:
            RawDataError: a file is missing, damaged, of another split, or does not join.
        """

    def source_of(self, split: str) -> str:
        """Whose question ids these are: with the id it identifies a question across splits."""

    def image_splits(self, split: str) -> list[str]:
        """The image splits that a question split refers to."""

    def images(self, image_split: str) -> Images:
        """Find the images of an image split, not yet read in any form.

        Raises:
            RawDataError: they are missing, or something else is in their place.
        """

    def image_names(self, image_split: str) -> Sequence[str] | None:
        """Names by image id where images have names and no ids of their own, else None."""

    def files(self, split: str) -> dict[str, Path]:
        """The raw files of a split by the name that the store's provenance gives them."""
