"""What orders and subsets know of the questions: flat columns, no object per question.

Questions of several splits are one numbered list; ``row`` is a question's number there. An image
is known by one number, its key: ``image split << 32 | row of the image``; ascending keys are the
order in which images stand in the store. q = questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.features.questions import ANSWER_TYPES, SparseTargets
from trar.features.reader import FeatureStore

Codes = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """A property of questions: question i has ``names[codes[i]]``, nothing where the code is -1."""

    codes: Codes
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class QuestionIndex:
    """``splits`` name the question splits and ``source`` (q,) uint8 says which one a question is
    of, ascending; ``image_split`` (q,) uint8 into ``image_splits``, which hold ``image_counts``
    images; ``image_row`` (q,) int32; ``token_length`` (q,) uint16, before any cut;
    ``image_bytes``: of the features of one image, at most. ``labels`` are the columns that
    questions can be chosen by.
    """

    splits: tuple[str, ...]
    source: NDArray[np.uint8]
    image_splits: tuple[str, ...]
    image_counts: tuple[int, ...]
    image_split: NDArray[np.uint8]
    image_row: NDArray[np.int32]
    token_length: NDArray[np.uint16]
    image_bytes: int
    labels: Mapping[str, LabelColumn] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_row)

    def image_key(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The image of each question of ``rows`` as one number, see above."""
        key: NDArray[np.int64] = self.image_split[rows].astype(np.int64)
        key <<= 32
        key |= self.image_row[rows]
        return key

    @classmethod
    def from_store(
        cls, store: FeatureStore, splits: Sequence[str], columns: Collection[str] = ()
    ) -> QuestionIndex:
        """The questions of ``splits``, in the order given, with the label ``columns`` named (see
        ``COLUMNS``); 8 bytes a question, and 1 to 4 more for each column.

        Raises:
            StoreError: a split that the store does not have.
        """
        tables = [store.questions(split) for split in splits]
        own = [store.meta.question_splits[split].image_splits for split in splits]
        image_splits = tuple(dict.fromkeys(name for names in own for name in names))
        place = [np.array([image_splits.index(name) for name in names], np.uint8) for names in own]
        lengths = [np.diff(store.tokens(split).offsets) for split in splits]
        spec = store.meta.feature
        return cls(
            splits=tuple(splits),
            source=np.repeat(np.arange(len(splits), dtype=np.uint8), [len(t) for t in tables]),
            image_splits=image_splits,
            image_counts=tuple(store.meta.image_splits[name].images for name in image_splits),
            image_split=np.concatenate(
                [number[t.image_split] for number, t in zip(place, tables, strict=True)]
            ),
            image_row=np.concatenate([table.image_row for table in tables]),
            token_length=np.concatenate([np.minimum(n, 0xFFFF).astype(np.uint16) for n in lengths]),
            image_bytes=spec.rows * spec.width * np.dtype(spec.dtype).itemsize,
            labels={name: COLUMNS[name](store, splits) for name in columns},
        )


def _image_splits(store: FeatureStore, splits: Sequence[str]) -> LabelColumn:
    return _join(
        [
            (store.questions(split).image_split, store.meta.question_splits[split].image_splits)
            for split in splits
        ]
    )


def _question_types(store: FeatureStore, splits: Sequence[str]) -> LabelColumn:
    tables = [store.questions(split) for split in splits]
    return _join([(table.type, table.type_names) for table in tables])


def _answer_types(store: FeatureStore, splits: Sequence[str]) -> LabelColumn:
    def of(split: str) -> Codes:
        if store.meta.question_splits[split].answered:
            return store.answers_of(split).type
        return np.zeros(len(store.questions(split)), np.uint8)

    return LabelColumn(np.concatenate([of(split) for split in splits]), ANSWER_TYPES)


def _best_answers(store: FeatureStore, splits: Sequence[str]) -> LabelColumn:
    best = [best_labels(targets) for targets in _targets(store, splits)]
    return LabelColumn(np.concatenate(best), store.answers.answers)


def _has_target(store: FeatureStore, splits: Sequence[str]) -> LabelColumn:
    some = [np.diff(targets.offsets) > 0 for targets in _targets(store, splits)]
    return LabelColumn(np.concatenate(some).astype(np.uint8), ("false", "true"))


COLUMNS: Mapping[str, Callable[[FeatureStore, Sequence[str]], LabelColumn]] = {
    "answer": _best_answers,
    "answer_type": _answer_types,
    "has_target": _has_target,
    "image_split": _image_splits,
    "question_type": _question_types,
}
"""What questions can be chosen by. ``answer`` is the answer of the dictionary with the highest
score (of equals the first); ``has_target`` is true where there is one."""


def _targets(store: FeatureStore, splits: Sequence[str]) -> list[SparseTargets]:
    def none(questions: int) -> SparseTargets:
        return SparseTargets(
            np.zeros(questions + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
        )

    return [
        store.targets(split)
        if store.meta.question_splits[split].answered
        else none(len(store.questions(split)))
        for split in splits
    ]


def best_labels(targets: SparseTargets) -> NDArray[np.int32]:
    """The label of the highest score of each question, -1 where it has none, (q,)."""
    question = np.repeat(np.arange(len(targets.offsets) - 1), np.diff(targets.offsets))
    by_score = np.lexsort((-targets.score, question))  # stable: of equal scores the first stays
    best = np.full(len(targets.offsets) - 1, -1, np.int32)
    some = np.diff(targets.offsets) > 0
    best[some] = targets.label[by_score[targets.offsets[:-1][some]]]
    return best


def _join(parts: Sequence[tuple[Codes, Sequence[str]]]) -> LabelColumn:
    """Columns of several splits as one; each split counts its names for itself."""
    names = tuple(dict.fromkeys(name for _, own in parts for name in own))
    kind = np.min_scalar_type(len(names))
    place = {name: code for code, name in enumerate(names)}
    joined = [np.array([place[name] for name in own], kind)[codes] for codes, own in parts]
    return LabelColumn(np.concatenate(joined), names)
