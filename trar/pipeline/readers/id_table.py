"""Which image is which row of an array: ``{image id: row}`` from JSON, or from a pickle unopened.

The pickles are those of bottom-up-attention-vqa and ban-vqa (``train36_imgid2idx.pkl``). Loading a
pickle runs what it says, so it is never loaded: its instructions are listed, and only those that a
plain dict of ints is made of are understood.
"""

from __future__ import annotations

import json
import pickletools
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.raw_file import PlainFile
from trar.pipeline.readers.regular_file import reading

SUFFIXES = (".json", ".pkl")
MAX_TABLE_BYTES = 32 << 20
"""Three times the longest spelling of every COCO image; a larger file is something else."""

_NAME = re.compile(r"(?:COCO_(?P<split>[a-z0-9]+)_)?(?P<id>[0-9]{1,18})(?:\.(?:jpg|png))?")
_INT_OPCODES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_IDLE_OPCODES = {"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}


class _RefusedError(Exception):
    """A pickle that is no table of numbers; the text says what it holds."""


def read_id_table(path: Path, image_split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The image ids of a table in ascending order, and the row of each; both (images,) int64.

    Raises:
        RawDataError: missing, empty, damaged, not a table of numbers, an image of another split,
            or an image twice.
    """
    with PlainFile(path).open() as file, reading(path):
        data = file.read(MAX_TABLE_BYTES + 1)
    if not data:
        raise RawDataError(f"{path}: an empty file; copy or make it again")
    if len(data) > MAX_TABLE_BYTES:
        raise RawDataError(
            f"{path}: larger than {MAX_TABLE_BYTES >> 20} MiB, which is no table of image ids; "
            "expected {image id: row}"
        )
    if path.suffix == ".json":
        pairs = _pairs_of_json(path, data, image_split)
    else:
        pairs = _pairs_of_pickle(path, data)
    table = np.array(pairs, np.int64).reshape(-1, 2)
    order = np.argsort(table[:, 0], kind="stable")
    ids, rows = table[order, 0], table[order, 1]
    if not len(ids):
        raise RawDataError(f"{path}: a table without any image; copy or make it again")
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if len(again):
        raise RawDataError(f"{path}: image {ids[again[0]]} occurs twice; make the table again")
    return ids, rows


def parse_image_name(name: str) -> tuple[str | None, int] | None:
    """Image split and id of ``COCO_val2014_000000000009.jpg`` or ``9``, which says no split; None
    for anything else."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match["split"], int(match["id"]))


def _pairs_of_json(path: Path, data: bytes, image_split: str) -> list[tuple[int, int]]:
    try:
        value = json.loads(data, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise RawDataError(
            f"{path}: not valid JSON ({error}); {len(data)} bytes: cut short or damaged; "
            "copy or make it again"
        ) from None
    inner = [one for _, one in value if isinstance(one, tuple)] if isinstance(value, tuple) else []
    if len(inner) == 1:
        value = inner[0]  # {"VQA_imgid2id": {...}}
    if not isinstance(value, tuple):
        raise RawDataError(
            f'{path}: holds a {type(value).__name__}, expected {{"image id": row}}; '
            "is it another file under this name?"
        )
    pairs = []
    for name, row in value:
        image = parse_image_name(name)
        if type(row) is not int or image is None or not 0 <= row < 1 << 62:
            raise RawDataError(
                f"{path}: entry {_short(name)}: {_short(row)} is not an image id with its row; "
                'expected {"262145": 0, ...}'
            )
        if image[0] not in (None, image_split):
            raise RawDataError(
                f"{path}: an image of {image[0]} ({name}) among those of {image_split}; put the "
                "files of the right split there"
            )
        pairs.append((image[1], row))
    return pairs


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _pairs_of_pickle(path: Path, data: bytes) -> list[tuple[int, int]]:
    try:
        flat = _numbers_of_pickle(data)
    except _RefusedError as error:
        raise RawDataError(
            f"{path}: refused: it holds more than a table of numbers ({error}), and opening a "
            'pickle runs code from the file; save the table as JSON: {"image id": row}'
        ) from None
    except (ValueError, EOFError, IndexError, OverflowError, struct.error) as error:
        raise RawDataError(
            f"{path}: not a whole pickle ({str(error)[:100]}); {len(data)} bytes: cut short or "
            "damaged; copy or make it again"
        ) from None
    for number in flat:
        if not 0 <= number < 1 << 62:
            raise RawDataError(f"{path}: {_short(number)} is no image id and no row; make it again")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _numbers_of_pickle(data: bytes) -> list[int]:
    """Keys and values in turn, of a pickle that makes one dict of ints and nothing else."""
    numbers: list[int] = []
    done = 0  # numbers that are already in the dict; the rest waits on the stack
    has_dict = has_mark = False
    for opcode, argument, position in pickletools.genops(data):
        name, waiting = opcode.name, len(numbers) - done
        if name in _INT_OPCODES and type(argument) is int:  # INT also spells True and False
            numbers.append(argument)
        elif name in _IDLE_OPCODES:
            continue
        elif name == "MARK" and not has_mark and not waiting:
            has_mark = True
        elif name == "EMPTY_DICT" and not has_dict and not has_mark and not waiting:
            has_dict = True
        elif name == "DICT" and has_mark and not has_dict and waiting % 2 == 0:
            has_dict, has_mark, done = True, False, len(numbers)
        elif (name == "SETITEMS" and has_dict and has_mark and waiting % 2 == 0) or (
            name == "SETITEM" and has_dict and not has_mark and waiting == 2
        ):
            has_mark, done = False, len(numbers)
        elif name == "STOP" and has_dict and not has_mark and not waiting:
            assert position is not None
            if position + 1 != len(data):
                raise _RefusedError(f"{len(data) - position - 1} bytes after its end")
            return numbers
        else:
            raise _RefusedError(f"{name} at byte {position}")
    raise ValueError("it has no end")
