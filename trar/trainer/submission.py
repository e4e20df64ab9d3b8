"""Result files as EvalAI takes them: one JSON list of ``{"question_id", "answer"}``.

Source: VQA-Website challenge.html; data-formats 6.4. EvalAI wants every test question, also in its
test-dev phase: what is to be answered is the caller's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from trar.errors import ScoreError
from trar.fileio import atomic_write


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
