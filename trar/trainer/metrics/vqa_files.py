"""The three files of a VQA evaluation, checked where they enter: questions, annotations, results.

Schemas: https://visualqa.org/download.html, data-formats 1.2. A source is a path or parsed JSON.
A sound file is read record by record by its schema, which is several times as fast as parsing it
whole; one that is not is parsed whole, to say what is wrong.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.columns import CodedTexts, Codes, Lists
from trar.trainer.metrics.json_source import (
    JsonSource,
    content,
    first_twice,
    first_wrong,
    kind_of,
    name_of,
    parsed,
    question_ids,
)

RESULTS_FORM = 'a bare list [{"question_id": 1, "answer": "yes"}, …]'
_ANNOTATION_FIELDS = (("question_type", str), ("answer_type", str), ("answers", list))
_TEN = list(range(1, 11))
_BLOCK = 64  # records in hand at a time: they stay in the cache


@dataclass(frozen=True)
class Annotations:
    """Annotated questions as columns of q rows: ``ids`` int64, the type names, and the annotated
    answers in the order of the file. ``annotators`` says, of the rows where ``answer_id`` does not
    tell the annotators apart, who gave each answer."""

    ids: NDArray[np.int64]
    question_types: CodedTexts
    answer_types: CodedTexts
    answers: Lists[str]
    annotators: dict[int, list[Hashable]]

    def take(self, rows: NDArray[np.int64]) -> Annotations:
        """These rows, each once, in this order."""
        place = {row: number for number, row in enumerate(rows.tolist())} if self.annotators else {}
        return Annotations(
            self.ids[rows],
            self.question_types.take(rows),
            self.answer_types.take(rows),
            self.answers.take(rows),
            {place[row]: who for row, who in self.annotators.items() if row in place},
        )


def read_results(source: JsonSource) -> dict[int, str]:
    """Question id -> predicted answer, in the order of the file.

    Raises:
        ScoreError: not a results file, an entry of the wrong form, or a question answered twice.
    """
    where = name_of(source, "results")
    if isinstance(source, (str, Path)):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            typed = msgspec.json.decode(content(source, RESULTS_FORM), type=list[_Result])
            given = {entry.question_id: entry.answer for entry in typed}
            if len(given) == len(typed):
                return given
    entries = parsed(source, RESULTS_FORM)
    if not isinstance(entries, list):
        raise ScoreError(
            f"{where}: expected {RESULTS_FORM}, found {kind_of(entries)}; give the file that "
            "`trar predict` wrote"
        )
    ids = question_ids(entries, where, RESULTS_FORM)
    if (bad := first_wrong(entries, "answer", str)) is not None:
        raise ScoreError(
            f"{where}: entry {bad}, question {ids[bad]}: the answer is "
            f'{entries[bad].get("answer")!r:.80}, expected text such as "2"; write every answer as '
            "a string"
        )
    given = {question_id: entry["answer"] for question_id, entry in zip(ids, entries, strict=True)}
    if len(given) != len(entries):
        first, again = first_twice(ids)
        raise ScoreError(
            f"{where}: question {ids[again]} is answered twice, "
            f"{entries[first]['answer']!r} in entry {first} and {entries[again]['answer']!r} in "
            f"entry {again}; expected one answer to each question: remove one of the two"
        )
    return given


def read_question_ids(source: JsonSource) -> set[int]:
    """The ids of a questions file.

    Raises:
        ScoreError: not a questions file.
    """
    where = name_of(source, "questions")
    if isinstance(source, (str, Path)):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            typed = msgspec.json.decode(content(source, _form("questions")), type=_QuestionFile)
            return {question.question_id for question in typed.questions}
    entries = _records(source, where, "questions")
    return set(question_ids(entries, where, "a question of the official schema"))


def read_annotations(source: JsonSource) -> Annotations:
    """The annotations of a split, in the order of the file.

    Raises:
        ScoreError: not an annotations file, a field missing, or a question annotated twice.
    """
    where = name_of(source, "annotations")
    found = None
    if isinstance(source, (str, Path)):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, _UnusualError):
            data = content(source, _form("annotations"))
            records = msgspec.json.decode(data, type=_AnnotationFile).annotations
            decode = msgspec.json.Decoder(_Annotation).decode
            found = _columns(map(decode, records), attrgetter, _all_told_apart)
    if found is None:
        entries = _records(source, where, "annotations")
        try:
            found = _columns(entries, itemgetter, _annotators_of)
        except (TypeError, KeyError, OverflowError):
            _refuse(entries, where)
    if not np.diff(np.sort(found.ids)).all():
        first, again = first_twice(found.ids.tolist())
        raise ScoreError(
            f"{where}: question {found.ids[again]} is annotated twice, in entries {first} and "
            f"{again}; expected one annotation of each question: give the official file"
        )
    return found


class _Result(msgspec.Struct, gc=False):
    question_id: int
    answer: str


class _Question(msgspec.Struct, gc=False):
    question_id: int


class _QuestionFile(msgspec.Struct, gc=False):
    questions: list[_Question]


class _Answer(msgspec.Struct, gc=False):
    answer: str
    answer_id: int


class _Annotation(msgspec.Struct, gc=False):
    question_id: int
    question_type: str
    answer_type: str
    answers: list[_Answer]


class _AnnotationFile(msgspec.Struct, gc=False):
    annotations: list[msgspec.Raw]


class _UnusualError(Exception):
    """Annotators that only the whole records can tell apart."""


def _columns(
    entries: Iterable[Any],
    get: Callable[[str], Callable[[Any], Any]],
    annotators_of: Callable[[list[Any]], list[Hashable] | None],
) -> Annotations:
    """Annotations as columns, in blocks, so that each record is read while it is in the cache.

    Raises:
        TypeError, KeyError, OverflowError: something is not of the schema; ``_refuse`` says what.
    """
    number_of, question_type_of, answer_type_of = Codes(), Codes(), Codes()
    ids, counts = array("q"), array("q")
    codes, question_types, answer_types = array("i"), array("i"), array("i")
    annotators: dict[int, list[Hashable]] = {}
    remaining = iter(entries)
    while block := list(islice(remaining, _BLOCK)):
        answers = list(map(get("answers"), block))
        records = list(chain.from_iterable(answers))
        codes.extend(map(number_of.__getitem__, map(get("answer"), records)))
        try:
            told = list(map(get("answer_id"), records)) == _TEN * len(block)
        except KeyError:
            told = False
        if not told or set(map(len, answers)) != {10}:
            for row, of_question in enumerate(answers, len(ids)):
                if (who := annotators_of(of_question)) is not None:
                    annotators[row] = who
        numbers = list(map(get("question_id"), block))
        if {*map(type, numbers)} != {int} or {*map(type, answers)} != {list}:
            raise TypeError
        ids.extend(numbers)
        counts.extend(map(len, answers))
        question_types.extend(map(question_type_of.__getitem__, map(get("question_type"), block)))
        answer_types.extend(map(answer_type_of.__getitem__, map(get("answer_type"), block)))
    "".join(chain(number_of, question_type_of, answer_type_of))  # a TypeError where one is no text
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return Annotations(
        np.asarray(ids, np.int64),
        CodedTexts.counted(question_type_of, question_types),
        CodedTexts.counted(answer_type_of, answer_types),
        Lists(CodedTexts.counted(number_of, codes), offsets),
        annotators,
    )


def _all_told_apart(answers: list[_Answer]) -> None:
    if len({one.answer_id for one in answers}) != len(answers):
        raise _UnusualError


def _annotators_of(answers: list[dict[str, Any]]) -> list[Hashable] | None:
    """Who gave each answer: None where ``answer_id`` tells them apart, as it should.

    The official script compares whole records, so else every field but the answer counts.
    """
    numbers = [one.get("answer_id") for one in answers]
    if len(set(map(repr, numbers))) == len(numbers) and None not in numbers:
        return None
    return [
        tuple(sorted((key, repr(value)) for key, value in one.items() if key != "answer"))
        for one in answers
    ]


def _refuse(entries: list[Any], where: str) -> NoReturn:
    """Name the first thing that is not of the schema."""
    ids = question_ids(entries, where, "an annotation of the official schema")
    if (large := next((one for one in ids if one.bit_length() > 63), None)) is not None:
        raise ScoreError(
            f"{where}: question id {large} is too large, expected a number of 64 bits; "
            "give the official annotations"
        )
    for key, kind in _ANNOTATION_FIELDS:
        if (bad := first_wrong(entries, key, kind)) is not None:
            raise ScoreError(
                f'{where}: question {ids[bad]}: "{key}" is '
                f"{entries[bad].get(key)!r:.80}, expected {'text' if kind is str else 'a list'}; "
                "the VQA rules need the official annotations (Visual Genome and trimmed copies "
                "cannot be scored by them)"
            )
    for entry in entries:
        for one in entry["answers"]:
            if not isinstance(one, dict) or not isinstance(one.get("answer"), str):
                raise ScoreError(
                    f"{where}: question {entry['question_id']}: an annotated answer is "
                    f'{one!r:.80}, expected {{"answer": text, "answer_id": number}}; give the '
                    "official annotations"
                )
    raise AssertionError("annotations of the official schema")


def _form(key: str) -> str:
    return f'an object with a list "{key}"'


def _records(source: JsonSource, where: str, key: str) -> list[Any]:
    whole = parsed(source, _form(key))
    records = whole.get(key) if isinstance(whole, dict) else None
    if not isinstance(records, list):
        raise ScoreError(
            f"{where}: expected {_form(key)}, found {kind_of(whole)}; give the official {key} file "
            "of the split, unzipped"
        )
    return records
