"""Disk space for the checkpoints of a run, asked for before any work starts. Sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trar.features.reader import FeatureStore
from trar.fileio import need_space
from trar.trainer.config import TrainConfig
from trar.trainer.memory_budget import parameter_count
from trar.trainer.new_model import whole_model_config

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class CheckpointRoom:
    """``each`` checkpoint, without the words and answers in it, and how many (``count``) there are
    at a time, the one being written included."""

    each: int
    count: int


def checkpoint_room(config: TrainConfig, parameters: int) -> CheckpointRoom:
    """What the checkpoints of a run of a model with so many ``parameters`` take."""
    loop = config.loop
    copies = 3 + (loop.ema is not None)  # weights, two moments, an average
    kept = min(loop.keep_last + 1, config.schedule.epochs)  # the last ones and the best
    within = bool(loop.checkpoint_steps)  # and one within an epoch
    return CheckpointRoom(copies * parameters * _FLOAT32_BYTES, kept + within + 1)


def need_room(config: TrainConfig, store: FeatureStore, run: Path | None) -> None:
    """Refuse where the disk cannot hold the checkpoints that are still to come; ``run`` is the
    folder of a run that goes on, None one that is yet to be made.

    Raises:
        DiskError: with what is needed and what is free.
    """
    room = checkpoint_room(config, parameter_count(whole_model_config(config, store)))
    there = len(list(run.glob("checkpoint-*.safetensors"))) if run else 0
    missing = max(1, room.count - there)
    files = "checkpoint" if missing == 1 else "checkpoints"
    need_space(run or config.runs, missing * room.each, f"room for {missing} {files}")
