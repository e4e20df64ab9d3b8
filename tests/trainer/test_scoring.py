"""Scores from the columns of a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import StorePlan, make_store

from trar.features.questions import Texts
from trar.features.reader import FeatureStore
from trar.trainer import scoring
from trar.trainer.metrics import vqa


@given(st.lists(st.text(max_size=4), max_size=20), st.integers(1, 7))
def test_packed_texts_are_numbered_by_first_appearance(texts: list[str], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BLOCK_ROWS", block)
        found = scoring.coded(Texts.pack(texts))
    assert list(found) == texts
    assert list(found.known) == list(dict.fromkeys(texts))


@pytest.fixture(scope="module")
def ten_annotators(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("scoring") / "vqa", StorePlan(rule="vqa"))


@pytest.mark.parametrize("rules", ["official", "legacy"])
def test_a_store_scores_as_its_answers_in_lists(ten_annotators: FeatureStore, rules: str) -> None:
    store = ten_annotators
    rng = np.random.default_rng(0)
    answers = rng.choice(["red", "yes", "no", "The Red.", "none"], 45).tolist()
    truth, table = store.answers_of("val"), store.questions("val")
    found = scoring.score_answers(store, "val", answers, rules=rules)
    plain = vqa.score_columns(
        table.ids.tolist(),
        answers,
        truth.lists(),
        [table.type_names[one] for one in table.type.tolist()],
        [["", "yes/no", "number", "other"][one] for one in truth.type.tolist()],
        rules,
    )
    assert found == plain
    assert 0 < found.overall < 100
    assert found.per_question_type.keys() == {"what colour", "is it"}


def test_stated_labels_are_looked_up(tmp_path: Path) -> None:
    store = make_store(tmp_path / "vqa", StorePlan(rule="labels", question_splits={"val": "val"}))
    truth = store.answers_of("val")
    assert truth.scores is not None
    score = scoring.score_answers(store, "val", list(truth.majority))
    assert score.rules == "stated labels"
    assert score.overall == 60.0
    assert scoring.score_answers(store, "val", ["x"] * 45).overall == 0.0
