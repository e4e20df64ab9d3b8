"""Training learns, keeps what it finished, and goes on to the same bits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from disk import fill
from safetensors.torch import load_file
from stores import StorePlan, make_store
from training import small_config

from trar.errors import CheckpointError, ConfigError, DiskError, StoreError, TrarError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.config import TrainConfig
from trar.trainer.dry_run import dry_run
from trar.trainer.loop import train
from trar.trainer.progress import Progress
from trar.trainer.run_folder import checkpoints_in, read_log
from trar.trainer.scoring import blind_baseline

TIMES = ("seconds", "data_wait_share")


def log_of(run: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    return [
        {key: value for key, value in line.items() if key not in TIMES} for line in read_log(run)
    ]


def same_tensors(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


class Stop:
    """A report that raises after so many epochs and steps."""

    def __init__(self, epoch: int, step: int, error: type[BaseException]) -> None:
        self.at, self.error = (epoch, step), error

    def __call__(self, told: Progress) -> None:
        if told.stage == "train" and (told.epoch, told.step) == self.at:
            raise self.error


def test_a_small_model_learns_what_can_be_learned(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = ("schedule.epochs=20", "schedule.decay_epochs=[16]", "optim.lr=0.01")
    wider = ("model.width=32", "model.dropout=0.0")
    result = train(small_config(shared_store.path, tmp_path, *sets, *wider))
    assert result.scores is not None
    assert result.scores["overall"] > blind_baseline(shared_store, "train", "val").overall + 20
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2


def test_a_run_leaves_config_log_and_checkpoints(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = small_config(shared_store.path, tmp_path / "runs")
    result = train(config)
    assert result.run == tmp_path / "runs/easy-vqa"
    written = yaml.safe_load((result.run / "config.yaml").read_text())
    assert written["config"] == config.model_dump(mode="json")
    assert written["store"]["fingerprint"] == shared_store.meta.fingerprint
    assert written["versions"]["torch"] == torch.__version__
    lines = read_log(result.run)
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2, 3]
    steps = [(line["epoch"], line["step"]) for line in lines if line["event"] == "steps"]
    assert steps == [(epoch, step) for epoch in (1, 2, 3) for step in (3, 6, 8)]
    assert {2, 3} <= set(checkpoints_in(result.run)) <= {1, 2, 3}
    assert result.checkpoint == result.run / "checkpoint-003.safetensors"
    assert result.best_checkpoint.exists()
    rates = [line["learning_rate"] for line in lines if line["event"] == "epoch"]
    assert rates == pytest.approx([0.0025, 0.005, 0.001])


def test_what_is_reported_can_be_shown(shared_store: FeatureStore, tmp_path: Path) -> None:
    told: list[Progress] = []
    train(small_config(shared_store.path, tmp_path), told.append)
    steps = [one for one in told if one.stage == "train"]
    assert [(one.epoch, one.step) for one in steps] == [
        (epoch, step) for epoch in (1, 2, 3) for step in range(1, 9)
    ]
    assert all(one.loss is not None and one.loss > 0 for one in steps)
    assert all(0 <= one.data_wait_share <= 1 and one.samples_per_s > 0 for one in steps)
    assert steps[-1].eta_s == 0
    scored = [one for one in told if one.stage == "epoch"]
    assert [one.epoch for one in scored] == [1, 2, 3]
    assert all(one.scores is not None for one in scored)
    assert {one.steps for one in told if one.stage == "evaluate"} == {45}


def test_the_same_seed_gives_the_same_bits(shared_store: FeatureStore, tmp_path: Path) -> None:
    config = small_config(shared_store.path, tmp_path)
    one, two = train(config), train(config)
    assert two.run.name == "easy-vqa-2"
    assert same_tensors(one.checkpoint, two.checkpoint)
    assert log_of(one.run) == log_of(two.run)
    other = train(small_config(shared_store.path, tmp_path, "seed=1"))
    assert not same_tensors(one.checkpoint, other.checkpoint)


def test_how_far_the_loader_is_ahead_changes_nothing(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    far, near = (
        train(small_config(shared_store.path, tmp_path, f"data.prefetch={n}")) for n in (7, 1)
    )
    assert same_tensors(far.checkpoint, near.checkpoint)


@pytest.mark.parametrize("loss", ["ce-sum", "bce-sum"])
def test_accumulation_is_equal_to_the_large_batch(
    shared_store: FeatureStore, tmp_path: Path, loss: str
) -> None:
    sets = ("model.dropout=0.0", f"loss={loss}", "schedule.epochs=1")
    whole = train(small_config(shared_store.path, tmp_path, *sets))
    parts = train(small_config(shared_store.path, tmp_path, *sets, "data.accumulation=4"))
    assert parts.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-4)


@pytest.mark.parametrize("at", [(2, 1), (2, 5), (3, 8)])
def test_a_stopped_run_goes_on_to_the_same_bits(
    shared_store: FeatureStore, tmp_path: Path, at: tuple[int, int]
) -> None:
    undisturbed = train(small_config(shared_store.path, tmp_path / "a"))
    config = small_config(shared_store.path, tmp_path / "b", run="mine")
    with pytest.raises(KeyboardInterrupt) as caught:
        train(config, Stop(*at, KeyboardInterrupt))
    assert f"newest checkpoint is checkpoint-{at[0] - 1:03}" in caught.value.__notes__[0]
    assert "--run mine --resume auto" in caught.value.__notes__[0]
    torch.manual_seed(99)  # whatever random state the new process has
    notes: list[Progress] = []
    resumed = train(config, notes.append, resume="auto")
    assert f"continuing after epoch {at[0] - 1} of 3" in (notes[0].note or "")
    assert same_tensors(undisturbed.checkpoint, resumed.checkpoint)
    assert log_of(undisturbed.run) == log_of(resumed.run)
    assert resumed.history == undisturbed.history


PROGRAM = """
import sys
from training import small_config
from trar.trainer.scoring import blind_baseline
from trar.trainer.loop import train
import torch
torch.set_num_threads(1)
train(small_config(sys.argv[1], sys.argv[2], "schedule.epochs=6", run="killed"), resume="auto")
"""


def test_a_killed_process_goes_on_to_the_same_bits(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    """SIGKILL of two processes; a third runs to the end."""
    command = [sys.executable, "-c", PROGRAM, str(shared_store.path), str(tmp_path / "b")]
    here = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
    killed = tmp_path / "b/killed"
    for finished in (1, 4):
        process = subprocess.Popen(command, env=environment)
        wanted = killed / f"checkpoint-{finished:03}.safetensors"
        while not wanted.exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, env=environment, check=True)
    config = small_config(shared_store.path, tmp_path / "a", "schedule.epochs=6")
    undisturbed = train(config)
    assert same_tensors(undisturbed.checkpoint, killed / "checkpoint-006.safetensors")
    # a score may stand twice: killed after it was logged, before it was in the checkpoint
    steps = [
        [line for line in log_of(run) if line["event"] != "scores"]
        for run in (undisturbed.run, killed)
    ]
    assert steps[0] == steps[1]


def test_resume_auto_starts_what_is_not_there(shared_store: FeatureStore, tmp_path: Path) -> None:
    config = small_config(shared_store.path, tmp_path, "schedule.epochs=1", run="mine")
    told: list[Progress] = []
    train(config, told.append, resume="auto")
    assert told[0].note == f"{tmp_path / 'mine'}: no such run yet, starting it"


def test_a_run_stopped_in_its_first_epoch_starts_again_in_its_folder(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = small_config(shared_store.path, tmp_path, "schedule.epochs=1")
    with pytest.raises(KeyboardInterrupt) as caught:
        train(config, Stop(1, 5, KeyboardInterrupt))
    assert "stopped before the first checkpoint" in caught.value.__notes__[0]
    told: list[Progress] = []
    result = train(config, told.append, resume="auto")
    assert "no checkpoint yet, starting from the beginning" in (told[0].note or "")
    assert [line["step"] for line in read_log(result.run) if line["event"] == "steps"] == [3, 6, 8]
    assert [path.name for path in tmp_path.iterdir()] == ["easy-vqa"]


def test_resuming_a_finished_run_says_so_and_changes_nothing(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = small_config(shared_store.path, tmp_path)
    before = train(config)
    files = {path.name: path.read_bytes() for path in before.run.iterdir()}
    for resume in ("auto", before.checkpoint):
        told: list[Progress] = []
        after = train(config, told.append, resume=resume)
        assert "finished already, 3 of 3 epochs" in (told[0].note or "")
        assert (after.run, after.checkpoint) == (before.run, before.checkpoint)
        assert after.scores == before.scores
    assert {path.name: path.read_bytes() for path in before.run.iterdir()} == files


def test_a_path_continues_in_a_new_folder(shared_store: FeatureStore, tmp_path: Path) -> None:
    config = small_config(shared_store.path, tmp_path)
    whole = train(config)
    middle = whole.run / "checkpoint-002.safetensors"
    again = train(config, resume=middle)
    assert again.run.name == "easy-vqa-2"
    assert same_tensors(whole.checkpoint, again.checkpoint)
    assert again.best_checkpoint.exists()


def test_an_epoch_that_was_not_scored_is_scored_on_resuming(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    def stop(told: Progress) -> None:
        if told.stage == "evaluate" and told.epoch == 2:
            raise KeyboardInterrupt

    config = small_config(shared_store.path, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(config, stop)
    newest = load_checkpoint(tmp_path / "easy-vqa")
    assert (newest.epoch, newest.history[1]["scores"]) == (2, None)
    resumed = train(config, resume="auto")
    assert all(one["scores"] for one in resumed.history)


def test_another_recipe_cannot_be_resumed(shared_store: FeatureStore, tmp_path: Path) -> None:
    train(small_config(shared_store.path, tmp_path, "schedule.epochs=1"))
    other = small_config(shared_store.path, tmp_path, "schedule.epochs=1", "optim.lr=0.1")
    with pytest.raises(CheckpointError, match=r"other settings: optim.lr 0.005 -> 0.1; resume"):
        train(other, resume="auto")
    longer = small_config(shared_store.path, tmp_path, "schedule.epochs=2")
    with pytest.raises(CheckpointError, match=r"epochs 1 -> 2; .*--set start_from=.*-001\.safet"):
        train(longer, resume="auto")
    allowed = ("schedule.epochs=1", "data.prefetch=2", "data.eval_batch_size=5", "log_steps=1")
    train(small_config(shared_store.path, tmp_path, *allowed), resume="auto")


def test_another_store_cannot_be_resumed_on(shared_store: FeatureStore, tmp_path: Path) -> None:
    train(small_config(shared_store.path, tmp_path, "schedule.epochs=1"))
    other = make_store(tmp_path / "other", StorePlan(seed=5))
    with pytest.raises(CheckpointError, match="going on would train on other data"):
        train(small_config(other.path, tmp_path, "schedule.epochs=1"), resume="auto")


def test_a_loss_that_is_not_finite_stops_the_run(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = small_config(shared_store.path, tmp_path, "optim.lr=1e30", "loss=bce-sum")
    with pytest.raises(TrarError, match=r"is (nan|inf) in epoch 1, step \d of 8: .*no checkp"):
        train(config)
    assert not checkpoints_in(tmp_path / "easy-vqa")


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"split": "train+val"}, r"training on train\+val includes val: nothing is scored"),
        ({}, "has no split val: nothing is scored on the way; add it"),
    ],
)
def test_without_a_split_to_score_nothing_is_scored_and_it_says_so(
    shared_store: FeatureStore, tmp_path: Path, settings: dict[str, str], note: str
) -> None:
    told: list[Progress] = []
    store = shared_store
    if not settings:
        only = StorePlan(images={"train": 20}, question_splits={"train": "train"})
        store = make_store(tmp_path / "no-val", only)
    config = small_config(store.path, tmp_path, "schedule.epochs=1", **settings)
    result = train(config, told.append)
    assert told[0].note is not None
    assert result.scores is None
    assert result.best_checkpoint == result.checkpoint
    assert re.search(note, told[0].note)


def test_a_split_without_answers_cannot_score_a_run(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="have no answers"):
        train(small_config(shared_store.path, tmp_path, split="test"))
    for begin in (train, dry_run):
        with pytest.raises(StoreError, match=r"eval_split is minival, .* has train, val, test; ch"):
            begin(small_config(shared_store.path, tmp_path, eval_split="minival"))
        with pytest.raises(StoreError, match="split test has no answers to score against"):
            begin(small_config(shared_store.path, tmp_path, eval_split="test"))
    assert not list(tmp_path.iterdir())


def test_nothing_that_can_be_learned_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "tiny", StorePlan(known_answers=("two",)))
    with pytest.raises(ConfigError, match="no question of train has an answer that is in the"):
        train(small_config(store.path, tmp_path / "runs"))


def test_a_model_that_the_store_cannot_feed_leaves_no_folder(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="orders"):
        train(small_config(shared_store.path, tmp_path, "model.orders=[0, 9]"))
    assert not list(tmp_path.iterdir())


def test_torch_threads_stay_as_they_are(shared_store: FeatureStore, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(small_config(shared_store.path, tmp_path, "schedule.epochs=1"))
    assert torch.get_num_threads() == before


def test_the_log_is_json_lines(shared_store: FeatureStore, tmp_path: Path) -> None:
    result = train(small_config(shared_store.path, tmp_path, "schedule.epochs=1"))
    for line in (result.run / "log.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)
    assert isinstance(load_checkpoint(result.run).config, TrainConfig)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    shared_store: FeatureStore, small_disk: Path
) -> None:
    config = small_config(shared_store.path, small_disk / "runs", "schedule.epochs=3")

    def fill_after_the_first_epoch(told: Progress) -> None:
        if told.stage == "epoch" and told.epoch == 1:
            fill(small_disk)

    with pytest.raises(DiskError, match="No space left on device; free some space"):
        train(config, fill_after_the_first_epoch)
    (run,) = (small_disk / "runs").iterdir()
    assert not list(run.glob("*.partial"))
    assert load_checkpoint(run).epoch == 1
    (small_disk / "ballast").unlink()
    assert load_checkpoint(train(config, resume="auto").checkpoint).epoch == 3


def test_hard_routing_resumes_to_the_same_bits(shared_store: FeatureStore, tmp_path: Path) -> None:
    """Its noise is a function of (seed, step) as well, and its temperature changes by epoch."""
    sets = ("schedule.epochs=3", "model.routing=hard", "temperature.policy=1", "model.dropout=0.1")
    whole = train(small_config(shared_store.path, tmp_path / "whole", *sets))
    config = small_config(shared_store.path, tmp_path / "parts", *sets)
    with pytest.raises(KeyboardInterrupt):
        train(config, Stop(2, 2, KeyboardInterrupt))
    parts = train(config, resume="auto")
    assert same_tensors(whole.checkpoint, parts.checkpoint)
    assert (
        load_file(parts.checkpoint)["model.temperature"]
        == load_file(whole.checkpoint)["model.temperature"]
    )
