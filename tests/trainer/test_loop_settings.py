"""What ``loop.*`` changes, and what it must not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from training import small_config

from trar.errors import TrarError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.loop import TrainResult, train
from trar.trainer.progress import Progress
from trar.trainer.run_folder import checkpoints_in, read_log

SHORT = ("schedule.epochs=2", "schedule.decay_epochs=[1]")


def run(store: FeatureStore, folder: Path, *sets: str) -> TrainResult:
    return train(small_config(store.path, folder, *SHORT, *sets))


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_checkpoint(result.checkpoint).weights(average=False)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# fp16 skips the first steps, until the scale of the loss is found
@pytest.mark.parametrize(("precision", "close"), [("bf16", 0.05), ("fp16", 0.2)])
def test_half_precision_trains_close_to_single_and_keeps_single_weights(
    shared_store: FeatureStore, tmp_path: Path, precision: str, close: float
) -> None:
    single = run(shared_store, tmp_path, "model.dropout=0.0")
    half = run(shared_store, tmp_path, "model.dropout=0.0", f"loop.precision={precision}")
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(half).values())
    assert half.history[-1]["loss"] == pytest.approx(single.history[-1]["loss"], rel=close)
    assert half.history[-1]["loss"] != single.history[-1]["loss"]


def test_the_loss_scale_of_fp16_is_saved(shared_store: FeatureStore, tmp_path: Path) -> None:
    result = run(shared_store, tmp_path, "loop.precision=fp16")
    scaler = load_checkpoint(result.checkpoint).scaler
    assert scaler is not None
    assert scaler["scale"] > 0
    assert load_checkpoint(run(shared_store, tmp_path).checkpoint).scaler is None


def test_a_run_in_fp16_with_averaged_weights_resumes_to_the_same_bits(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    """Within an epoch, before the scale of the loss is found and the average has settled."""

    class StopError(Exception):
        pass

    def stop(told: Progress) -> None:
        if told.stage == "train" and (told.epoch, told.step) == (1, 6):
            raise StopError

    sets = ("loop.precision=fp16", "loop.ema=0.9", "loop.checkpoint_steps=2", "loop.clip_norm=1.0")
    whole = run(shared_store, tmp_path / "a", *sets)
    config = small_config(shared_store.path, tmp_path / "b", *SHORT, *sets)
    with pytest.raises(StopError):
        train(config, stop)
    stopped = load_checkpoint(tmp_path / "b/easy-vqa")
    last = load_checkpoint(whole.checkpoint)
    assert stopped.epoch_step == 4
    assert stopped.scaler is not None
    assert stopped.scaler["scale"] < 65536  # steps have been skipped: it is no longer the first
    parts = train(config, resume="auto")
    one, other = load_file(whole.checkpoint), load_file(parts.checkpoint)
    assert one.keys() == other.keys()
    assert any(name.startswith("average.") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_checkpoint(parts.checkpoint).scaler == last.scaler


def test_gradients_are_clipped_to_the_norm(shared_store: FeatureStore, tmp_path: Path) -> None:
    free = run(shared_store, tmp_path)
    loose = run(shared_store, tmp_path, "loop.clip_norm=1e9")
    tight = run(shared_store, tmp_path, "loop.clip_norm=1e-3", "optim.eps=1e-3")
    unclipped = run(shared_store, tmp_path, "optim.eps=1e-3")
    assert largest_difference(weights(free), weights(loose)) == 0
    start = load_checkpoint(free.run / "checkpoint-001.safetensors").weights(average=False)
    assert start.keys() == weights(tight).keys()
    # Adam's eps is as large as the clipped gradient: steps are small
    assert tight.history[-1]["loss"] > unclipped.history[-1]["loss"]


def test_the_average_of_the_weights_is_what_is_scored_and_saved(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    plain = run(shared_store, tmp_path)
    averaged = run(shared_store, tmp_path, "loop.ema=0.9")
    checkpoint = load_checkpoint(averaged.checkpoint)
    assert largest_difference(weights(plain), checkpoint.weights(average=False)) == 0
    assert largest_difference(weights(plain), checkpoint.weights(average=True)) > 0
    served = checkpoint.model().state_dict()
    assert largest_difference(served, checkpoint.weights(average=True)) == 0


def test_an_average_follows_its_equation(shared_store: FeatureStore, tmp_path: Path) -> None:
    sets = ("schedule.epochs=1", "schedule.decay_epochs=[]", "loop.checkpoint_steps=1")
    kept: list[dict[str, torch.Tensor]] = []

    def keep(told: object) -> None:
        for path in (tmp_path / "easy-vqa").glob("checkpoint-*-step-*"):
            one = load_checkpoint(path)
            if len(kept) < one.epoch_step:
                kept.append(one.weights(average=False))

    result = train(small_config(shared_store.path, tmp_path, *sets, "loop.ema=0.5"), keep)
    kept.append(weights(result))
    name = "classifier.weight" if "classifier.weight" in kept[0] else next(iter(kept[0]))
    expected = kept[0][name]
    for one in kept[1:]:
        expected = 0.5 * expected + 0.5 * one[name]
    found = load_checkpoint(result.checkpoint).weights(average=True)[name]
    assert len(kept) == 8
    torch.testing.assert_close(found, expected)


def test_a_run_ends_early_where_nothing_gets_better(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = ("schedule.epochs=9", "optim.lr=1e-30", "loop.early_stop=2")
    result = train(small_config(shared_store.path, tmp_path, *sets))
    assert len(result.history) == 3  # the first is the best, two are not better
    again = train(small_config(shared_store.path, tmp_path, *sets), resume="auto")
    assert len(again.history) == 3


def test_the_last_checkpoints_and_the_best_are_kept(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = ("schedule.epochs=5", "optim.lr=1e-30", "loop.keep_last=1")
    result = train(small_config(shared_store.path, tmp_path, *sets))
    assert sorted(checkpoints_in(result.run)) == [5]  # all equal: the last of them is the best
    assert result.best_checkpoint == result.checkpoint


def test_scores_come_every_so_many_epochs_and_steps(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = ("schedule.epochs=3", "loop.eval_epochs=2", "loop.eval_steps=5")
    result = train(small_config(shared_store.path, tmp_path, *sets))
    lines = [one for one in read_log(result.run) if one["event"] == "scores"]
    assert [(one["epoch"], one.get("step")) for one in lines] == [
        (1, 5),
        (2, 5),
        (2, None),
        (3, 5),
        (3, None),
    ]
    assert [bool(one["scores"]) for one in result.history] == [False, True, True]


def test_scoring_within_an_epoch_changes_no_bit(shared_store: FeatureStore, tmp_path: Path) -> None:
    plain = run(shared_store, tmp_path)
    scored = run(shared_store, tmp_path, "loop.eval_steps=3", "loop.checkpoint_steps=2")
    assert largest_difference(weights(plain), weights(scored)) == 0


def test_the_batch_of_a_loss_that_is_not_finite_is_kept(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = small_config(shared_store.path, tmp_path, "optim.lr=1e30", "loss=bce-sum")
    with pytest.raises(TrarError, match=r"the batch is in bad-batch-epoch-1-step-\d+\.safetensors"):
        train(config)
    (path,) = (tmp_path / "easy-vqa").glob("bad-batch-*")
    tensors = load_file(path)
    assert tensors["features"].shape == (16, 16, 8)
    assert set(tensors["question_ids"].tolist()) <= set(
        shared_store.questions("train").ids.tolist()
    )
    with safe_open(path, "pt") as file:
        assert file.metadata()["epoch"] == "1"


def test_curves_are_drawn_for_tensorboard(shared_store: FeatureStore, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = run(shared_store, tmp_path, "loop.tensorboard=true")
    found = events.EventAccumulator(str(result.run / "tensorboard"))
    found.Reload()
    assert {"train/loss", "epoch/loss", "score/overall"} <= set(found.Tags()["scalars"])
    assert [one.step for one in found.Scalars("epoch/loss")] == [8, 16]
    steps = [one["loss"] for one in read_log(result.run) if one["event"] == "steps"]
    assert [one.value for one in found.Scalars("train/loss")] == pytest.approx(steps)
