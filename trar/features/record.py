"""One question of a store with everything that is known of it, for people to look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.questions import ANSWER_TYPES
from trar.features.reader import SCHEME, TOKENIZER, FeatureStore


@dataclass(frozen=True)
class FeatureStatistics:
    """Of the values of an image's cells or regions, padding left out."""

    mean: float
    deviation: float
    smallest: float
    largest: float
    zero_share: float


@dataclass(frozen=True)
class Record:
    """A question, its image and its answers. ``norms`` (rows,) are the Euclidean lengths of the
    image's cells or regions, NaN where a cell is padding; ``answers`` are (text, annotators),
    ``targets`` (answer, score). ``more_tokens`` and ``more_targets`` are those of the other
    tokenizers and schemes that the store has, by name."""

    split: str
    question_id: int
    question: str
    question_type: str
    answer_type: str
    tokens: list[tuple[int, str]]
    image_split: str
    image_id: int
    image_name: str | None
    answers: list[tuple[str, int]]
    targets: list[tuple[str, float]]
    grid: tuple[int, int] | None
    norms: NDArray[np.float64]
    statistics: FeatureStatistics
    size: tuple[int, int] | None
    more_tokens: dict[str, list[tuple[int, str]]]
    more_targets: dict[str, list[tuple[str, float]]]


def read_record(store: FeatureStore, split: str, question_id: int) -> Record:
    """Look one question up.

    Raises:
        StoreError: no such split or question, or a damaged image.
    """
    table = store.questions(split)
    place = np.flatnonzero(table.ids == question_id)
    if not len(place):
        first = ", ".join(str(one) for one in table.ids[:3])
        raise StoreError(
            f"{store.path}: no question {question_id} in split {split}; it has {len(table):,}, the "
            f"first are {first}"
        )
    row = int(place[0])
    image_split = store.meta.question_splits[split].image_splits[table.image_split[row]]
    image_row = int(table.image_row[row])
    batch = store.read(image_split, [image_row])
    values = batch.features[0, : batch.lengths[0]].astype(np.float64)
    cells = store.cells(image_split)[image_row][: len(values)]
    names = store.image_names(image_split)
    answers, answer_type = _answers(store, split, row)
    more_words = [name for name in store.meta.vocabularies if name != TOKENIZER]
    more_schemes = [name for name in store.meta.answer_schemes if name != SCHEME]
    return Record(
        split=split,
        question_id=question_id,
        question=table.texts[row],
        question_type=table.type_names[int(table.type[row])],
        answer_type=answer_type,
        tokens=_tokens(store, split, row),
        image_split=image_split,
        image_id=int(store.image_ids(image_split)[image_row]),
        image_name=None if names is None else names[image_row],
        answers=answers,
        targets=_targets(store, split, row),
        grid=store.meta.feature.grid,
        norms=np.where(cells, np.linalg.norm(values, axis=1), np.nan),
        statistics=_statistics(values[cells]),
        size=_size(store, image_split, image_row),
        more_tokens={name: _tokens(store.using(name, SCHEME), split, row) for name in more_words},
        more_targets={
            name: _targets(store.using(TOKENIZER, name), split, row) for name in more_schemes
        },
    )


def _tokens(store: FeatureStore, split: str, row: int) -> list[tuple[int, str]]:
    tokens = store.tokens(split)
    ids = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
    return list(zip(ids, store.vocabulary.decode(ids), strict=True))


def _answers(store: FeatureStore, split: str, row: int) -> tuple[list[tuple[str, int]], str]:
    if not store.meta.question_splits[split].answered:
        return [], ""
    table = store.answers_of(split)
    begin, end = table.offsets[row : row + 2]
    counts = Counter(table.texts[begin:end])
    return counts.most_common(), ANSWER_TYPES[int(table.type[row])]


def _targets(store: FeatureStore, split: str, row: int) -> list[tuple[str, float]]:
    if not store.meta.question_splits[split].answered:
        return []
    stored = store.targets(split)
    part = slice(stored.offsets[row], stored.offsets[row + 1])
    labels, scores = stored.label[part].tolist(), stored.score[part].tolist()
    return [
        (store.answers.answers[label], round(score, 4))
        for label, score in zip(labels, scores, strict=True)
    ]


def _size(store: FeatureStore, image_split: str, row: int) -> tuple[int, int] | None:
    if not store.meta.feature.boxes:
        return None
    height, width = store.sizes(image_split)[row].tolist()
    return (height, width) if height and width else None


def _statistics(values: NDArray[np.float64]) -> FeatureStatistics:
    if not values.size:
        return FeatureStatistics(0.0, 0.0, 0.0, 0.0, 1.0)
    return FeatureStatistics(
        float(values.mean()),
        float(values.std()),
        float(values.min()),
        float(values.max()),
        float((values == 0).mean()),
    )
