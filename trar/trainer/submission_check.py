"""Is a result file what the evaluation server takes? Found offline, in place of a refusal.

What VQA users met (data-formats 6.4): JSON lines, test-dev alone where all of test2015 is wanted,
ids of another split or of VQA v1, answers that are numbers, answers that are missing. CLEVR is one
answer a line, in the order of the question indices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.trainer.expected_questions import Expected
from trar.trainer.metrics.json_source import content, kind_of, parsed
from trar.trainer.metrics.vqa_files import RESULTS_FORM

PAGES = {
    "vqa": "https://eval.ai/web/challenges/challenge-page/830",
    "clevr": "no server: its authors score answers sent by mail (clevr-dataset-gen, issue 2)",
}


@dataclass(frozen=True)
class Checked:
    """``problems``, one line each: none where the file is sound. ``notes`` are allowed, but odd."""

    answers: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def check_submission(path: Path, expected: Expected) -> Checked:
    """Compare a result file with the questions that it has to answer."""
    try:
        if expected.dataset == "clevr":
            return _check_lines(path, expected)
        return _check_list(path, expected)
    except ScoreError as error:
        return Checked(0, (str(error),))


def _check_list(path: Path, expected: Expected) -> Checked:
    entries = parsed(path, RESULTS_FORM)
    if not isinstance(entries, list):
        found = f"{path}: found {kind_of(entries)}, expected {RESULTS_FORM}; write such a list"
        return Checked(0, (found,))
    problems = [
        f"{path}: {len(wrong):,} of {len(entries):,} entries {what}, first entry {wrong[0]}: "
        f"{entries[wrong[0]]!r:.100}; {remedy}"
        for what, is_wrong, remedy in _ENTRY_RULES
        if (wrong := [place for place, entry in enumerate(entries) if is_wrong(entry)])
    ]
    ids = [
        entry["question_id"]
        for entry in entries
        if isinstance(entry, dict) and _is_id(entry.get("question_id"))
    ]
    if ids or not entries:
        problems += [f"{path}: {line}" for line in _id_problems(ids, expected)]
    empty = sum(isinstance(entry, dict) and entry.get("answer") == "" for entry in entries)
    notes = (f"{empty:,} answers are empty",) if empty else ()
    return Checked(len(entries), tuple(problems), notes)


def _is_id(value: Any) -> bool:
    return type(value) is int and value.bit_length() < 64


_ENTRY_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "are no objects",
        lambda entry: not isinstance(entry, dict),
        'write {"question_id": 1, "answer": "yes"}',
    ),
    (
        'have no whole number as "question_id"',
        lambda entry: isinstance(entry, dict) and not _is_id(entry.get("question_id")),
        "write ids without quotes",
    ),
    (
        'have no text as "answer"',
        lambda entry: isinstance(entry, dict) and not isinstance(entry.get("answer"), str),
        'write every answer as a string, "2" and not 2',
    ),
    (
        "have other keys than question_id and answer",
        lambda entry: isinstance(entry, dict) and not entry.keys() <= {"question_id", "answer"},
        "leave the others out",
    ),
)


def _id_problems(answered: Sequence[int], expected: Expected) -> list[str]:
    """Lines about repeated, missing and foreign ids."""
    lines = []
    times = Counter(answered)
    if again := [one for one, count in times.items() if count > 1]:
        lines.append(f"{len(again):,} questions are answered more than once, first {_some(again)}")
    given = np.fromiter(times, np.int64, len(times))
    foreign = given[~np.isin(given, expected.ids)]
    missing = expected.ids[~np.isin(expected.ids, given)]
    if len(foreign):
        lines.append(
            f"{len(foreign):,} of {len(given):,} answers are to questions that are not in "
            f"{expected.name}, first {_some(foreign.tolist())}{_origin(foreign, expected)}"
        )
    if len(missing):
        lines.append(
            f"{len(missing):,} of the {len(expected.ids):,} questions of {expected.name} have no "
            f"answer, first {_some(missing.tolist())}{_only(given, expected)}; all of them are "
            "wanted, in every phase"
        )
    return lines


def _origin(foreign: NDArray[np.int64], expected: Expected) -> str:
    """Of which splits foreign ids are, as far as that can be told."""
    told = []
    for name, ids in expected.others():
        here = np.isin(foreign, ids)
        if here.any():
            told.append(f"{here.sum():,} are of {name}")
            foreign = foreign[~here]
    if len(foreign) and len(expected.image_ids):
        # v1 numbers the questions of an image from 10 x its id, v2 from 1000 x its id
        old = np.isin(foreign // 10, expected.image_ids) & ~np.isin(
            foreign // 1000, expected.image_ids
        )
        if old.mean() > 0.5:
            told.append(f"{old.sum():,} look like ids of VQA v1: answer the questions of v2")
    return f": {', '.join(told)}" if told else ""


def _only(given: NDArray[np.int64], expected: Expected) -> str:
    """Whether what is answered is exactly a smaller split."""
    for name, ids in expected.others():
        if len(ids) == len(given) < len(expected.ids) and np.isin(given, ids).all():
            return f": these are the answers to {name} only"
    if len(given) == _TEST_DEV:
        return ": as many are answered as test-dev has, and test-dev only is not enough"
    return ""


_TEST_DEV = 107_394  # questions of test-dev2015


def _check_lines(path: Path, expected: Expected) -> Checked:
    form = "one answer a line"
    data = content(path, form)
    if data.lstrip()[:1] in (b"[", b"{"):
        return Checked(
            0, (f"{path}: JSON, expected {form}; write them in the order of the question indices",)
        )
    try:
        lines = data.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        return Checked(0, (f"{path}: not text ({error}), expected {form}",))
    problems = []
    if len(lines) != len(expected.ids):
        problems.append(
            f"{path}: {len(lines):,} lines, expected {len(expected.ids):,}, one for each question "
            f"of {expected.name}"
        )
    unknown = [row for row, line in enumerate(lines) if line not in _CLEVR_ANSWERS]
    if unknown:
        problems.append(
            f"{path}: {len(unknown):,} lines are none of CLEVR's 28 answers, first line "
            f"{unknown[0] + 1}: {lines[unknown[0]]!r:.60}; write one of them a line, and no more"
        )
    return Checked(len(lines), tuple(problems))


_CLEVR_ANSWERS = {
    *("yes", "no", *map(str, range(11))),
    *("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    *("cube", "sphere", "cylinder", "small", "large", "rubber", "metal"),
}


def _some(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:3]))
