"""Columns without a Python object per row: texts that repeat as codes, and lists of any length.

n rows; k different texts. A column is a sequence of what it stands for, and equal to any sequence
of the same rows, so that code which knows plain lists alone can use it too.
"""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")

BLOCK_ROWS = 1 << 18  # rows worked on at a time, so that what is made on the way stays small


class Codes(defaultdict[str, int]):
    """Numbers texts as they come: the next text that it has not seen gets the next number."""

    def __init__(self) -> None:
        super().__init__(itertools.count().__next__)  # without a line of Python a text


def int64s(numbers: Sequence[int]) -> NDArray[np.int64]:
    """Numbers as an array, without a copy where they are an ``array`` of that size already."""
    if isinstance(numbers, array):
        return np.frombuffer(numbers, np.int64)  # asarray says "long long", which Zarr has not
    return np.asarray(numbers, np.int64)


def take_rows(column: Sequence[Any], rows: NDArray[np.int64]) -> Sequence[Any]:
    """These rows of a column, in this order, in the form that the column has."""
    if isinstance(column, Column):
        return column.take(rows)
    if isinstance(column, array):
        return array(column.typecode, np.asarray(column)[rows].tobytes())
    return [column[row] for row in rows.tolist()]


class Column(Sequence[Item]):
    """What all columns share."""

    def take(self, rows: NDArray[np.int64]) -> Column[Item]:
        """These rows, in this order."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(_same, self, other))


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, tuple):
        return tuple(one) == other
    return one == other


@dataclass(frozen=True, eq=False)
class CodedTexts(Column[str]):
    """Strings that repeat: row i is ``known[codes[i]]``; ``known`` k strings, ``codes`` (n,) int32.

    ``known`` may hold strings that no row has.
    """

    known: Sequence[str]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, texts: Iterable[str]) -> CodedTexts:
        """Strings to codes, numbered in order of first appearance."""
        if isinstance(texts, CodedTexts):
            return texts
        code_of = Codes()
        codes = array("i", [code_of[text] for text in texts])
        return cls.counted(code_of, codes)

    @classmethod
    def counted(cls, code_of: Codes, codes: array[int]) -> CodedTexts:
        """From what a reader has numbered."""
        return cls(tuple(code_of), np.asarray(codes))

    def take(self, rows: NDArray[np.integer[Any]]) -> CodedTexts:
        return CodedTexts(self.known, self.codes[rows])

    def renumbered(self) -> CodedTexts:
        """The same rows, ``known`` in order of first appearance and without what no row has."""
        used, first, codes = np.unique(self.codes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        number = np.empty(len(order), np.int32)
        number[order] = np.arange(len(order))
        return CodedTexts([self.known[code] for code in used[order].tolist()], number[codes])

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.known[code] for code in self.codes[index].tolist()]
        return self.known[self.codes[index]]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK_ROWS):
            yield from map(self.known.__getitem__, self.codes[start : start + BLOCK_ROWS].tolist())


@dataclass(frozen=True, eq=False)
class Lists(Column[list[Item]], Generic[Item]):
    """Lists of any length: row i is ``flat[offsets[i]:offsets[i + 1]]``; ``offsets`` (n + 1,)."""

    flat: Sequence[Item]
    offsets: NDArray[np.int64]

    def take(self, rows: NDArray[np.integer[Any]]) -> Lists[Item]:
        lengths = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        place = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Lists(take_rows(self.flat, place), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return list(self.flat[self.offsets[row] : self.offsets[row + 1]])

    def __iter__(self) -> Iterator[list[Item]]:
        flat, ends = list(self.flat), self.offsets.tolist()
        for start, end in itertools.pairwise(ends):
            yield flat[start:end]


def coded_lists(lists: Sequence[Sequence[str]]) -> tuple[CodedTexts, NDArray[np.int64]]:
    """Lists of strings as one column (total,), and where each begins and ends, (n + 1,)."""
    if isinstance(lists, Lists):
        return CodedTexts.of(lists.flat), lists.offsets
    return CodedTexts.of(text for texts in lists for text in texts), _ends(lists)


def number_lists(
    lists: Sequence[Sequence[float]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lists of numbers as one array (total,), and where each begins and ends, (n + 1,)."""
    if isinstance(lists, Lists):
        return np.asarray(lists.flat, np.float64), lists.offsets
    return np.array([one for numbers in lists for one in numbers], np.float64), _ends(lists)


def _ends(lists: Sequence[Sequence[Any]]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(one) for one in lists], out=offsets[1:])
    return offsets
