"""Where a run begins: in a new folder, or after the newest checkpoint of one that was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trar.errors import CheckpointError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import Checkpoint, load_checkpoint
from trar.trainer.config import TrainConfig
from trar.trainer.run_folder import checkpoints_in, create_run, newest_run

_RECIPE = ("split", "seed", "model", "data", "loss", "optim", "schedule", "temperature")
_FREE = {"data.prefetch", "data.eval_batch_size"}


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
        DiskError: the folder cannot be made.
    """
    name = config.run or config.preset
    if resume is None:
        return Begin(create_run(config.runs, name), None, None)
    if str(resume) != "auto":
        return _continue(load_checkpoint(resume), config, store, None)
    run = config.runs / config.run if config.run else newest_run(config.runs, name)
    if run is None or not run.is_dir():
        run = create_run(config.runs, name)
        return Begin(run, None, f"{run}: no such run yet, starting it")
    if not checkpoints_in(run):
        return Begin(run, None, f"{run}: no checkpoint yet, starting from the beginning")
    return _continue(load_checkpoint(run), config, store, run)


def _continue(
    checkpoint: Checkpoint, config: TrainConfig, store: FeatureStore, run: Path | None
) -> Begin:
    """Go on after ``checkpoint`` in ``run``, or in a new folder where that is None."""
    _check_same_recipe(checkpoint, config, store)
    epochs = config.schedule.epochs
    if checkpoint.epoch >= epochs:
        note = f"{checkpoint.path}: finished already, {checkpoint.epoch} of {epochs} epochs"
        return Begin(checkpoint.path.parent, checkpoint, note)
    run = run or create_run(config.runs, config.run or config.preset)
    note = f"{run}: continuing after epoch {checkpoint.epoch} of {epochs} from {checkpoint.path}"
    return Begin(run, checkpoint, note)


def _check_same_recipe(checkpoint: Checkpoint, config: TrainConfig, store: FeatureStore) -> None:
    checkpoint.check_store(store, same_store=True)
    old, new = (_recipe(one) for one in (checkpoint.config, config))
    changed = [f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name]]
    if changed:
        raise CheckpointError(
            f"{checkpoint.path}: the run began with other settings: {', '.join(changed)}; resume "
            "with the settings it began with, or start a new run without --resume"
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
    found = checkpoints_in(run)
    if not found:
        return f"{run}: stopped before the first epoch was finished; nothing to continue from"
    return (
        f"{run}: {max(found)} of {config.schedule.epochs} epochs are finished; continue with the "
        f"same command and --run {run.name} --resume auto"
    )
