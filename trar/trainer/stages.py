"""Recipes of two stages: the same settings on other questions for the first epochs.

Each stage is a run with a folder of its own, ``<name>-first`` and ``<name>``; the second starts
from the last checkpoint of the first (``start_from``), so that both resume as any run does.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import torch

from trar.errors import ConfigError
from trar.trainer.config import TrainConfig, split_names
from trar.trainer.distributed import Ranks
from trar.trainer.loop import TrainResult, train
from trar.trainer.preset_files import FirstStage, read_preset
from trar.trainer.progress import Report
from trar.trainer.run_folder import newest_checkpoint
from trar.trainer.training_data import open_store, training_loader


def train_stages(
    config: TrainConfig, report: Report | None = None, *, resume: str | None = None
) -> TrainResult:
    """``train``, with the first stage before it where the preset has one (``continue_from``).

    The first stage is left out where ``start_from`` names the checkpoint to go on from, where
    ``resume`` names one, and where ``resume="auto"`` finds the second stage begun.

    Raises:
        TrarError, KeyboardInterrupt: as ``train``; what the second stage would refuse is refused
            before the first begins.
    """
    first = read_preset(config.preset).continue_from
    if first is None or config.start_from or resume not in (None, "auto"):
        return train(config, report, resume=resume)
    config = config.model_copy(update={"run": _name(config, resume)})
    begun = config.runs / config.run_name
    if resume and begun.is_dir() and newest_checkpoint(begun):
        return train(config, report, resume=resume)
    check_stages(config)
    try:
        before = train(_first_config(config, first), report, resume=resume)
    except KeyboardInterrupt as stop:  # its own advice names the first stage's run
        stop.__notes__ = [
            "Stopped in the first stage; continue with the same command and "
            f"--run {config.run_name} --resume auto"
        ]
        raise
    later = config.model_copy(update={"start_from": before.checkpoint})
    result = train(later, report, resume=resume)
    return dataclasses.replace(result, seconds=before.seconds + result.seconds)


def stage_configs(config: TrainConfig) -> list[TrainConfig]:
    """The config of each stage that there is still to train; ``config`` is the last one's."""
    first = read_preset(config.preset).continue_from
    if first is None or config.start_from:
        return [config]
    return [_first_config(config, first), config]


def check_stages(config: TrainConfig) -> None:
    """Refuse now what the second stage of ``config`` would refuse when the first is trained.

    Raises:
        ConfigError: no epochs are left for it, or it would score what the first is trained on.
        StoreError: the store has not the questions of a stage.
    """
    first = read_preset(config.preset).continue_from
    if first is None or config.start_from:
        return
    epochs = config.schedule.epochs
    if epochs <= first.epochs:
        raise ConfigError(
            f"schedule.epochs is {epochs}, but the first of the two stages of {config.preset} "
            f"takes {first.epochs}; set more epochs, or choose a preset of one stage"
        )
    if config.eval_split in split_names(first.split):
        raise ConfigError(
            f"eval_split is {config.eval_split}, but the first stage of {config.preset} is trained "
            f"on {first.split}: nothing of it can be scored on the way; say --set eval_split=null"
        )
    for stage in stage_configs(config):
        training_loader(stage, open_store(stage), device=torch.device("cpu"), ranks=Ranks())


def _name(config: TrainConfig, resume: str | None) -> str:
    """What the second stage's run is called: as the newest one that is resumed, else a name that
    neither stage has taken."""
    if resume and config.run:
        return config.run
    number = _newest_number(config.runs, config.run_name) + (not resume)
    return config.run_name if number < 2 else f"{config.run_name}-{number}"


def _newest_number(runs: Path, name: str) -> int:
    """The highest number of a run ``name`` of which a stage has a folder; 0 where there is none."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?(?:-first)?")
    folders = runs.iterdir() if runs.is_dir() else ()
    found = (pattern.fullmatch(path.name) for path in folders)
    return max((int(match[1] or 1) for match in found if match), default=0)


def _first_config(config: TrainConfig, first: FirstStage) -> TrainConfig:
    return config.model_copy(
        update={
            "split": first.split,
            "run": f"{config.run_name}-first",
            "schedule": config.schedule.model_copy(update={"epochs": first.epochs}),
        }
    )
