"""The three files of a VQA evaluation, checked where they enter: questions, annotations, results.

Schemas: https://visualqa.org/download.html, data-formats 1.2. A source is a path or parsed JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from trar.errors import ScoreError
from trar.fileio import disk_errors

JsonSource: TypeAlias = str | Path | dict[str, Any] | list[Any]

_RESULTS_FORM = 'a bare list [{"question_id": 1, "answer": "yes"}, …]'
_ANNOTATION_FIELDS = (("question_type", str), ("answer_type", str), ("answers", list))
_TEN = list(range(1, 11))


def name_of(source: JsonSource, role: str) -> str:
    """How messages call a source: its path, or its role where it came as parsed JSON."""
    return str(source) if isinstance(source, (str, Path)) else f"the {role} given"


def read_results(source: JsonSource) -> dict[int, str]:
    """Question id -> predicted answer, in the order of the file.

    Raises:
        ScoreError: not a results file, an entry of the wrong form, or a question answered twice.
    """
    where = name_of(source, "results")
    entries = _parsed(source, where, _RESULTS_FORM)
    if not isinstance(entries, list):
        raise ScoreError(
            f"{where}: expected {_RESULTS_FORM}, found {_kind(entries)}; give the file that "
            "`trar predict` wrote"
        )
    question_ids = _question_ids(entries, where, _RESULTS_FORM)
    if (bad := _first_wrong(entries, "answer", str)) is not None:
        raise ScoreError(
            f"{where}: entry {bad}, question {question_ids[bad]}: the answer is "
            f'{entries[bad].get("answer")!r:.80}, expected text such as "2"; write every answer as '
            "a string"
        )
    given = {question_ids[i]: str(entry["answer"]) for i, entry in enumerate(entries)}
    if len(given) != len(entries):
        first, again = _first_twice(question_ids)
        raise ScoreError(
            f"{where}: question {question_ids[again]} is answered twice, "
            f"{entries[first]['answer']!r} in entry {first} and {entries[again]['answer']!r} in "
            f"entry {again}; expected one answer to each question: remove one of the two"
        )
    return given


def read_annotations(source: JsonSource) -> dict[int, dict[str, Any]]:
    """Question id -> its annotation as it stands.

    The fields that scoring needs are checked here, single answers by ``annotated_texts`` when their
    turn comes: to keep lists of two million answers costs more time than to score them.

    Raises:
        ScoreError: not an annotations file, a field missing, or a question annotated twice.
    """
    where = name_of(source, "annotations")
    entries = _records(source, where, "annotations")
    question_ids = _question_ids(entries, where, "an annotation of the official schema")
    for key, kind in _ANNOTATION_FIELDS:
        if (bad := _first_wrong(entries, key, kind)) is not None:
            raise ScoreError(
                f'{where}: question {question_ids[bad]}: "{key}" is '
                f"{entries[bad].get(key)!r:.80}, expected {'text' if kind is str else 'a list'}; "
                "the VQA rules need the official annotations (Visual Genome and trimmed copies "
                "cannot be scored by them)"
            )
    truth = dict(zip(question_ids, entries, strict=True))
    if len(truth) != len(entries):
        first, again = _first_twice(question_ids)
        raise ScoreError(
            f"{where}: question {question_ids[again]} is annotated twice, in entries {first} and "
            f"{again}; expected one annotation of each question: give the official file"
        )
    return truth


def annotated_texts(annotation: dict[str, Any], where: str) -> list[str]:
    """The answers of one annotation, in order.

    Raises:
        ScoreError: an answer that is not text.
    """
    answers = annotation["answers"]
    try:
        texts = [one["answer"] for one in answers]
        "".join(texts)  # the quickest way to see that all ten are text
    except (TypeError, KeyError):
        wrong = next(
            one
            for one in answers
            if not isinstance(one, dict) or not isinstance(one.get("answer"), str)
        )
        raise ScoreError(
            f"{where}: question {annotation['question_id']}: an annotated answer is {wrong!r:.80}, "
            'expected {"answer": text, "answer_id": number}; give the official annotations'
        ) from None
    return texts


def annotators_of(annotation: dict[str, Any]) -> list[Hashable] | None:
    """Who gave each answer: None where ``answer_id`` tells them apart, as it should.

    The official script compares whole records, so else every field but the answer counts.
    """
    answers = annotation["answers"]
    numbers = [one.get("answer_id") for one in answers]
    if numbers == _TEN or (len(set(numbers)) == len(numbers) and None not in numbers):
        return None
    return [
        tuple(sorted((key, repr(value)) for key, value in one.items() if key != "answer"))
        for one in answers
    ]


def read_question_ids(source: JsonSource) -> Collection[int]:
    """The ids of a questions file.

    Raises:
        ScoreError: not a questions file.
    """
    where = name_of(source, "questions")
    entries = _records(source, where, "questions")
    return set(_question_ids(entries, where, "a question of the official schema"))


def _records(source: JsonSource, where: str, key: str) -> list[Any]:
    form = f'an object with a list "{key}"'
    parsed = _parsed(source, where, form)
    records = parsed.get(key) if isinstance(parsed, dict) else None
    if not isinstance(records, list):
        raise ScoreError(
            f"{where}: expected {form}, found {_kind(parsed)}; give the official {key} file of the "
            "split, unzipped"
        )
    return records


def _parsed(source: JsonSource, where: str, form: str) -> Any:
    if not isinstance(source, (str, Path)):
        return source
    path = Path(source)
    try:
        with disk_errors(path):
            data = path.read_bytes()
    except FileNotFoundError:
        raise ScoreError(f"{where}: no such file; expected {form}: check the path") from None
    except IsADirectoryError:
        raise ScoreError(f"{where}: a folder; expected a file with {form}") from None
    data = data.removeprefix(b"\xef\xbb\xbf")  # some editors begin UTF-8 with a mark
    if not data.strip():
        raise ScoreError(
            f"{where}: the file is empty, expected {form}; the run that wrote it was stopped, or "
            "its download failed: make it again"
        )
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _is_json_lines(data):
            raise ScoreError(
                f"{where}: JSON lines (one object a line), expected one JSON document, {form}; "
                "put the lines into one list, separated by commas"
            ) from None
        raise ScoreError(
            f"{where}: not JSON ({error}), expected {form}; cut short or still zipped? "
            "make or unpack it again"
        ) from None


def _is_json_lines(data: bytes) -> bool:
    first, _, rest = data.strip().partition(b"\n")
    try:
        return bool(rest) and isinstance(msgspec.json.decode(first), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _question_ids(entries: list[Any], where: str, form: str) -> list[int]:
    bad = _first_wrong(entries, "question_id", int)
    if bad is None:
        return [entry["question_id"] for entry in entries]
    entry = entries[bad]
    if not isinstance(entry, dict):
        raise ScoreError(
            f"{where}: entry {bad} is {entry!r:.80}, expected {form}; give the whole record"
        )
    found = repr(entry["question_id"])[:80] if "question_id" in entry else "missing"
    raise ScoreError(
        f'{where}: entry {bad}: its "question_id" is {found}, expected a whole number as in the '
        "questions file; write ids without quotes"
    )


def _first_wrong(entries: list[Any], key: str, kind: type) -> int | None:
    """Position of the first entry that is no object with a ``kind`` under ``key``.

    The good case is decided for all entries at once: files have half a million of them.
    """
    try:
        if {type(entry[key]) for entry in entries} <= {kind}:
            return None
    except (TypeError, KeyError, IndexError):
        pass
    for position, entry in enumerate(entries):
        # The exact type: True is an int to Python, and no id.
        if not isinstance(entry, dict) or type(entry.get(key)) is not kind:
            return position
    return None


def _first_twice(question_ids: list[int]) -> tuple[int, int]:
    """Positions of the first id that stands twice."""
    first: dict[int, int] = {}
    for position, question_id in enumerate(question_ids):
        if first.setdefault(question_id, position) != position:
            return first[question_id], position
    raise AssertionError("no id stands twice")


def _kind(parsed: Any) -> str:
    if isinstance(parsed, dict):
        return f"an object with the keys {', '.join(map(repr, list(parsed)[:6])) or '(none)'}"
    if isinstance(parsed, list):
        return f"a list of {len(parsed):,} entries"
    return f"{parsed!r:.40}"
