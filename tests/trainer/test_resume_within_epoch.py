"""Killed at any step, a run goes on to the bits of one that was never stopped."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import small_config

from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.loop import train
from trar.trainer.progress import Progress
from trar.trainer.run_folder import newest_checkpoint, read_log

TIMES = ("seconds", "data_wait_share")
WITHIN = ("loop.checkpoint_steps=2", "loop.ema=0.9", "loop.eval_steps=5", "log_steps=3")
KILLS = 10


class KillAfter:
    """A report that kills its own process after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, told: Progress) -> None:
        if told.stage == "train":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(store: Path, runs: Path, sets: tuple[str, ...], steps: int) -> None:
    torch.set_num_threads(1)
    train(small_config(store, runs, *sets, run="mine"), KillAfter(steps), resume="auto")


def what_was_logged(run: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in line.items() if key not in TIMES} for line in read_log(run)
    ]


def test_ten_kills_at_random_steps_change_no_bit(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    undisturbed = train(small_config(shared_store.path, tmp_path / "a", *WITHIN))
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["trar.trainer.loop"])
    moments = random.Random(20211010)
    seen = set()
    for _ in range(KILLS):
        steps = moments.randint(1, 4)
        child = fresh.Process(
            target=train_and_die, args=(shared_store.path, tmp_path / "b", WITHIN, steps)
        )
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        newest = newest_checkpoint(tmp_path / "b/mine")
        seen.add(newest and newest.name)
    assert len(seen) > 3
    config = small_config(shared_store.path, tmp_path / "b", *WITHIN, run="mine")
    continued = train(config, resume="auto")
    one, other = load_file(undisturbed.checkpoint), load_file(continued.checkpoint)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert what_was_logged(continued.run) == what_was_logged(undisturbed.run)
    assert continued.history == undisturbed.history


def test_a_checkpoint_within_an_epoch_says_where_it_stands(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(told: Progress) -> None:
        if told.stage == "train" and (told.epoch, told.step) == (2, 6):
            raise StopError

    config = small_config(shared_store.path, tmp_path, *WITHIN)
    with pytest.raises(StopError):
        train(config, stop)
    newest = newest_checkpoint(tmp_path / "easy-vqa")
    assert newest is not None
    assert newest.name == "checkpoint-001-step-000004.safetensors"
    checkpoint = load_checkpoint(tmp_path / "easy-vqa")
    assert (checkpoint.epoch, checkpoint.epoch_step, checkpoint.step) == (1, 4, 12)
    assert len(checkpoint.losses()) == 4
    told: list[Progress] = []
    train(config, told.append, resume="auto")
    assert told[0].note is not None
    assert "continuing after step 4 of epoch 2 of 3" in told[0].note
    assert not list((tmp_path / "easy-vqa").glob("*-step-*"))
