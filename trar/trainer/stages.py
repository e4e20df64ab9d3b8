"""Recipes of two stages: the same settings on other questions for the first epochs.

Each stage is a run with a folder of its own; the second starts from the last checkpoint of the
first (``start_from``), so that both resume as any run does.
"""

from __future__ import annotations

from trar.trainer.config import TrainConfig
from trar.trainer.loop import TrainResult, train
from trar.trainer.preset_files import FirstStage, read_preset
from trar.trainer.progress import Report
from trar.trainer.run_folder import newest_checkpoint, newest_run


def train_stages(
    config: TrainConfig, report: Report | None = None, *, resume: str | None = None
) -> TrainResult:
    """``train``, with the first stage before it where the preset has one (``continue_from``).

    The first stage is the run ``<name>-first``. It is left out where ``start_from`` names the
    checkpoint to go on from, where ``resume`` names one, and where ``resume="auto"`` finds the
    second stage begun.

    Raises:
        TrarError, KeyboardInterrupt: as ``train``.
    """
    first = read_preset(config.preset).continue_from
    if first is None or config.start_from or resume not in (None, "auto"):
        return train(config, report, resume=resume)
    begun = config.runs / config.run if config.run else newest_run(config.runs, config.run_name)
    if resume and begun and begun.is_dir() and newest_checkpoint(begun):
        return train(config, report, resume=resume)
    try:
        before = train(_first_config(config, first, resume), report, resume=resume)
    except KeyboardInterrupt as stop:  # its own advice names the first stage's run
        stop.__notes__ = [
            "Stopped in the first stage; continue with the same command and --resume auto"
        ]
        raise
    later = config.model_copy(update={"start_from": before.checkpoint})
    return train(later, report, resume=resume)


def _first_config(config: TrainConfig, first: FirstStage, resume: str | None) -> TrainConfig:
    name = f"{config.run_name}-first"
    newest = newest_run(config.runs, name) if resume else None
    return config.model_copy(
        update={
            "split": first.split,
            "run": newest.name if newest else name,
            "schedule": config.schedule.model_copy(update={"epochs": first.epochs}),
        }
    )
