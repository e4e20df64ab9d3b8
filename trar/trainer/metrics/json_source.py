"""JSON that a user gives, as a path or parsed, read and where wrong refused with one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from trar.errors import ScoreError
from trar.fileio import disk_errors

JsonSource: TypeAlias = str | Path | dict[str, Any] | list[Any]


def name_of(source: JsonSource, role: str) -> str:
    """How messages call a source: its path, or its role where it came as parsed JSON."""
    return str(source) if isinstance(source, (str, Path)) else f"the {role} given"


def content(path: str | Path, form: str) -> bytes:
    """The bytes of a file that should hold ``form``.

    Raises:
        ScoreError: no such file, a folder, or an empty file.
    """
    try:
        with disk_errors(Path(path)):
            data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ScoreError(f"{path}: no such file; expected {form}: check the path") from None
    except IsADirectoryError:
        raise ScoreError(f"{path}: a folder; expected {form}: give a file in it") from None
    data = data.removeprefix(b"\xef\xbb\xbf")  # some editors begin UTF-8 with a mark
    if not data.strip():
        raise ScoreError(
            f"{path}: the file is empty, expected {form}; the run that wrote it was stopped, or "
            "its download failed: make it again"
        )
    return data


def parsed(source: JsonSource, form: str) -> Any:
    """The JSON of a source, of whatever form; ``form`` is what messages say was expected.

    Raises:
        ScoreError: unreadable, or not JSON.
    """
    if not isinstance(source, (str, Path)):
        return source
    data = content(source, form)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if is_json_lines(data):
            raise ScoreError(
                f"{source}: JSON lines (one object a line), expected one JSON document, {form}; "
                "put the lines into one list, separated by commas"
            ) from None
        raise ScoreError(
            f"{source}: not JSON ({error}), expected {form}; cut short or still zipped? "
            "make or unpack it again"
        ) from None


def is_json_lines(data: bytes) -> bool:
    """Whether there is one object a line, and more than one line."""
    first, _, rest = data.strip().partition(b"\n")
    try:
        return bool(rest) and isinstance(msgspec.json.decode(first), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def question_ids(entries: list[Any], where: str, form: str) -> list[int]:
    """The ``question_id`` of every entry.

    Raises:
        ScoreError: naming the first entry without a whole number there.
    """
    bad = first_wrong(entries, "question_id", int)
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


def first_wrong(entries: list[Any], key: str, kind: type) -> int | None:
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


def first_twice(ids: list[int]) -> tuple[int, int]:
    """Positions of the first id that stands twice."""
    first: dict[int, int] = {}
    for position, question_id in enumerate(ids):
        if first.setdefault(question_id, position) != position:
            return first[question_id], position
    raise AssertionError("no id stands twice")


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages."""
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(repr, list(value)[:6])) or '(none)'}"
    if isinstance(value, list):
        return f"a list of {len(value):,} entries"
    return f"{value!r:.40}"
