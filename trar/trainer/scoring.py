"""What answers score by the rule of the data set, straight from the columns of a store.

No list is made of the two million annotated answers of VQA-v2: they are numbered by their bytes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from trar.features.columns import BLOCK_ROWS, CodedTexts, Codes, Lists
from trar.features.questions import ANSWER_TYPES, Texts
from trar.features.reader import SCHEME, FeatureStore
from trar.trainer.metrics import VqaScore, exact, labels, vqa
from trar.trainer.metrics.vqa import Rules


@dataclass(frozen=True)
class Predictions:
    """One answer per question of a split, in the order of its file: ``question_ids`` (q,) int64,
    ``answers`` as text, ``logits`` (q,) float32 of the chosen answers."""

    question_ids: NDArray[np.int64]
    answers: list[str]
    logits: NDArray[np.float32]


def score_answers(
    store: FeatureStore, split: str, answers: Sequence[str], *, rules: Rules = "official"
) -> VqaScore:
    """Score one answer per question of a split, in the order of its file, by the store's rule.

    Raises:
        StoreError: no such split, or a split without answers.
    """
    table, truth = store.questions(split), store.answers_of(split)
    columns = (
        table.ids,
        answers,
        Lists(coded(truth.texts), truth.offsets),
        CodedTexts(list(table.type_names), table.type.astype(np.int32)),
        CodedTexts(ANSWER_TYPES, truth.type.astype(np.int32)),
    )
    rule = store.meta.answer_schemes[SCHEME].rule
    if rule == "exact":
        return exact.score_columns(*columns)
    if rule == "labels" and truth.scores is not None:
        stated: Lists[float] = Lists(cast(Sequence[float], truth.scores), truth.offsets)
        return labels.score_columns(*columns, scores=stated)
    return vqa.score_columns(*columns, rules=rules)


def blind_baseline(
    store: FeatureStore | Path | str, train_splits: str, split: str, *, rules: Rules = "official"
) -> VqaScore:
    """What is reached without looking: the most frequent training answer to the same question.

    A question text that training never asked gets the most frequent answer of all. Of answers
    equally frequent the one met first is taken. ``train_splits`` may be a sum (``train+vg``).

    Raises:
        StoreError: no such split, or a split without answers.
    """
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    trained = train_splits.split("+")
    text, texts = _joined([coded(store.questions(name).texts) for name in (*trained, split)])
    answer, answers = _joined([coded(store.answers_of(name).majority) for name in trained])
    usual = _most_frequent(np.zeros_like(answer), answer)[1]
    guess = np.full(len(texts), usual[0], np.int32)
    known, best = _most_frequent(text[: len(answer)], answer)
    guess[known] = best
    return score_answers(store, split, CodedTexts(answers, guess[text[len(answer) :]]), rules=rules)


def coded(texts: Texts) -> CodedTexts:
    """Packed texts with a number for each that differs, in order of first appearance."""
    number_of: defaultdict[bytes, int] = defaultdict(itertools.count().__next__)
    codes = np.empty(len(texts), np.int32)
    for start in range(0, len(texts), BLOCK_ROWS):
        ends = texts.offsets[start : start + BLOCK_ROWS + 1]
        data = texts.data[ends[0] : ends[-1]].tobytes()
        places = (ends - ends[0]).tolist()
        parts = map(data.__getitem__, map(slice, places[:-1], places[1:]))
        block = codes[start : start + len(places) - 1]
        block[:] = np.fromiter(map(number_of.__getitem__, parts), np.int32, len(block))
    return CodedTexts([text.decode() for text in number_of], codes)


def _joined(columns: Sequence[CodedTexts]) -> tuple[NDArray[np.int32], list[str]]:
    """Columns one after the other, as numbers into one list of texts."""
    number_of = Codes()
    parts = [
        np.array([number_of[text] for text in column.known], np.int32)[column.codes]
        for column in columns
    ]
    return np.concatenate(parts), list(number_of)


def _most_frequent(
    keys: NDArray[np.int32], values: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each key once, and the value that it has most often; of equals the one met first."""
    pairs = keys.astype(np.int64) << 32 | values
    pairs, first, count = np.unique(pairs, return_index=True, return_counts=True)
    order = np.lexsort((first, -count, pairs >> 32))
    key, place = np.unique(pairs[order] >> 32, return_index=True)
    return key, pairs[order][place] & 0xFFFFFFFF
