"""Where a run begins: in a new folder, or after the newest checkpoint of one that was stopped."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trar.errors import CheckpointError, ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import Checkpoint, load_checkpoint
from trar.trainer.checkpoint_room import need_room
from trar.trainer.config import TrainConfig
from trar.trainer.run_folder import create_run, newest_checkpoint, newest_run
from trar.trainer.store_check import check_store

_RECIPE = ("split", "seed", "model", "data", "loss", "optim", "schedule", "temperature", "loop")
_FREE = {
    "data.prefetch",
    "data.eval_batch_size",
    "data.threads",
    "data.verify_reads",
    "data.max_ram",
    "loop.early_stop",
    "loop.keep_last",
    "loop.eval_epochs",
    "loop.eval_steps",
    "loop.checkpoint_steps",
    "loop.tensorboard",
}
_NEW_RUN = {"split", "schedule.epochs"}  # what a run that starts from another's weights may change


@dataclass(frozen=True)
class Begin:
    """The run's folder, the checkpoint it goes on from (None: from nothing), and what to tell."""

    run: Path
    checkpoint: Checkpoint | None
    note: str | None


def begin_run(config: TrainConfig, store: FeatureStore, resume: str | Path | None) -> Begin:
    """Choose or make the run's folder; ``resume`` is that of ``loop.train``.

    Raises:
        CheckpointError: a damaged checkpoint, or one of another recipe or store.
        DiskError: the folder cannot be made, or its disk has no room for the checkpoints.
    """
    if resume is None:
        return _start(None, config, store, None)
    if str(resume) != "auto":
        return _continue(load_checkpoint(resume), config, store, None)
    run = config.runs / config.run if config.run else newest_run(config.runs, config.run_name)
    if run is None or not run.is_dir():
        return _start(None, config, store, "no such run yet, starting it")
    if newest_checkpoint(run) is None:
        return _start(run, config, store, "no checkpoint yet, starting from the beginning")
    return _continue(load_checkpoint(run), config, store, run)


def _start(run: Path | None, config: TrainConfig, store: FeatureStore, note: str | None) -> Begin:
    """Begin from nothing, or after the epochs of another run, or with the imported weights, that
    ``start_from`` names; in ``run``, or in a new folder where that is None."""
    before = None
    if config.start_from is not None:
        before = load_checkpoint(config.start_from)
        _check_same_recipe(before, config, store, free=_NEW_RUN)
        epochs = config.schedule.epochs
        if before.epoch_step or before.epoch >= epochs:
            raise CheckpointError(
                f"{before.path}: written after {before.epoch} epochs and {before.epoch_step} "
                f"steps, expected the end of an epoch before the last of {epochs}; choose another "
                "checkpoint for start_from, or set schedule.epochs"
            )
        if config.eval_split in before.trained_on:
            raise ConfigError(
                f"{before.path}: trained on {'+'.join(before.trained_on)}, so {config.eval_split} "
                "cannot be scored on the way; say --set eval_split=null"
            )
        note = f"going on after epoch {before.epoch} of {before.path}, now on {config.split}"
        if before.epoch == 0:  # imported: pre-trained weights
            note = f"beginning with the weights of {before.path}"
    run = _folder(run, config, store)
    return Begin(run, before, note and f"{run}: {note}")


def _continue(
    checkpoint: Checkpoint, config: TrainConfig, store: FeatureStore, run: Path | None
) -> Begin:
    """Go on after ``checkpoint`` in ``run``, or in a new folder where that is None."""
    _check_same_recipe(checkpoint, config, store)
    epochs = config.schedule.epochs
    if checkpoint.epoch >= epochs:
        note = f"{checkpoint.path}: finished already, {checkpoint.epoch} of {epochs} epochs"
        return Begin(checkpoint.path.parent, checkpoint, note)
    run = _folder(run, config, store)
    at = f"epoch {checkpoint.epoch} of {epochs}"
    if checkpoint.epoch_step:
        at = f"step {checkpoint.epoch_step:,} of epoch {checkpoint.epoch + 1} of {epochs}"
    note = f"{run}: continuing after {at} from {checkpoint.path}"
    return Begin(run, checkpoint, note)


def _folder(run: Path | None, config: TrainConfig, store: FeatureStore) -> Path:
    """``run``, or a new folder where that is None, once the disk has room for its checkpoints."""
    need_room(config, store, run)
    return run or create_run(config.runs, config.run_name)


def _check_same_recipe(
    checkpoint: Checkpoint, config: TrainConfig, store: FeatureStore, free: Container[str] = ()
) -> None:
    check_store(checkpoint, store, same_store=True)
    old, new = (_recipe(one) for one in (checkpoint.config, config))
    changed = [name for name in new if name not in free and old[name] != new[name]]
    if changed:
        way = "resume with the settings it began with, or start a new run without --resume"
        if _NEW_RUN.issuperset(changed):
            way += f" that goes on from these weights: --set start_from={checkpoint.path}"
        raise CheckpointError(
            f"{checkpoint.path}: the run began with other settings: "
            f"{', '.join(f'{name} {old[name]} -> {new[name]}' for name in changed)}; {way}"
        )


def _recipe(config: TrainConfig) -> dict[str, Any]:
    """Every setting that the weights depend on, by its dotted name."""
    flat: dict[str, Any] = {}
    for name in _RECIPE:
        value = getattr(config, name)
        if hasattr(value, "model_dump"):
            flat |= {f"{name}.{inner}": one for inner, one in value.model_dump().items()}
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if name not in _FREE}


def how_to_resume(run: Path, config: TrainConfig) -> str:
    """What to tell somebody who stopped a run."""
    newest = newest_checkpoint(run)
    if newest is None:
        return f"{run}: stopped before the first checkpoint; nothing to continue from"
    return (
        f"{run}: the newest checkpoint is {newest.name} (of {config.schedule.epochs} epochs); "
        f"continue with the same command and --run {run.name} --resume auto"
    )
