"""Columns of a Parquet file as Python values, bounded whatever its header claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trar.errors import RawDataError
from trar.fileio import human_bytes
from trar.pipeline.readers.json_file import excerpt

PARQUET_MAGIC = b"PAR1"

_BATCH_ROWS = 8192
_VALUES_PER_BYTE = 8  # of the whole file; a row that takes less than a bit holds nothing


def read_parquet(
    path: Path, data: bytes, choose: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file's bytes, with the columns that ``choose`` takes of all names.

    Values are text, whole numbers, lists of these, or None; types that pandas or other libraries
    note beside the columns are not looked at.

    Raises:
        RawDataError: damaged, a column of another type, or a file that claims to hold more than
            its bytes can.
    """
    import pyarrow as pa  # a third of a second, for tables only
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        columns = list(choose(file.schema_arrow.names))
        kinds = {name: file.schema_arrow.field(name).type for name in columns}
        for name, kind in kinds.items():
            _check_type(path, name, kind)
        _check_count(path, len(data), file.metadata.num_rows)
        # text stays numbers into a dictionary: a long text in a million rows is stored once
        texts = [name for name, kind in kinds.items() if not pa.types.is_nested(kind)]
        file = parquet.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        count = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
            lists = [batch.column(name) for name in kinds if name not in texts]
            count += max([batch.num_rows, *(len(column.flatten()) for column in lists)])
            _check_count(path, len(data), count)
            values = {name: _values(batch.column(name)) for name in columns}
            for row in range(batch.num_rows):
                yield {name: values[name][row] for name in columns}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = excerpt(str(error).encode(errors="replace"))
        raise RawDataError(
            f"{path}: not readable as Parquet ({reason}): damaged or cut short; write it again"
        ) from None


def _values(column: Any) -> list[Any]:
    """The values of an array; those of a dictionary are made once, not once a row."""
    from pyarrow import types

    if not types.is_dictionary(column.type):
        values: list[Any] = column.to_pylist()
        return values
    used = column.indices.unique().drop_null()
    value_of = dict(zip(used.to_pylist(), column.dictionary.take(used).to_pylist(), strict=True))
    return [None if at is None else value_of[at] for at in column.indices.to_pylist()]


def _check_type(path: Path, name: str, kind: Any) -> None:
    from pyarrow import types

    inner = kind
    if types.is_list(inner) or types.is_large_list(inner):
        inner = inner.value_type
    if types.is_dictionary(inner):
        inner = inner.value_type
    fits = types.is_string(inner) or types.is_large_string(inner) or types.is_integer(inner)
    if not fits and not types.is_null(inner):
        raise RawDataError(
            f"{path}: column {name} is of type {excerpt(str(kind).encode())}, expected text, whole "
            "numbers, or (answers) lists of text; write it as such"
        )


def _check_count(path: Path, size: int, count: int) -> None:
    """Against a small file that claims to be a large table. (What the footer says of row groups
    and columns is not asked for: where it is damaged, pyarrow ends the process.)"""
    if count > _VALUES_PER_BYTE * size:
        raise RawDataError(
            f"{path}: {human_bytes(size)} that claim to hold {count} rows or answers; at most "
            f"{_VALUES_PER_BYTE} to a byte are taken; write it again"
        )
