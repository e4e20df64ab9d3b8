"""Result files: one JSON list for EvalAI, or one answer a line, as CLEVR's authors take them.

Source: VQA-Website challenge.html, data-formats 4 and 6.4. EvalAI wants every test question, also
in its test-dev phase: what is to be answered is the caller's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.fileio import atomic_write
from trar.trainer.scoring import Predictions


def submission_name(dataset: str, split: str) -> str:
    """The usual name of the file for a split of a dataset."""
    return f"result-{split}.{'txt' if dataset == 'clevr' else 'json'}"


def write_submission(path: Path, dataset: str, predictions: Predictions) -> None:
    """Write the answers to a split in the form that ``dataset`` is submitted in, atomically.

    Raises:
        ScoreError: as ``write_evalai`` and ``write_lines``.
        DiskError: ``path`` cannot be written.
    """
    write = write_lines if dataset == "clevr" else write_evalai
    write(path, predictions.question_ids.tolist(), predictions.answers)


def write_evalai(path: Path, question_ids: Sequence[int], answers: Sequence[str]) -> None:
    """Write answer i to question i, atomically, in the order given. Any old file is replaced.

    Ids may be numpy integers.

    Raises:
        ScoreError: a question answered twice, or an answer that is not text.
        DiskError: ``path`` cannot be written.
    """
    entries: dict[int, dict[str, int | str]] = {}
    for question_id, answer in zip(map(int, question_ids), answers, strict=True):
        if not isinstance(answer, str):
            raise ScoreError(
                f"{path}: question {question_id}: the answer is {answer!r:.80}, expected text; "
                "turn labels into answers by the answer dictionary first"
            )
        if question_id in entries:
            raise ScoreError(
                f"{path}: question {question_id} is answered twice "
                f"({entries[question_id]['answer']!r} and {answer!r}); expected one answer to each "
                "question: nothing was written"
            )
        entries[question_id] = {"question_id": question_id, "answer": answer}
    with atomic_write(path) as file:
        file.write(msgspec.json.encode(list(entries.values())))


def write_lines(path: Path, question_ids: Sequence[int], answers: Sequence[str]) -> None:
    """Write one answer a line in the order of the question indices, atomically.

    Raises:
        ScoreError: question indices that are not 0, 1, 2, …
        DiskError: ``path`` cannot be written.
    """
    ids = np.asarray(question_ids, np.int64)
    need_order(path, "clevr", ids)
    with atomic_write(path) as file:
        file.writelines(f"{answers[row]}\n".encode() for row in np.argsort(ids).tolist())


def need_order(path: Path, dataset: str, question_ids: NDArray[np.int64]) -> None:
    """Refuse to write lines for CLEVR where a line would not be that of its question.

    Raises:
        ScoreError: the question indices are not 0, 1, 2, …
    """
    ids = np.sort(question_ids)
    if dataset == "clevr" and not np.array_equal(ids, np.arange(len(ids))):
        raise ScoreError(
            f"{path}: the question indices end at {ids[-1]}, and there are {len(ids)}; a line for "
            "each answer needs all of 0, 1, 2, …: prepare the whole split, with no images left out"
        )
