"""VQA-v2 question and annotation files, and Visual Genome's in the same form.

Either as JSON or inside its official zip. Rows are decoded one by one out of the file's bytes and
packed as they come: a training annotation file holds 4.4 million answers, of some 100,000 texts.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.features.columns import CodedTexts, Codes, Lists, int64s
from trar.features.questions import GrowingTexts, Texts
from trar.pipeline.readers.json_file import excerpt, in_memory, read_json_bytes
from trar.pipeline.readers.json_records import Id, check_rows, decode_json, iterate_rows


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
    """A question file in its own order, ids as int64; ``subtype`` is its header's, None where it
    has none."""

    ids: array[int]
    image_ids: array[int]
    texts: Texts
    subtype: str | None = None


@dataclass(frozen=True)
class AnnotationRows:
    """An annotation file in its own order, ids as int64; ``named`` is 0 where an annotation names
    no image. ``majority`` is its multiple_choice_answer, or the most frequent answer (the earlier
    of equals) where a file has none."""

    ids: array[int]
    image_ids: array[int]
    named: bytearray
    answers: Lists[str]
    majority: CodedTexts
    question_types: CodedTexts
    answer_types: CodedTexts
    subtype: str | None = None

    def take(self, rows: NDArray[np.int64]) -> AnnotationRows:
        """Only these rows, in this order."""
        return AnnotationRows(
            array("q", int64s(self.ids)[rows].tobytes()),
            array("q", int64s(self.image_ids)[rows].tobytes()),
            bytearray(np.frombuffer(self.named, np.uint8)[rows]),
            self.answers.take(rows),
            self.majority.take(rows),
            self.question_types.take(rows),
            self.answer_types.take(rows),
            self.subtype,
        )


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
    ids, image_ids, texts = array("q"), array("q"), GrowingTexts()
    for row in iterate_rows(path, file.questions, _Question):
        ids.append(int(row.question_id))
        image_ids.append(int(row.image_id))
        texts.append(row.question)
    check_rows(path, ids)
    return QuestionRows(ids, image_ids, texts.finish(), file.data_subtype)


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
    ids, image_ids, named = array("q"), array("q"), bytearray()
    answer_code, type_code, answer_type_code = Codes(), Codes(), Codes()
    answers, ends, majority = array("i"), array("q", [0]), array("i")
    types, answer_types = array("i"), array("i")
    for row in iterate_rows(path, file.annotations, _Annotation):
        if not row.answers:
            raise RawDataError(f"{path}: question {row.question_id} has an empty list of answers")
        given = [answer_code[entry.answer] for entry in row.answers]
        answers.extend(given)
        ends.append(len(answers))
        best = row.multiple_choice_answer
        majority.append(Counter(given).most_common(1)[0][0] if best is None else answer_code[best])
        ids.append(int(row.question_id))
        named.append(row.image_id is not None)
        image_ids.append(-1 if row.image_id is None else int(row.image_id))
        types.append(type_code[row.question_type])
        answer_types.append(answer_type_code[row.answer_type])
    question_types = CodedTexts.counted(type_code, types)
    check_rows(path, ids, question_types.known)
    known = tuple(answer_code)
    return AnnotationRows(
        ids,
        image_ids,
        named,
        Lists(CodedTexts(known, np.asarray(answers)), int64s(ends)),
        CodedTexts(known, np.asarray(majority)),
        question_types,
        CodedTexts.counted(answer_type_code, answer_types),
        file.data_subtype,
    )


def _check_subtype(path: Path, found: str | None, expected: str | None) -> None:
    if found is not None and expected is not None and found != expected:
        raise RawDataError(
            f"{path}: its header says {excerpt(found.encode())}, expected {expected}: the file of "
            "another split under this name; put the right file there"
        )
