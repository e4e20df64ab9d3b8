"""A folder of raw files, and what ``verify_raw`` says of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raw_data import SAMPLE, edit_json

from trar.pipeline.raw_verify import RawFinding, verify_raw

TRAIN = "v2_OpenEnded_mscoco_train2014_questions.json"
VAL = "v2_OpenEnded_mscoco_val2014_questions.json"
TRAIN_ANSWERS = "v2_mscoco_train2014_annotations.json"
VAL_ANSWERS = "v2_mscoco_val2014_annotations.json"


def copy_sample(raw: Path) -> Path:
    """Put real questions and annotations of VQA v2.0, a part of train and val, below ``raw``."""
    folder = raw / "vqa/raw"
    folder.mkdir(parents=True)
    for path in SAMPLE.glob("*.json"):
        shutil.copy(path, folder)
    return raw


def told(findings: list[RawFinding], *statuses: str) -> list[tuple[str, str]]:
    """(file name, text) of the findings of these statuses; a path's last part is its name."""
    wanted = statuses or ("info", "warning", "error")
    return [(Path(one.file).name, one.what) for one in findings if one.status in wanted]


def change(raw: Path, name: str, edit: Callable[[Any], object]) -> list[tuple[str, str]]:
    """What is said after an edit that was not said before it."""
    before = told(verify_raw(raw, "vqa"))
    edit_json(raw / "vqa/raw" / name, edit)
    return [one for one in told(verify_raw(raw, "vqa")) if one not in before]
