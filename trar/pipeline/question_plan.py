"""The questions of one split, joined with the rows of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.config import PrepareConfig
from trar.pipeline.readers.image import Images
from trar.pipeline.sources import Questions


@dataclass(frozen=True)
class QuestionPlan:
    """One question split to write, joined: question i is about row ``image_row[i]`` of image
    split number ``image_split[i]`` of ``image_splits``."""

    split: str
    questions: Questions
    image_splits: list[str]
    image_split: NDArray[np.uint8]
    image_row: NDArray[np.int32]

    def take(self, rows: NDArray[np.int64]) -> QuestionPlan:
        """Only these questions."""
        return QuestionPlan(
            self.split,
            self.questions.take(rows.tolist()),
            self.image_splits,
            self.image_split[rows],
            self.image_row[rows],
        )


def join_questions(
    config: PrepareConfig,
    split: str,
    questions: Questions,
    names: list[str],
    images: Mapping[str, Images],
    left_out: dict[str, list[int]],
) -> QuestionPlan:
    """Find the row of each question's image in the image splits ``names``; ``left_out`` takes the
    ids, by image split, that are not there where images may be skipped.

    Raises:
        RawDataError: questions have no image and may not be left out, or none is left.
    """
    wanted = np.asarray(questions.image_ids, np.int64)
    image_split = np.zeros(len(wanted), np.uint8)
    image_row = np.full(len(wanted), -1, np.int32)
    for number, name in enumerate(names):
        ids = images[name].ids
        row = np.searchsorted(ids, wanted)
        found = (row < len(ids)) & (ids[np.minimum(row, len(ids) - 1)] == wanted)
        image_split[found], image_row[found] = number, row[found]
    plan = QuestionPlan(split, questions, names, image_split, image_row)
    missing = np.flatnonzero(image_row < 0)
    if len(missing):
        first = int(missing[0])
        absent = np.unique(wanted[missing])
        if config.on_bad_image == "error":
            raise RawDataError(
                f"{len(missing)} of {len(wanted)} questions of split {split!r} have no image: "
                f"features of {len(absent)} images are missing from {' and '.join(names)} "
                f"({sum(len(images[name]) for name in names)} feature files found). The first is "
                f"question {questions.ids[first]} about image {wanted[first]}. Complete the "
                "feature folder (half-unpacked archive?), prepare a part of it with --limit, or "
                "leave these questions out with --on-bad-image skip"
            )
        left_out.setdefault(names[0], []).extend(absent.tolist())
        plan = plan.take(np.flatnonzero(image_row >= 0))
    if not len(plan.questions):
        raise RawDataError(f"split {split!r} has no questions about these images")
    return plan


def about_images(questions: Questions, images: Sequence[Images]) -> Questions:
    """The questions about these images."""
    wanted = np.concatenate([one.ids for one in images])
    kept = np.flatnonzero(np.isin(np.asarray(questions.image_ids, np.int64), wanted))
    return questions.take(kept.tolist())
