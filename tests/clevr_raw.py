"""Raw question files of CLEVR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def clevr_questions(split: str, answers: list[str] | None, *, named: bool = True) -> str:
    """A file of questions, two an image, that names its split or does not."""
    rows: list[dict[str, Any]] = []
    for number in range(2 if answers is None else len(answers)):
        row = {"image_index": number // 2, "question_index": number}
        row["question"] = f"Is {split} {number} red?"
        if answers is not None:
            row |= {"answer": answers[number], "program": [{"function": "exist"}]}
        rows.append(row | ({"split": split} if named else {}))
    return json.dumps({"info": {"split": split} if named else {}, "questions": rows})


def write_clevr(folder: Path, split: str, answers: list[str] | None) -> Path:
    """Write a split's questions under their published name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"CLEVR_{split}_questions.json"
    path.write_text(clevr_questions(split, answers))
    return path
