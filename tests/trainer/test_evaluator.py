"""Scores by the rule of the store, and what is reached without looking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import StorePlan, make_store
from torch import Tensor, nn
from training import small_config

from trar.errors import CheckpointError, StoreError
from trar.features.reader import FeatureStore
from trar.trainer.evaluator import evaluate, predict
from trar.trainer.loop import train
from trar.trainer.scoring import blind_baseline, score_answers


class Oracle(nn.Module):
    """Answers right: it sees the colour's channel and the words of the question."""

    def __init__(self, store: FeatureStore) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.store = store

    def forward(self, image: Tensor, question: Tensor, cells: Tensor) -> Tensor:
        colour = image.amax(dim=1)[:, :4].argmax(dim=1)
        logits = torch.zeros(len(image), len(self.store.answers))
        for row, (number, ids) in enumerate(zip(colour.tolist(), question.tolist(), strict=True)):
            name = self.store.answers.answers[number]
            words = self.store.vocabulary.decode(ids)
            answer = name if "what" in words else "yes" if name in words else "no"
            logits[row, self.store.answers.index[answer]] = 1
        return logits


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_model_that_knows_gets_everything_right(
    shared_store: FeatureStore, batch_size: int
) -> None:
    score = evaluate(
        Oracle(shared_store), shared_store, "val", batch_size=batch_size, max_tokens=14
    )
    assert score.overall == 100
    assert score.rules == "exact match"
    assert score.per_question_type == {"what colour": 100.0, "is it": 100.0}
    assert score.per_answer_type == {"other": 100.0, "yes/no": 100.0}
    assert len(score.per_question) == 45


def test_ten_annotators_are_scored_by_the_official_rules(tmp_path: Path) -> None:
    store = make_store(tmp_path / "vqa", StorePlan(rule="vqa"))
    score = evaluate(Oracle(store), store, "val", max_tokens=14)
    assert score.rules == "official"
    assert score.overall == 100


def test_predictions_come_in_the_order_of_the_questions(shared_store: FeatureStore) -> None:
    counts: list[tuple[int, int]] = []
    found = predict(
        Oracle(shared_store),
        shared_store,
        "test",
        batch_size=8,
        max_tokens=14,
        progress=lambda *done: counts.append(done),
    )
    np.testing.assert_array_equal(found.question_ids, shared_store.questions("test").ids)
    assert len(found.answers) == 18
    assert set(found.answers[1::3]) <= {"yes", "no"}
    assert (found.logits == 1).all()
    assert counts == [(8, 18), (16, 18), (18, 18)]


def test_a_module_keeps_its_training_mode(shared_store: FeatureStore) -> None:
    model = Oracle(shared_store).train()
    predict(model, shared_store, "val", max_tokens=14)
    assert model.training


def test_a_split_without_answers_cannot_be_scored(shared_store: FeatureStore) -> None:
    way = r"choose one with answers \(train, val\), or let .* trar predict --split test$"
    with pytest.raises(StoreError, match=f"the questions of split 'test' have no answers; {way}"):
        evaluate(Oracle(shared_store), shared_store, "test", max_tokens=14)
    with pytest.raises(StoreError, match="no question split 'vg'; it has train, val, test; add it"):
        evaluate(Oracle(shared_store), shared_store, "vg", max_tokens=14)
    with pytest.raises(StoreError, match=r"no question split 'tset'; it .*; did you mean test\?"):
        evaluate(Oracle(shared_store), shared_store, "tset", max_tokens=14)


def test_a_bare_module_needs_to_be_told_how_long_questions_are(
    shared_store: FeatureStore,
) -> None:
    with pytest.raises(TypeError, match="max_tokens"):
        predict(Oracle(shared_store), shared_store, "val")


def test_a_checkpoint_is_enough(shared_store: FeatureStore, tmp_path: Path) -> None:
    result = train(small_config(shared_store.path, tmp_path, "schedule.epochs=1"))
    score = evaluate(result.checkpoint, shared_store.path, "val", device="cpu")
    assert result.scores is not None
    assert score.overall == result.scores["overall"]
    other = make_store(tmp_path / "other", StorePlan(extra_words=("zebra",)))
    with pytest.raises(CheckpointError, match="vocabulary"):
        evaluate(result.checkpoint, other, "val")


def by_hand(store: FeatureStore, train_splits: Sequence[str], split: str) -> float:
    pairs = [
        pair
        for name in train_splits
        for pair in zip(store.questions(name).texts, store.answers_of(name).majority, strict=True)
    ]
    right = 0
    truth = store.answers_of(split).majority
    for text, answer in zip(store.questions(split).texts, truth, strict=True):
        same = [known for asked, known in pairs if asked == text] or [known for _, known in pairs]
        right += answer == max(same, key=same.count)
    return round(100 * right / len(truth), 2)


def test_the_blind_baseline_is_the_most_frequent_answer_to_the_same_words(
    shared_store: FeatureStore,
) -> None:
    score = blind_baseline(shared_store, "train", "val")
    assert score.overall == by_hand(shared_store, ["train"], "val")
    assert score.overall < 100
    both = blind_baseline(shared_store.path, "train+val", "val")
    assert both.overall == by_hand(shared_store, ["train", "val"], "val")


def test_answers_of_another_length_are_a_bug(shared_store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="1 predictions for 45 questions"):
        score_answers(shared_store, "val", ["yes"])
