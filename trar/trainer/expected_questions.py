"""The questions that a result file has to answer, from a store or from question files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.reader import FeatureStore
from trar.trainer.metrics.json_source import content

Named = Iterable[tuple[str, NDArray[np.int64]]]

_FORM = 'an object with a list "questions"'


@dataclass(frozen=True)
class Expected:
    """``ids`` of the questions of ``name`` and ``image_ids`` of their images (none if unknown);
    ``others`` gives further splits with their ids, to say where foreign ids come from."""

    dataset: str
    name: str
    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    others: Callable[[], Named]
    notes: tuple[str, ...] = ()


def expected_of_store(store: FeatureStore, split: str) -> Expected:
    """All questions of a split of a store.

    Raises:
        StoreError: no such split.
    """
    ids = store.questions(split).ids
    entry = store.meta.question_splits[split]
    images = [store.image_ids(name) for name in entry.image_splits]
    return Expected(
        store.dataset,
        split,
        ids,
        np.concatenate(images),
        lambda: (
            (name, store.questions(name).ids)
            for name, other in store.meta.question_splits.items()
            if name != split and other.source == entry.source
        ),
        left_out(store, split),
    )


def left_out(store: FeatureStore, split: str) -> tuple[str, ...]:
    """A note where the store has not all questions of the split's raw files."""
    made = store.meta.provenance.get("splits", {}).get(split, {})
    skipped = store.meta.provenance.get("skipped", {})
    images = sum(len(skipped.get(n, ())) for n in store.meta.question_splits[split].image_splits)
    why = []
    if made.get("limit") is not None:
        why.append(f"it was prepared with --limit {made['limit']}")
    if images:
        why.append(f"{images:,} images were left out")
    if not why:
        return ()
    return (
        f"{store.path} has not all questions of {split}: {' and '.join(why)}; an evaluation server "
        "wants all",
    )


def expected_of_files(path: Path) -> Expected:
    """All questions of an official question file, VQA's or CLEVR's.

    Other question files in the same folder tell where foreign ids come from.

    Raises:
        ScoreError: not a question file.
    """
    name, ids, image_ids, dataset = _read(path)

    def others() -> Named:
        for other in sorted(path.parent.glob("*questions*.json")):
            if other != path:
                try:
                    name, ids, _, _ = _read(other)
                except ScoreError:
                    continue  # a file of another kind under a like name
                yield name, ids

    return Expected(dataset, name, ids, image_ids, others)


class _Question(msgspec.Struct, gc=False):
    question_id: int | None = None
    question_index: int | None = None
    image_id: int | None = None


class _Info(msgspec.Struct):
    split: str | None = None


class _File(msgspec.Struct):
    questions: list[_Question]
    data_subtype: str | None = None
    info: _Info | None = None


def _read(path: Path) -> tuple[str, NDArray[np.int64], NDArray[np.int64], str]:
    """The split's name, the ids of questions and images, and the dataset."""
    try:
        file = msgspec.json.decode(content(path, _FORM), type=_File)
        dataset = "vqa" if all(q.question_index is None for q in file.questions) else "clevr"
        ids = [
            one.question_id if one.question_id is not None else one.question_index
            for one in file.questions
        ]
        known = np.array([one for one in ids if one is not None], np.int64)
        images = np.unique(
            np.array([q.image_id for q in file.questions if q.image_id is not None], np.int64)
        )
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise ScoreError(
            f"{path}: not a question file ({error}), expected {_FORM}; give the official file of "
            "the split, unzipped"
        ) from None
    if len(known) != len(ids) or not len(known):
        raise ScoreError(
            f"{path}: {len(ids) - len(known):,} of {len(ids):,} questions have no question_id; "
            "give the official question file of the split"
        )
    split = file.data_subtype or (file.info.split if file.info else None) or path.stem
    return split, known, images, dataset
