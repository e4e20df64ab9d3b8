from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import StoreError
from trar.features.questions import AnswerTable, Texts


@given(st.lists(st.text(max_size=20), max_size=20))
def test_texts_round_trip(lines: list[str]) -> None:
    lines = [line.encode("utf-8", "ignore").decode() for line in lines]
    texts = Texts.pack(lines)
    assert list(texts) == lines
    assert [texts[row] for row in range(len(texts))] == lines
    assert texts[1:] == lines[1:]


def test_index_past_the_end() -> None:
    with pytest.raises(IndexError):
        Texts.pack(["a"])[1]


def test_offsets_that_miss_the_end_are_damage() -> None:
    table = AnswerTable(
        np.array([0, 1]), Texts.pack(["yes"]), np.zeros(1, np.uint8), Texts.pack(["yes"])
    )
    columns = {**table.columns(), "answer_offsets": np.array([0, 2])}
    with pytest.raises(StoreError, match="answer does not end where its offsets say"):
        AnswerTable.from_columns(columns)
