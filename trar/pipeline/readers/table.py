"""A user's own questions: one CSV, TSV, JSONL or Parquet file.

Columns (``table_rows.NAMES`` has the names that each may bear): image, question, answers, and if
there are any question_id, split, question_type, answer_type. Others are not read. ``answers`` is a
list of texts (in CSV a JSON list, or texts joined by ``|``); a column ``answer`` or ``label`` has
one text as it stands: "None", "NA" and "" are answers too.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from trar.errors import RawDataError
from trar.fileio import disk_errors, human_bytes
from trar.pipeline.readers.json_file import excerpt, in_memory
from trar.pipeline.readers.json_records import INT64, MAX_TYPES
from trar.pipeline.readers.table_rows import open_rows

MAX_TABLE_BYTES = 4 << 30

_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class TableRows:
    """A table in its own order; ``splits`` is None without such a column.

    ``ids`` are the question_id, or the row's position in the file. ``answers`` of a row are None
    where its whole split has none: no column, null, or "" in every row of it.
    """

    images: list[str]
    texts: list[str]
    ids: list[int]
    answers: list[tuple[str, ...] | None]
    splits: list[str] | None
    types: list[str]
    answer_types: list[str]


@in_memory
def read_table(path: Path) -> TableRows:
    """Read a table whole.

    Raises:
        RawDataError: missing, of no such form or not UTF-8, without a needed column or with two
            for one role, a row of another length, a value of another type, an empty question or
            image, an id twice in a split, or answers to some questions of a split only.
    """
    if not path.is_file():
        raise RawDataError(f"{path}: no such file; check the path")
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise RawDataError(
            f"{path}: {human_bytes(size)}, more than the {human_bytes(MAX_TABLE_BYTES)} that a "
            "table may have; divide it"
        )
    with disk_errors(path):
        data = path.read_bytes()
    return _collect(path, data)


def _collect(path: Path, data: bytes) -> TableRows:
    word, records = open_rows(path, data)
    images: list[str] = []
    texts: list[str] = []
    ids: list[int] = []
    answers: list[tuple[str, ...] | None] = []
    splits: list[str] = []
    types: list[str] = []
    answer_types: list[str] = []
    known: dict[Any, Any] = {}  # images, answers, splits and types repeat
    numbers = array("q")
    for number, values, plural in records:
        where = f"{path}: {word} {number}"
        image, text, given, question_id, split, kind, answer_kind = values
        numbers.append(number)
        name = _image(where, image)
        images.append(known.setdefault(name, name))
        texts.append(_filled(where, "question", text))
        some = _answers(where, given, plural)
        answers.append(known.setdefault(some, some))
        for value, column in ((kind, types), (answer_kind, answer_types)):
            told = "" if value is None else _text(where, "a type", value)
            column.append(known.setdefault(told, told))
        if question_id is not None:
            ids.append(_id(where, question_id))
        if split is not None:
            belongs = _split(where, split)
            splits.append(known.setdefault(belongs, belongs))
        if len(ids) not in (0, len(numbers)) or len(splits) not in (0, len(numbers)):
            which = "question_id" if len(ids) not in (0, len(numbers)) else "split"
            raise RawDataError(f"{where}: {which} is given in some rows only; fill it in in all")
    if not numbers:
        raise RawDataError(f"{path}: no row in it; a table needs at least one question")
    if len(set(types)) > MAX_TYPES:
        raise RawDataError(
            f"{path}: {len(set(types))} different question types, at most {MAX_TYPES} can be kept; "
            "remove the column question_type"
        )
    ids = ids or list(range(len(numbers)))
    split_of = splits or [""] * len(numbers)
    _check_unique(f"{path}: {word}", numbers, ids, split_of)
    answers = _settle_answers(f"{path}: {word}", numbers, answers, split_of)
    return TableRows(images, texts, ids, answers, splits or None, types, answer_types)


def _image(where: str, value: Any) -> str:
    return str(value) if _is_int64(value) else _filled(where, "image", value)


def _filled(where: str, role: str, value: Any) -> str:
    text = "" if value is None else _text(where, role, value)
    if not text or text.isspace():
        raise RawDataError(f"{where}: its {role} is empty; fill it in or remove the row")
    return text


def _text(where: str, role: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RawDataError(f"{where}: {role} is {_show(value)}, expected text; write it as text")
    return value


def _answers(where: str, value: Any, plural: bool) -> tuple[str, ...] | None:
    if value is None:
        return None
    if plural and isinstance(value, str):
        value = _listed(where, value)
    answers = value if isinstance(value, list) else [value]
    if not answers:
        raise RawDataError(f"{where}: an empty list of answers; give at least one, or null")
    return tuple(str(one) if _is_int64(one) else _text(where, "an answer", one) for one in answers)


def _listed(where: str, text: str) -> list[Any]:
    """Several answers in one text: a JSON list, or joined by ``|``."""
    if not text.startswith("["):
        return list(text.split("|"))
    try:
        return msgspec.json.decode(text, type=list[Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RawDataError(
            f'{where}: answers begin with "[" but are no JSON list ({error}): '
            f"{excerpt(text[:120].encode())}"
        ) from None


def _id(where: str, value: Any) -> int:
    bare = value.strip() if isinstance(value, str) else value
    if _is_int64(bare) or (isinstance(bare, str) and _DIGITS.fullmatch(bare)):
        return int(bare)
    raise RawDataError(f"{where}: question_id is {_show(value)}, expected a whole number (int64)")


def _split(where: str, value: Any) -> str:
    split = _text(where, "split", value).strip()
    if not _SPLIT_NAME.fullmatch(split):
        raise RawDataError(
            f"{where}: split {_show(split)}, expected a name of at most 64 letters, digits, "
            "'_', '-' and '.'"
        )
    return split


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and INT64[0] <= value <= INT64[1]


def _show(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and abs(value) > INT64[1]:
        return "a number beyond int64"
    return excerpt(repr(value)[:80].encode(errors="replace"))


def _check_unique(
    where: str, numbers: Sequence[int], ids: Sequence[int], splits: Sequence[str]
) -> None:
    seen: dict[str, set[int]] = {}
    for number, question_id, split in zip(numbers, ids, splits, strict=True):
        of_split = seen.setdefault(split, set())
        if question_id in of_split:
            raise RawDataError(
                f"{where} {number}: question id {question_id} occurs twice"
                f"{f' in split {split}' if split else ''}; ids must be unique in a split"
            )
        of_split.add(question_id)


def _settle_answers(
    where: str,
    numbers: Sequence[int],
    answers: Sequence[tuple[str, ...] | None],
    splits: Sequence[str],
) -> list[tuple[str, ...] | None]:
    """None for all questions of a split in which none has more than an empty answer."""
    rows = zip(answers, splits, strict=True)
    answered = {split for some, split in rows if some not in (None, ("",))}
    settled: list[tuple[str, ...] | None] = []
    for number, some, split in zip(numbers, answers, splits, strict=True):
        if split in answered and some is None:
            raise RawDataError(
                f"{where} {number}: no answer, where other questions of its split have one; "
                "give it one, or put it into another split"
            )
        settled.append(some if split in answered else None)
    return settled
