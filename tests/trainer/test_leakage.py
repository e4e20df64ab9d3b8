"""Questions that were trained on are found, by what they are and not by the split's name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import StorePlan, make_store

from trar.errors import ScoreError, StoreError
from trar.features.reader import FeatureStore
from trar.trainer.leakage import _among, leakage, refuse_trained_on


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """minival has the questions of val; extra has others about the images of val."""
    splits = {"train": "train", "val": "val", "minival": "val", "extra": "val", "test": "test"}
    plan = StorePlan(question_splits=splits, same_ids={"minival": "val"})
    return make_store(tmp_path_factory.mktemp("leakage") / "vqa", plan)


def test_a_split_that_was_trained_on_is_refused(store: FeatureStore) -> None:
    found = leakage(store, ["train", "val"], "val")
    assert (found.questions, found.trained_on, found.through) == (45, 45, ("val",))
    with pytest.raises(ScoreError) as caught:
        refuse_trained_on(found, "model.safetensors")
    message = str(caught.value)
    assert message.startswith("model.safetensors: 45 of the 45 questions of val were trained on")
    assert "(through val)" in message
    assert "no val accuracy" in message
    assert "--allow-trained-on" in message
    assert "training accuracy" in found.notes()[0]


@pytest.mark.parametrize(("trained", "split"), [("minival", "val"), ("val", "minival")])
def test_the_same_questions_under_another_name_are_found(
    store: FeatureStore, trained: str, split: str
) -> None:
    found = leakage(store, ["train", trained], split)
    assert (found.trained_on, found.through) == (45, (trained,))


def test_a_trained_split_that_the_store_has_not_counts_by_name(store: FeatureStore) -> None:
    part = leakage(store, ["train", "nominival"], "val")
    assert part.describe() == (
        "up to 45 of the 45 questions of val were trained on (through nominival)"
    )
    assert leakage(store, ["train", "nominival"], "minival").trained_on == 0
    both = leakage(store, ["val", "nominival"], "val")
    assert (both.trained_on, both.at_most) == (45, False)
    small = StorePlan(question_splits={"minival": "val"})
    other = make_store(store.path.parent.parent / "small" / "vqa", small)
    assert leakage(other, ["train", "val"], "minival").through == ("val",)


def test_unseen_questions_are_let_through(store: FeatureStore) -> None:
    found = leakage(store, ["train"], "val")
    refuse_trained_on(found, "model")
    assert (found.trained_on, found.images, found.images_seen) == (0, 15, 0)
    assert found.notes() == ()


def test_images_seen_under_other_questions_are_noted(store: FeatureStore) -> None:
    found = leakage(store, ["train", "extra"], "val")
    refuse_trained_on(found, "model")
    assert (found.trained_on, found.images_seen) == (0, 15)
    assert found.notes() == ("15 of the 15 images of val were trained on with other questions",)


def test_a_split_that_is_not_there_is_refused(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="no question split 'dev'"):
        leakage(store, ["train"], "dev")


pairs = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 2)), unique_by=lambda pair: pair[0], max_size=10
)


@given(pairs, pairs)
def test_a_question_is_its_id_and_its_image(
    asked: list[tuple[int, int]], trained: list[tuple[int, int]]
) -> None:
    ids, images = np.array(asked, np.int64).reshape(-1, 2).T
    found = _among(ids, images, *np.array(trained, np.int64).reshape(-1, 2).T)
    assert found.tolist() == [one in trained for one in asked]
