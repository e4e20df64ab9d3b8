"""LXMERT with all its options trains, stops, goes on and is scored as any other model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from lxmert_runs import ALL, small_lxmert
from stores import StorePlan, make_store

from trar.errors import StoreError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint, save_checkpoint
from trar.trainer.evaluator import evaluate
from trar.trainer.loop import train
from trar.trainer.models import build_model
from trar.trainer.new_model import whole_model_config
from trar.trainer.progress import Progress
from trar.trainer.run_folder import read_log
from trar.trainer.training_data import open_store


def test_the_learning_rate_of_a_cyclic_schedule_is_logged_by_step(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    result = train(small_lxmert(shared_store.path, tmp_path))
    rates = [one["learning_rate"] for one in read_log(result.run) if one["event"] == "steps"]
    wanted = [0.2, 0.36, 0.52, 0.68, 0.84, 1.0, 1 - 0.8 / 3, 1 - 1.6 / 3]
    assert rates == pytest.approx([0.01 * wanted[step % 8] for step in range(len(rates))])


def test_regions_with_boxes_are_learned_from(tmp_path: Path) -> None:
    store = make_store(tmp_path / "features" / "tiny", StorePlan(most_regions=5))
    result = train(small_lxmert(store.path, tmp_path, *ALL))
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    score = evaluate(result.checkpoint, store.path, "val", device="cpu")
    assert score.overall == result.history[-1]["scores"]["overall"]


def test_pretrained_weights_are_what_training_begins_with(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = small_lxmert(shared_store.path, tmp_path, *ALL)
    trained = train(config)
    state = load_checkpoint(trained.checkpoint).model().state_dict()
    torch.manual_seed(5)
    model = build_model(whole_model_config(config, open_store(config)))
    untrained = dataclasses.replace(
        load_checkpoint(trained.checkpoint),
        path=tmp_path / "begin.safetensors",
        epoch=0,
        history=(),
    )
    save_checkpoint(untrained, model, torch.optim.Adam(model.parameters()))
    begun = model.state_dict()
    told: list[Progress] = []
    again = train(small_lxmert(shared_store.path, tmp_path, *ALL, "optim.lr=0.01",
                        f"start_from={untrained.path}"), told.append)  # fmt: skip
    assert any(f"beginning with the weights of {untrained.path}" in str(one.note) for one in told)
    ended = load_checkpoint(again.checkpoint)
    assert (ended.epoch, len(ended.history)) == (2, 2)
    far = (ended.weights()["words.weight"] - begun["words.weight"]).norm()
    assert far < (ended.weights()["words.weight"] - state["words.weight"]).norm()


@pytest.mark.parametrize("loss", ["bce-mean-answers", "bce-sum"])
def test_the_penalty_shortens_spans_and_is_not_in_the_loss_that_is_told(
    shared_store: FeatureStore, tmp_path: Path, loss: str
) -> None:
    spans, first = [], []
    for penalty in (0.0, 100.0):
        sets = ("model.adaptive_span=true", f"model.span_penalty={penalty}", f"loss={loss}")
        result = train(
            small_lxmert(shared_store.path, tmp_path / str(penalty), *sets, "optim.lr=0.1")
        )
        model = load_checkpoint(result.checkpoint).model()
        learned = [one.span for _, one in model.attentions() if one.span is not None]
        spans.append(sum(span.mean().item() for span in learned))
        first.append(next(one["loss"] for one in read_log(result.run) if one["event"] == "steps"))
    assert spans[1] < spans[0]
    assert first[0] == first[1]


def test_a_store_without_word_pieces_or_targets_says_what_makes_them(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    pieces = "no tokens of 'wordpiece', only of openvqa; `trar-data prepare --tokenizer wordpiece"
    with pytest.raises(StoreError, match=pieces):
        train(small_lxmert(shared_store.path, tmp_path, "data.tokenizer=wordpiece"))
    raw = "no targets of 'lxmert', only of openvqa; `trar-data prepare --targets lxmert"
    with pytest.raises(StoreError, match=raw):
        train(small_lxmert(shared_store.path, tmp_path, "data.targets=lxmert"))
