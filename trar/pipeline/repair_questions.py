"""Makes the tables of one question split anew, as they were when the store was made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trar.errors import TrarError
from trar.features.reader import SCHEME
from trar.features.schema import StoreMeta
from trar.features.writer import StoreWriter
from trar.fileio import sha256_file
from trar.pipeline.chosen_images import ChosenImages
from trar.pipeline.config import PrepareConfig
from trar.pipeline.dictionaries import Dictionaries
from trar.pipeline.question_plan import QuestionPlan, about_images, join_questions
from trar.pipeline.repair_rows import Rows
from trar.pipeline.sources import Source
from trar.pipeline.tables import write_questions


@dataclass(frozen=True)
class Tables:
    """Where tables are written, and with which words and answers."""

    writer: StoreWriter
    dictionaries: Dictionaries


def remake_questions(
    tables: Tables,
    meta: StoreMeta,
    config: PrepareConfig,
    source: Source,
    split: str,
    rows: Callable[[str], Rows],
) -> None:
    """Write a split's tables; ``rows`` gives the images of an image split.

    Raises:
        TrarError: a raw file is missing or damaged, or does not join with the store's images.
    """
    made = meta.provenance.get("splits", {}).get(split, {})
    source.use_answers(tables.dictionaries.answers[SCHEME].dictionary)
    images = {name: _by_row(name, rows(name)) for name in source.image_splits(split)}
    questions = source.questions(split)
    if made.get("limit") is not None:
        questions = about_images(questions, list(images.values()))
    joined = join_questions(config, split, questions, list(images), images, {})
    write_questions(
        tables.writer,
        _without_left_out(joined, images),
        tables.dictionaries,
        source.source_of(split),
        weight_one=meta.weight_one(split),
    )


def _by_row(split: str, rows: Rows) -> ChosenImages:
    return ChosenImages(split, rows.ids, rows.left_out, np.full(len(rows.ids), -1))


def _without_left_out(plan: QuestionPlan, images: dict[str, ChosenImages]) -> QuestionPlan:
    """Without the questions about images that the store was made without."""
    keep = np.ones(len(plan.questions), np.bool_)
    for number, one in enumerate(images.values()):
        here = plan.image_split == number
        keep[here] = ~one.left_out[plan.image_row[here]]
    return plan if keep.all() else plan.take(np.flatnonzero(keep))


def changed_files(meta: StoreMeta, source: Source, splits: Iterable[str]) -> list[str]:
    """The raw question files of these splits that are not those of the store."""
    every: dict[str, Any] = meta.provenance.get("splits", {})
    changed: dict[str, None] = {}
    with contextlib.suppress(TrarError):  # what cannot be read has changed in another way
        for split in splits:
            before = every.get(split, {}).get("files", {})
            for name, path in source.files(split).items() if before else ():
                if name in before and before[name]["sha256"] != sha256_file(path):
                    changed[str(path)] = None
    return list(changed)
