"""Training on a feature store: from questions and features to a checkpoint and a score."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trar.trainer.checkpoint import Checkpoint, load_checkpoint
    from trar.trainer.config import TrainConfig, build_config
    from trar.trainer.evaluator import evaluate, predict
    from trar.trainer.loop import TrainResult, train
    from trar.trainer.progress import Progress
    from trar.trainer.scoring import blind_baseline
    from trar.trainer.torch_datasets import StoreBatches, StoreDataset

__all__ = [
    "Checkpoint",
    "Progress",
    "StoreBatches",
    "StoreDataset",
    "TrainConfig",
    "TrainResult",
    "blind_baseline",
    "build_config",
    "evaluate",
    "load_checkpoint",
    "predict",
    "train",
]

_HOME = {
    "Checkpoint": "checkpoint",
    "Progress": "progress",
    "StoreBatches": "torch_datasets",
    "StoreDataset": "torch_datasets",
    "TrainConfig": "config",
    "TrainResult": "loop",
    "blind_baseline": "scoring",
    "build_config": "config",
    "evaluate": "evaluator",
    "load_checkpoint": "checkpoint",
    "predict": "evaluator",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    """Load a name's module on first use, so that reading a config does not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"trar.trainer.{_HOME[name]}"), name)
