"""Run by torchrun: trains every system for an epoch, one after the other, in the folder given."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from systems import EVERYTHING, SYSTEMS, small_run

from trar.trainer.loop import train

EXACT = ("model.dropout=0.0", "optim.eps=1e-3", "schedule.epochs=1", "log_steps=1")

if __name__ == "__main__":
    torch.set_num_threads(1)
    store, runs = Path(sys.argv[1]), Path(sys.argv[2])
    for name in SYSTEMS:
        train(small_run(name, store, runs, *EXACT, *EVERYTHING.get(name, ()), run=name))
