"""Columns of codes and of lists stand for the plain lists that they were made of."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.features.columns import (
    CodedTexts,
    Codes,
    Lists,
    coded_lists,
    int64s,
    number_lists,
    take_rows,
)
from trar.features.questions import GrowingTexts, Texts

WORDS = st.lists(st.sampled_from(["", "a", "yes", "no", "é", "two words"]), max_size=12)
LISTS = st.lists(WORDS, max_size=8)
ROWS = st.lists(st.integers(0, 1000), max_size=12)


def rows_of(column: Sequence[object], rows: list[int]) -> list[int]:
    """Rows that the column has."""
    return [row % len(column) for row in rows] if len(column) else []


@given(WORDS, ROWS)
def test_coded_texts_are_the_texts(texts: list[str], rows: list[int]) -> None:
    column, rows = CodedTexts.of(texts), rows_of(texts, rows)
    assert column == texts
    assert list(column) == [column[row] for row in range(len(column))] == column[:] == texts
    assert column.known == tuple(dict.fromkeys(texts))
    taken = column.take(np.array(rows, np.int64))
    assert taken == [texts[row] for row in rows]
    assert Texts.pack(taken) == taken
    numbered = taken.renumbered()
    assert numbered == taken
    assert numbered.known == list(dict.fromkeys(taken))


@given(WORDS, ROWS)
def test_packed_texts_are_taken_by_row(texts: list[str], rows: list[int]) -> None:
    rows = rows_of(texts, rows)
    assert Texts.pack(texts).take(np.array(rows, np.int64)) == [texts[row] for row in rows]


def test_many_rows_are_packed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trar.features.questions.BLOCK_ROWS", 3)
    texts = ["b", "", "ccc", "b", "é", "é", "", "ccc"]
    assert Texts.pack(CodedTexts.of(texts)) == texts


def test_texts_packed_one_by_one() -> None:
    grown = GrowingTexts()
    for text in ("é", "", "abc"):
        grown.append(text)
    texts = grown.finish()
    assert texts.offsets.tolist() == [0, 2, 2, 5]
    assert texts == ["é", "", "abc"]
    assert texts != ["é", "", "abd"]
    assert texts != ["é", ""]
    assert texts != 3
    assert Texts.pack(texts) is texts


@given(LISTS, ROWS)
def test_lists_of_texts_are_the_lists(lists: list[list[str]], rows: list[int]) -> None:
    flat, offsets = coded_lists(lists)
    column, rows = Lists(flat, offsets), rows_of(lists, rows)
    assert column == lists
    assert column == list(map(tuple, lists))
    assert list(column) == [column[row] for row in range(len(column))] == column[:] == lists
    assert column.take(np.array(rows, np.int64)) == [lists[row] for row in rows]
    again, same = coded_lists(column)
    assert again is flat
    assert same is offsets


@given(st.lists(st.lists(st.floats(0, 1), max_size=4), max_size=8), ROWS)
def test_lists_of_numbers_are_the_lists(lists: list[list[float]], rows: list[int]) -> None:
    values, offsets = number_lists(lists)
    column, rows = Lists(array("d", values.tolist()), offsets), rows_of(lists, rows)
    assert column == lists
    taken = column.take(np.array(rows, np.int64))
    assert taken == [lists[row] for row in rows]
    assert number_lists(taken)[0].tolist() == [one for row in rows for one in lists[row]]


def test_rows_are_taken_from_any_sequence() -> None:
    rows = np.array([2, 0])
    assert take_rows(["a", "b", "c"], rows) == ["c", "a"]
    taken = take_rows(array("q", [7, 8, 9]), rows)
    assert isinstance(taken, array)
    assert taken.tolist() == [9, 7]


def test_a_column_has_no_index_past_its_end() -> None:
    for column in (CodedTexts.of(["a"]), Lists(["a"], np.array([0, 1]))):
        with pytest.raises(IndexError):
            column[1]


def test_texts_are_numbered_as_they_come() -> None:
    codes = Codes()
    assert [codes[text] for text in ("b", "a", "b")] == [0, 1, 0]
    assert list(codes) == ["b", "a"]


@pytest.mark.parametrize("numbers", [[], [1, -(2**63)]])
def test_numbers_have_the_dtype_that_zarr_knows(numbers: list[int]) -> None:
    for values in (int64s(numbers), int64s(array("q", numbers))):
        assert values.dtype.char == np.dtype(np.int64).char
        assert values.tolist() == numbers
