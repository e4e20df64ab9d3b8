"""Whether the questions that a score is about were trained on.

A question is known by its id and image, so minival is found inside val, and val inside train+val.
Splits that a checkpoint was trained on and that the store at hand does not have count by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.reader import FeatureStore

_WHOLE_OF = {"minival": "val", "nominival": "val", "test-dev": "test"}  # by name, of VQA-v2


@dataclass(frozen=True)
class Leakage:
    """Of ``split``: how many ``questions`` there are, how many were ``trained_on`` through the
    splits ``through``, and how many of its ``images`` were ``images_seen`` under any question.
    ``at_most``: it is not known which, since the store does not have a part that was trained on."""

    split: str
    questions: int
    trained_on: int
    through: tuple[str, ...]
    images: int
    images_seen: int
    at_most: bool = False

    def describe(self) -> str:
        """``214,354 of the 214,354 questions of val were trained on (through val)``."""
        return (
            f"{'up to ' if self.at_most else ''}{self.trained_on:,} of the {self.questions:,} "
            f"questions of {self.split} were trained on (through {'+'.join(self.through)})"
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader of the score should know."""
        if self.trained_on:
            return (f"training accuracy, no accuracy on unseen questions: {self.describe()}",)
        if self.images_seen:
            return (
                f"{self.images_seen:,} of the {self.images:,} images of {self.split} were trained "
                "on with other questions",
            )
        return ()


def leakage(store: FeatureStore, trained_on: Sequence[str], split: str) -> Leakage:
    """Compare ``split`` with the splits ``trained_on``.

    Raises:
        StoreError: no such split.
    """
    ids, images = store.questions(split).ids, _images(store, split)
    every = np.unique(images)
    asked = np.zeros(len(ids), np.bool_)
    seen = np.zeros(len(every), np.bool_)
    through, partly = [], False
    for name in trained_on:
        if name not in store.meta.question_splits:
            found = np.full(len(ids), name in (split, _WHOLE_OF.get(split)))
            if split == _WHOLE_OF.get(name):
                partly = True
                through.append(name)
        else:
            others = _images(store, name)
            found = _among(ids, images, store.questions(name).ids, others)
            seen |= np.isin(every, others)
        if found.any():
            through.append(name)
            asked |= found
    at_most = partly and not asked.all()
    count = len(ids) if at_most else int(asked.sum())
    return Leakage(split, len(ids), count, tuple(through), len(every), int(seen.sum()), at_most)


def refuse_trained_on(found: Leakage, what: str) -> None:
    """Refuse to score questions that ``what`` was trained on.

    Raises:
        ScoreError: how many they are, and what to do.
    """
    if found.trained_on:
        raise ScoreError(
            f"{what}: {found.describe()}, so this would be no {found.split} accuracy; score a "
            "split that was not trained on (trar predict --split test), or give "
            "--allow-trained-on to have it as training accuracy"
        )


def _images(store: FeatureStore, split: str) -> NDArray[np.int64]:
    """The image of each question, (q,), as one number within the store."""
    table = store.questions(split)
    every = list(store.meta.image_splits)
    own = [every.index(name) for name in store.meta.question_splits[split].image_splits]
    return np.array(own, np.int64)[table.image_split] << 32 | table.image_row


def _among(
    ids: NDArray[np.int64],
    images: NDArray[np.int64],
    other_ids: NDArray[np.int64],
    other_images: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """True where a question (id, image) is one of the others; ids do not repeat in either."""
    if not len(other_ids):
        return np.zeros(len(ids), np.bool_)
    order = np.argsort(other_ids)
    place = order[np.minimum(np.searchsorted(other_ids, ids, sorter=order), len(order) - 1)]
    found: NDArray[np.bool_] = (other_ids[place] == ids) & (other_images[place] == images)
    return found
