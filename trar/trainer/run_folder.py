"""The folder of one training run: its name, its config, its log and which checkpoints stay.

``config.yaml`` (effective config, versions, store), ``log.jsonl`` (a line per epoch and per
``log_steps`` steps), ``checkpoint-<finished epochs>.safetensors`` and, within an epoch,
``checkpoint-<finished epochs>-step-<steps>.safetensors``. A folder is never overwritten: a new run
of the same name gets the next free number.
"""

from __future__ import annotations

import itertools
import json
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from trar import __version__
from trar.features.reader import FeatureStore
from trar.fileio import atomic_write, disk_errors
from trar.trainer.config import TrainConfig

LOG_FILE = "log.jsonl"
CONFIG_FILE = "config.yaml"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.safetensors")
_WITHIN = re.compile(r"checkpoint-(\d+)-step-(\d+)\.safetensors")


def create_run(runs: Path, name: str) -> Path:
    """A new folder ``runs/name``, or ``name-2``, ``name-3``, … where that one exists.

    Raises:
        DiskError: the folder cannot be made.
    """
    with disk_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = runs / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    raise AssertionError("itertools.count ends")


def newest_run(runs: Path, name: str) -> Path | None:
    """The folder of the highest number that ``create_run(runs, name)`` has made, if any."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    if not runs.is_dir():
        return None
    named = ((pattern.fullmatch(path.name), path) for path in runs.iterdir() if path.is_dir())
    numbered = [(int(match[1] or 1), path) for match, path in named if match]
    return max(numbered, default=(0, None))[1]


def write_config(folder: Path, config: TrainConfig, store: FeatureStore) -> None:
    """Put the effective config, the versions and the store's identity beside the run."""
    said = {
        "config": config.model_dump(mode="json"),
        "versions": {
            "trar": __version__,
            "torch": str(torch.__version__),  # a TorchVersion, which YAML refuses
            "numpy": np.__version__,
            "python": platform.python_version(),
            "torch_threads": torch.get_num_threads(),
        },
        "store": {
            "path": str(store.path.resolve()),
            "dataset": store.dataset,
            "fingerprint": store.meta.fingerprint,
        },
    }
    with atomic_write(folder / CONFIG_FILE) as file:
        file.write(yaml.safe_dump(said, sort_keys=False, allow_unicode=True).encode())


def append_log(folder: Path, line: dict[str, Any]) -> None:
    """Add one line to the log."""
    with disk_errors(folder), (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut short is left out."""
    try:
        text = (folder / LOG_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


def rewind_log(folder: Path, epoch: int, epoch_step: int = 0) -> None:
    """Drop what was logged after ``epoch`` finished epochs and ``epoch_step`` steps of the next:
    it is about to happen again."""

    def happened(line: dict[str, Any]) -> bool:
        if line["epoch"] <= epoch:
            return True
        return line["epoch"] == epoch + 1 and "step" in line and line["step"] <= epoch_step

    with atomic_write(folder / LOG_FILE) as file:
        file.writelines(
            json.dumps(line, ensure_ascii=False).encode() + b"\n"
            for line in read_log(folder)
            if happened(line)
        )


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The checkpoints of a run folder by the number of finished epochs."""
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in named if match}


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a run folder that most steps are finished in, if there is one."""
    found = {(epoch, 0): path for epoch, path in checkpoints_in(folder).items()}
    found |= _within_epochs(folder)
    return found[max(found)] if found else None


def checkpoint_path(folder: Path, epoch: int, epoch_step: int = 0) -> Path:
    """Where the checkpoint after ``epoch`` finished epochs, and ``epoch_step`` steps of the next,
    lies."""
    within = f"-step-{epoch_step:06}" if epoch_step else ""
    return folder / f"checkpoint-{epoch:03}{within}.safetensors"


def drop_checkpoints(folder: Path, keep: Iterable[int]) -> None:
    """Delete the run's checkpoints except those after ``keep`` finished epochs, and those within
    an epoch that is finished."""
    kept, whole = set(keep), checkpoints_in(folder)
    with disk_errors(folder):
        for epoch, path in whole.items():
            if epoch not in kept:
                path.unlink()
        for (epoch, _), path in _within_epochs(folder).items():
            if epoch < max(whole, default=0):
                path.unlink()


def drop_within_epoch(folder: Path, *, but: Path) -> None:
    """Delete the checkpoints within epochs except the newest, ``but``."""
    with disk_errors(folder):
        for path in _within_epochs(folder).values():
            if path != but:
                path.unlink()


def _within_epochs(folder: Path) -> dict[tuple[int, int], Path]:
    named = ((_WITHIN.fullmatch(path.name), path) for path in folder.iterdir())
    return {(int(match[1]), int(match[2])): path for match, path in named if match}
