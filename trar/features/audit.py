"""What a sound store may still do to a result: leaks between splits, answers without a label, gaps.

``verify`` says whether the files and joins hold; this says what a user should know before trusting
a score. A warning may spoil a result; a note is good to know.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trar.features.questions import QuestionTable
from trar.features.reader import SCHEME, FeatureStore

_SHOWN = 3
_MANY_WITHOUT_TARGET = 0.2
_MANY_UNKNOWN_WORDS = 0.05


@dataclass(frozen=True)
class Finding:
    """One thing to know: which split or pair of splits, and what."""

    level: Literal["warning", "note"]
    where: str
    what: str


def audit_store(path: Path, dataset: str | None = None) -> list[Finding]:
    """Everything worth knowing of a store that ``verify_store`` finds sound, warnings first.

    Raises:
        StoreError: there is no store, or its tables cannot be read.
    """
    store = FeatureStore(path, dataset)
    findings = [*_skipped(store), *_coverage(store), *_repeats(store), *_leaks(store)]
    return sorted(findings, key=lambda one: one.level != "warning")


def _skipped(store: FeatureStore) -> Iterator[Finding]:
    for split in store.meta.image_splits:
        left_out = store.skipped(split)
        if left_out:
            shown = "; ".join(f"{one}: {why}" for one, why in list(left_out.items())[:_SHOWN])
            yield Finding(
                "warning",
                split,
                f"{len(left_out):,} images were left out when the store was made, with their "
                f"questions: {shown}{' …' if len(left_out) > _SHOWN else ''}",
            )


def _coverage(store: FeatureStore) -> Iterator[Finding]:
    rule = store.meta.answer_schemes[SCHEME].rule
    for split, entry in store.meta.question_splits.items():
        unknown = entry.unknown_tokens / max(1, entry.tokens)
        if entry.unknown_tokens:
            yield Finding(
                "warning" if unknown > _MANY_UNKNOWN_WORDS else "note",
                split,
                f"{100 * unknown:.2f} % of the words are not in the vocabulary",
            )
        if not entry.answered:
            continue
        share = entry.without_target / entry.questions
        if entry.without_target:
            yield Finding(
                "warning" if share > _MANY_WITHOUT_TARGET else "note",
                split,
                f"{entry.without_target:,} of {entry.questions:,} questions ({100 * share:.1f} %) "
                "have no answer of the dictionary: a model can never be right there",
            )
        few = rule == "vqa" and entry.answers_per_question < 4
        if few and not store.meta.weight_one(split):
            yield Finding(
                "warning",
                split,
                f"questions with only {entry.answers_per_question} answers: a right answer given "
                "once has target 0.3 (prepare with --vg-answer-weight one for 1)",
            )


def _repeats(store: FeatureStore) -> Iterator[Finding]:
    for split in store.meta.question_splits:
        table = store.questions(split)
        repeated = len(table) - len(_asked(store, split, table))
        if repeated:
            yield Finding("note", split, f"{repeated:,} questions are asked again of their image")


def _leaks(store: FeatureStore) -> Iterator[Finding]:
    """Images, questions and ids that two splits with answers have in common."""
    answered = [name for name, one in store.meta.question_splits.items() if one.answered]
    for one, other in itertools.combinations(answered, 2):
        tables = store.questions(one), store.questions(other)
        images = _images(store, one, tables[0]), _images(store, other, tables[1])
        shared = len(np.intersect1d(*images))
        if not shared:
            continue
        same = _asked(store, one, tables[0]) & _asked(store, other, tables[1])
        where = f"{one} and {other}"
        if same:
            yield Finding(
                "warning",
                where,
                f"share {len(same):,} questions about the same images: a score on one after "
                "training on the other is not held out",
            )
        else:
            yield Finding(
                "note",
                where,
                f"share {shared:,} images (other questions): a score on one after training on the "
                "other is not fully held out",
            )
        sources = [store.meta.question_splits[name].source for name in (one, other)]
        collide = len(np.intersect1d(tables[0].ids, tables[1].ids))
        if collide and sources[0] != sources[1]:
            yield Finding(
                "note",
                where,
                f"{collide:,} question ids of {sources[0]} and {sources[1]} are equal; here they "
                "stay apart, in result files of other tools they would not",
            )


def _images(store: FeatureStore, split: str, table: QuestionTable) -> NDArray[np.int64]:
    """The image of each question, (q,), as a number that holds across splits."""
    every = list(store.meta.image_splits)
    numbers = [every.index(name) for name in store.meta.question_splits[split].image_splits]
    return np.array(numbers, np.int64)[table.image_split] << 32 | table.image_row


def _asked(store: FeatureStore, split: str, table: QuestionTable) -> set[tuple[int, str]]:
    return set(zip(_images(store, split, table).tolist(), table.texts, strict=True))
