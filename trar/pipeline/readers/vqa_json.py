"""VQA-v2 question and annotation files, and Visual Genome's in the same form.

Rows are parsed one by one out of the file's bytes: a training annotation file holds 4.4 million
answers, and only the strings are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trar.errors import RawDataError
from trar.fileio import disk_errors

Row = TypeVar("Row")


class _Question(msgspec.Struct, gc=False):
    question_id: int
    image_id: int
    question: str


class _Answer(msgspec.Struct, gc=False):
    answer: str


class _Annotation(msgspec.Struct, gc=False):
    question_id: int
    answers: list[_Answer]
    image_id: int | None = None
    question_type: str = ""
    answer_type: str = ""
    multiple_choice_answer: str | None = None


class _QuestionFile(msgspec.Struct):
    questions: list[msgspec.Raw]
    data_subtype: str | None = None


class _AnnotationFile(msgspec.Struct):
    annotations: list[msgspec.Raw]
    data_subtype: str | None = None


@dataclass(frozen=True)
class QuestionRows:
    """A question file in its own order."""

    ids: list[int]
    image_ids: list[int]
    texts: list[str]


@dataclass(frozen=True)
class AnnotationRows:
    """An annotation file in its own order; ``majority`` is its multiple_choice_answer, or the most
    frequent answer (the earlier of equals) where a file has none."""

    ids: list[int]
    image_ids: list[int | None]
    answers: list[list[str]]
    majority: list[str]
    question_types: list[str]
    answer_types: list[str]


def read_questions(path: Path, subtype: str | None) -> QuestionRows:
    """Read a question file whose header, where it has one, must say ``subtype``.

    Raises:
        RawDataError: unreadable, another kind of file, another split, or a question id twice.
    """
    file = _decode(path, _QuestionFile, "questions")
    _check_subtype(path, file.data_subtype, subtype)
    rows = _rows(path, file.questions, _Question)
    ids = [row.question_id for row in rows]
    _check_unique(path, ids)
    return QuestionRows(ids, [row.image_id for row in rows], [row.question for row in rows])


def read_annotations(path: Path, subtype: str | None) -> AnnotationRows:
    """Read an annotation file whose header, where it has one, must say ``subtype``.

    Raises:
        RawDataError: unreadable, another kind of file, another split, a question id twice, or a
            question without any answer.
    """
    file = _decode(path, _AnnotationFile, "annotations")
    _check_subtype(path, file.data_subtype, subtype)
    known: dict[str, str] = {}  # the same few thousand answers come millions of times
    columns = AnnotationRows([], [], [], [], [], [])
    for row in _iterate(path, file.annotations, _Annotation):
        if not row.answers:
            raise RawDataError(f"{path}: question {row.question_id} has an empty list of answers")
        answers = [known.setdefault(entry.answer, entry.answer) for entry in row.answers]
        majority = row.multiple_choice_answer
        columns.ids.append(row.question_id)
        columns.image_ids.append(row.image_id)
        columns.answers.append(answers)
        columns.majority.append(max(answers, key=answers.count) if majority is None else majority)
        columns.question_types.append(known.setdefault(row.question_type, row.question_type))
        columns.answer_types.append(known.setdefault(row.answer_type, row.answer_type))
    _check_unique(path, columns.ids)
    return columns


def _decode(path: Path, kind: type[Row], key: str) -> Row:
    with disk_errors(path):
        data = path.read_bytes()
    if not data.strip():
        raise RawDataError(f"{path}: an empty file; download it again")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise RawDataError(
            f"{path}: not a file of {key} ({error}); {_describe(data)}. "
            "Is it another file under this name?"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RawDataError(
            f"{path}: not valid JSON ({error}); {len(data)} bytes: cut short or damaged; "
            "download or unpack it again"
        ) from None


def _describe(data: bytes) -> str:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "it is not even valid JSON"
    if isinstance(value, dict):
        return f"its keys are {', '.join(sorted(value)[:8]) or 'none'}"
    return f"it holds a {type(value).__name__}"


def _iterate(path: Path, raw: list[msgspec.Raw], kind: type[Row]) -> Any:
    decoder = msgspec.json.Decoder(kind)
    for number, row in enumerate(raw):
        try:
            yield decoder.decode(row)
        except msgspec.DecodeError as error:
            raise RawDataError(
                f"{path}: record {number}: {error}: {bytes(row)[:120].decode(errors='replace')}"
            ) from None


def _rows(path: Path, raw: list[msgspec.Raw], kind: type[Row]) -> list[Row]:
    return list(_iterate(path, raw, kind))


def _check_subtype(path: Path, found: str | None, expected: str | None) -> None:
    if found is not None and expected is not None and found != expected:
        raise RawDataError(
            f"{path}: its header says {found}, expected {expected}: the file of another split "
            "under this name; put the right file there"
        )


def _check_unique(path: Path, ids: list[int]) -> None:
    if len(set(ids)) != len(ids):
        seen: set[int] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise RawDataError(
            f"{path}: question id {twice} occurs twice ({len(ids) - len(set(ids))} repeats in all)"
        )
