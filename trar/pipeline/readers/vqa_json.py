"""VQA-v2 question and annotation files, and Visual Genome's in the same form.

Either as JSON or inside its official zip. Rows are decoded one by one out of the file's bytes: a
training annotation file holds 4.4 million answers, and only the strings are kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trar.errors import RawDataError
from trar.pipeline.readers.json_file import (
    Id,
    check_rows,
    decode_json,
    excerpt,
    in_memory,
    iterate_rows,
    read_json_bytes,
)


class _Question(msgspec.Struct, gc=False):
    question_id: Id
    image_id: Id
    question: str


class _Answer(msgspec.Struct, gc=False):
    answer: str


class _Annotation(msgspec.Struct, gc=False):
    question_id: Id
    answers: list[_Answer]
    image_id: Id | None = None
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
    """A question file in its own order; ``subtype`` is its header's, None where it has none."""

    ids: list[int]
    image_ids: list[int]
    texts: list[str]
    subtype: str | None = None


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
    subtype: str | None = None


@in_memory
def read_questions(path: Path, subtype: str | None) -> QuestionRows:
    """Read a question file whose header, where it has one, must say ``subtype``.

    ``path`` may be the official zip; of several members the one of ``subtype`` is read.

    Raises:
        RawDataError: unreadable, another kind of file, another split, an id that is no int64, or a
            question id twice.
    """
    data = read_json_bytes(path, f"{subtype}_questions" if subtype else "questions")
    file = decode_json(path, data, _QuestionFile, "questions")
    _check_subtype(path, file.data_subtype, subtype)
    rows = QuestionRows([], [], [], file.data_subtype)
    for row in iterate_rows(path, file.questions, _Question):
        rows.ids.append(int(row.question_id))
        rows.image_ids.append(int(row.image_id))
        rows.texts.append(row.question)
    check_rows(path, rows.ids)
    return rows


@in_memory
def read_annotations(path: Path, subtype: str | None) -> AnnotationRows:
    """Read an annotation file whose header, where it has one, must say ``subtype``.

    ``path`` may be the official zip.

    Raises:
        RawDataError: unreadable, another kind of file, another split, an id that is no int64, a
            question id twice, or a question without any answer.
    """
    data = read_json_bytes(path, f"{subtype}_annotations" if subtype else "annotations")
    file = decode_json(path, data, _AnnotationFile, "annotations")
    _check_subtype(path, file.data_subtype, subtype)
    known: dict[str, str] = {}  # the same few thousand answers come millions of times
    columns = AnnotationRows([], [], [], [], [], [], file.data_subtype)
    for row in iterate_rows(path, file.annotations, _Annotation):
        if not row.answers:
            raise RawDataError(f"{path}: question {row.question_id} has an empty list of answers")
        answers = [known.setdefault(entry.answer, entry.answer) for entry in row.answers]
        majority = row.multiple_choice_answer
        if majority is None:
            majority = Counter(answers).most_common(1)[0][0]
        columns.ids.append(int(row.question_id))
        columns.image_ids.append(None if row.image_id is None else int(row.image_id))
        columns.answers.append(answers)
        columns.majority.append(known.setdefault(majority, majority))
        columns.question_types.append(known.setdefault(row.question_type, row.question_type))
        columns.answer_types.append(known.setdefault(row.answer_type, row.answer_type))
    check_rows(path, columns.ids, columns.question_types)
    return columns


def _check_subtype(path: Path, found: str | None, expected: str | None) -> None:
    if found is not None and expected is not None and found != expected:
        raise RawDataError(
            f"{path}: its header says {excerpt(found.encode())}, expected {expected}: the file of "
            "another split under this name; put the right file there"
        )
