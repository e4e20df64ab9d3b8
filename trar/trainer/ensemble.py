"""Several models as one: the answer with the highest weighted mean of their saved logits.

Logits are averaged, not probabilities: a logit of the BCE loss is the log-odds of an answer, so the
mean is the geometric mean of the odds, and no loss has to be known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.reader import FeatureStore
from trar.trainer.logits_file import LogitsFile
from trar.trainer.scoring import Predictions


def ensemble(
    paths: Sequence[Path],
    weights: Sequence[float] | None = None,
    *,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Predictions:
    """The answers of the models together.

    ``weights``: one a file, at least 0 and not all of them; equal where not given. The files must
    be of the same questions in the same order and the same answers; the stores may differ, as for
    models on features of two sizes. Memory: a block of each file.

    Raises:
        ScoreError: a file that is none of saved logits, has one that is no finite number or does
            not fit the first, or weights that do not fit the files.
    """
    shares = _shares(weights, paths)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(LogitsFile(path)) for path in paths]
        first = files[0]
        for other in files[1:]:
            _same(first, other)
        total = len(first.question_ids)
        labels, logits = np.empty(total, np.int64), np.empty(total, np.float32)
        done = 0
        for blocks in zip(*(file.blocks() for file in files), strict=True):
            mean = sum(share * block for share, block in zip(shares, blocks, strict=True))
            stop = done + len(blocks[0])
            labels[done:stop] = mean.argmax(axis=1)
            logits[done:stop] = mean.max(axis=1)
            if not np.isfinite(logits[done:stop]).all():
                _refuse(files, blocks, done)
            done = stop
            progress(done, total)
        answers = [first.answers[label] for label in labels.tolist()]
        return Predictions(first.question_ids, answers, logits)


def trained_on(paths: Sequence[Path]) -> list[str]:
    """The splits that any of the models was trained on.

    Raises:
        ScoreError: a file that is none of saved logits.
    """
    splits: dict[str, None] = {}
    for path in paths:
        with LogitsFile(path) as file:
            splits |= dict.fromkeys(file.about.trained_on.split("+"))
    return list(splits)


def check_questions(
    path: Path, question_ids: NDArray[np.int64], store: FeatureStore, split: str
) -> None:
    """Refuse logits of other questions than those of a split of a store.

    Raises:
        ScoreError: they differ.
        StoreError: no such split.
    """
    ids = store.questions(split).ids
    if not np.array_equal(question_ids, ids):
        raise ScoreError(
            f"{path}: its {len(question_ids):,} questions are not the {len(ids):,} of split "
            f"{split} of {store.path}; give a store that has the same questions"
        )


def _shares(weights: Sequence[float] | None, paths: Sequence[Path]) -> list[np.float32]:
    if weights is None:
        weights = [1.0] * len(paths)
    if len(weights) != len(paths):
        raise ScoreError(
            f"{len(weights)} weights for {len(paths)} files of logits: give one for each, in the "
            "order of the files"
        )
    total = sum(weights)
    if not (all(weight >= 0 for weight in weights) and 0 < total < float("inf")):
        raise ScoreError(
            f"weights {', '.join(map(str, weights))}: expected numbers of at least 0, and one "
            "above; give for example 2,1"
        )
    return [np.float32(weight / total) for weight in weights]


def _refuse(files: Sequence[LogitsFile], blocks: Sequence[NDArray[np.float32]], done: int) -> None:
    """Name the file and the question of the first logit that is no finite number."""
    for file, block in zip(files, blocks, strict=True):
        rows = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(rows):
            raise ScoreError(
                f"{file.path}: a logit of question {file.question_ids[done + rows[0]]} is NaN or "
                "infinite; save the logits again as float32, by a checkpoint that has not diverged"
            )


def _same(first: LogitsFile, other: LogitsFile) -> None:
    if other.about.answers_digest != first.about.answers_digest:
        order = " in another order" if set(other.answers) == set(first.answers) else ""
        raise ScoreError(
            f"{other.path}: its {len(other.answers):,} answers are not the "
            f"{len(first.answers):,} of {first.path}{order}; only models with the same answer "
            "dictionary can be averaged"
        )
    if not np.array_equal(other.question_ids, first.question_ids):
        raise ScoreError(
            f"{other.path}: {len(other.question_ids):,} questions of {other.about.dataset}, split "
            f"{other.about.split}, not the {len(first.question_ids):,} of {first.path} "
            f"({first.about.dataset}, split {first.about.split}); save the logits of the same "
            "split by both models"
        )
