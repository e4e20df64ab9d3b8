"""Processes that torchrun starts on this machine, which train one small model together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from training import SMALL

# Settings with which several processes have the losses of one.
EXACT = (
    "model.dropout=0.0",
    "log_steps=1",
    "schedule.epochs=2",
    "schedule.decay_epochs=[1]",
    # attention does not depend on the bias of its keys: the gradient is rounding alone, which Adam
    # with a tiny eps turns into whole steps
    "optim.eps=1e-3",
)
TRAR = str(Path(sys.executable).with_name("trar"))
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def command(ranks: int, store: Path, runs: Path, *options: str) -> list[str]:
    """``trar train`` of the small easy-vqa model in so many processes."""
    sets = [word for one in (*SMALL, *EXACT) for word in ("--set", one)]
    train_command = ["train", "--store", str(store), "--runs", str(runs), "--preset", "easy-vqa"]
    own = [str(ranks), "--no-python", "--", TRAR]
    return [*LAUNCHER, *own, *train_command, "--device", "cpu", *sets, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(ranks: int, store: Path, runs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(ranks, store, runs, *options),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
