"""JSON decoded row by row, every fault one line that names the record.

A file of questions is one JSON value with a long list in it. The list is kept as raw records
(``msgspec.Raw``, views into the file's bytes), and ``iterate_rows`` decodes them one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from trar.errors import RawDataError
from trar.pipeline.readers.json_file import excerpt, in_memory

Value = TypeVar("Value")

INT64 = (-(1 << 63), (1 << 63) - 1)
MAX_TYPES = 1 << 16  # a store numbers the types of a split in 16 bits
_DIGITS = r"^[0-9]{1,18}\Z"
Id = (
    Annotated[int, msgspec.Meta(ge=INT64[0], le=INT64[1])]
    | Annotated[str, msgspec.Meta(pattern=_DIGITS)]
)
"""An id as files write it: an int64, or (some mirrors) its decimal digits. ``int`` takes both."""


@in_memory
def decode_json(path: Path, data: bytes, kind: type[Value], holds: str) -> Value:
    """Decode a whole file; ``holds`` says in messages what it should be a file of.

    Raises:
        RawDataError: not valid JSON, nested without end, or of another shape.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise RawDataError(
            f"{path}: not a file of {holds} ({error}); {_describe(data)}. "
            "Is it another file under this name?"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        where = data.find(b"\0")
        nul = f"a NUL byte at {where} (an interrupted copy?); " if where >= 0 else ""
        raise RawDataError(
            f"{path}: not valid JSON ({error}); {nul}{len(data)} bytes: cut short or damaged; "
            "download or unpack it again"
        ) from None
    except RecursionError:
        raise RawDataError(
            f"{path}: not a file of {holds}: lists or objects nested too deeply; "
            "is it another file under this name?"
        ) from None


def iterate_rows(
    path: Path, raw: Sequence[msgspec.Raw], kind: type[Value], start: int = 0
) -> Iterator[Value]:
    """Decode records one by one, numbered from ``start`` in messages.

    Raises:
        RawDataError: naming the record that is not a ``kind``, and showing its beginning.
    """
    decoder = msgspec.json.Decoder(kind)
    for number, row in enumerate(raw, start):
        try:
            value = decoder.decode(row)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RawDataError(
                f"{path}: record {number}: {_reason(error)}: {excerpt(row)}"
            ) from None
        yield value


def check_rows(path: Path, ids: Sequence[int], types: Sequence[str] = ()) -> None:
    """Refuse a file without questions, an id that occurs twice, and types without end.

    Raises:
        RawDataError: with the first such id and the number of repeats.
    """
    if not ids:
        raise RawDataError(f"{path}: its list of questions is empty; download it again")
    if len(set(types)) > MAX_TYPES:
        raise RawDataError(
            f"{path}: {len(set(types))} different question types, at most {MAX_TYPES} can be kept"
        )
    repeats = len(ids) - len(set(ids))
    if repeats:
        seen: set[int] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise RawDataError(
            f"{path}: question id {twice} occurs twice ({repeats} repeats in all); ids must be "
            "unique in a file: remove the repeats"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error})"
    text = str(error).replace(f"`str` matching regex {_DIGITS!r}", "`int`, got `str`")
    return text.replace("`int | str`", "`int`")


def _describe(data: bytes) -> str:
    for kind in (dict[str, msgspec.Raw], list[msgspec.Raw]):
        try:
            value = msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError:
            continue
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError):
            return "it is not even valid JSON"
        if isinstance(value, dict):
            keys = ", ".join(excerpt(key.encode()) for key in sorted(value)[:8])
            return f"its keys are {keys or 'none'}"
        return f"it holds a list of {len(value)}"
    return f"it begins with {excerpt(data)}"
