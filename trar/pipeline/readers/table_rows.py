"""The rows of a CSV, TSV, JSONL or Parquet table, by what their columns are for.

The form is known by the content. CSV is read by the standard library: it alone tells the line of
a row that is too short, which pandas would fill up in silence.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trar.errors import RawDataError
from trar.pipeline.readers.json_file import excerpt, refuse_other_kinds
from trar.pipeline.readers.parquet import PARQUET_MAGIC, read_parquet

NAMES = {
    "image": ("image", "image_id", "img_id", "image_name", "file_name"),
    "question": ("question", "question_text", "sent"),
    "answers": ("answers", "answer", "label"),
    "question_id": ("question_id",),
    "split": ("split",),
    "question_type": ("question_type",),
    "answer_type": ("answer_type",),
}
"""What a column may be for, and the names that say so, in any case and with blanks around."""

_NEEDED = ("image", "question")
_DELIMITERS = ",\t;"


class Record(NamedTuple):
    """One row: ``values`` in the order of ``NAMES``, None where there is none.

    ``number`` is its line (CSV, JSONL: where it ends) or its row (Parquet); ``plural``: the column
    of its answers is called so.
    """

    number: int
    values: list[Any]
    plural: bool


def open_rows(path: Path, data: bytes) -> tuple[str, Iterator[Record]]:
    """What messages call a row of this form ("line", "row"), and the rows of a file's bytes.

    Raises:
        RawDataError: another form, not UTF-8, without a needed column or with two for one role, a
            row of another length, or damaged; most of it while the rows are read.
    """
    if data.startswith(PARQUET_MAGIC):
        return "row", _parquet_records(path, data)
    refuse_other_kinds(path, data, "CSV, JSONL or Parquet")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RawDataError(
            f"{path}: not UTF-8: byte {error.start} is 0x{data[error.start]:02x} (Latin-1 or "
            "Windows text?); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise RawDataError(
            f"{path}: a NUL character at {text.index(chr(0))}: UTF-16, or a damaged file; save it "
            "as UTF-8"
        )
    start = text[:512].lstrip()[:1]
    if start == "[":
        raise RawDataError(
            f"{path}: one JSON list, expected CSV, JSONL or Parquet; write one record a line"
        )
    return "line", _jsonl_records(path, text) if start == "{" else _csv_records(path, text)


def find_columns(
    path: Path, names: Sequence[str], where: str = ""
) -> tuple[list[str | None], bool]:
    """The column of each role of ``NAMES`` (None: it has none), and whether answers are plural.

    Raises:
        RawDataError: a needed column is missing, or two columns are for one role.
    """
    chosen: list[str | None] = []
    for role, synonyms in NAMES.items():
        fitting = [name for name in names if _fold(name) in synonyms]
        if len(fitting) > 1:
            raise RawDataError(
                f"{path}{where}: columns {' and '.join(map(_fold, fitting))} both are for the "
                f"{role}; rename or remove all but one"
            )
        chosen.append(fitting[0] if fitting else None)
    missing = [role for role, one in zip(NAMES, chosen, strict=True) if role in _NEEDED and not one]
    if missing:
        shown = ", ".join(excerpt(name.encode()) for name in list(names)[:20])
        wanted = " and ".join(f"{role} (or {', '.join(NAMES[role][1:])})" for role in missing)
        raise RawDataError(
            f"{path}{where}: no column {wanted}; its columns are {shown or 'none'}; the first "
            "line of a CSV names the columns"
        )
    answers = chosen[list(NAMES).index("answers")]
    return chosen, answers is not None and _fold(answers) == "answers"


def _csv_records(path: Path, text: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header: list[str] | None = None
    columns: list[int | None] = []
    plural = False
    try:
        for fields in reader:
            if not fields:
                continue  # a blank line
            if header is None:
                header = fields
                named, plural = find_columns(path, header)
                columns = [None if name is None else header.index(name) for name in named]
                continue
            if len(fields) != len(header):
                raise RawDataError(
                    f"{path}: line {reader.line_num}: {len(fields)} fields, its header has "
                    f"{len(header)}; put fields that hold a delimiter into double quotes"
                )
            values = [None if at is None else fields[at] for at in columns]
            yield Record(reader.line_num, values, plural)
    except csv.Error as error:
        raise RawDataError(
            f"{path}: line {reader.line_num}: {error}; a field with a double quote in it stands "
            "in double quotes, and has that one twice"
        ) from None


def _delimiter(text: str) -> str:
    """The first of comma, tab and semicolon that makes the needed columns of the header."""
    line = text.lstrip().split("\n", 1)[0]
    for delimiter in _DELIMITERS:
        names = {_fold(name.strip().strip('"')) for name in line.split(delimiter)}
        if all(names & set(NAMES[role]) for role in _NEEDED):
            return delimiter
    return max(_DELIMITERS, key=line.count)


def _jsonl_records(path: Path, text: str) -> Iterator[Record]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    found: dict[tuple[str, ...], tuple[list[str | None], bool]] = {}
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        try:
            record = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise RawDataError(
                f"{path}: line {number}: not a JSON object ({error}); JSONL has one record a "
                f"line: {excerpt(line[:120].encode())}"
            ) from None
        keys = tuple(record)
        if keys not in found:
            found[keys] = find_columns(path, keys, f": line {number}")
        named, plural = found[keys]
        yield Record(number, [None if one is None else record[one] for one in named], plural)


def _parquet_records(path: Path, data: bytes) -> Iterator[Record]:
    def choose(names: Sequence[str]) -> list[str]:
        return [name for name in find_columns(path, names)[0] if name is not None]

    named: list[str | None] | None = None
    plural = False
    for number, record in enumerate(read_parquet(path, data, choose)):
        if named is None:
            named, plural = find_columns(path, tuple(record))
        values = [None if one is None else record[one] for one in named]
        yield Record(number, values, plural)


def _fold(name: str) -> str:
    return name.strip().lower()
