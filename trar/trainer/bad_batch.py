"""The batch after which a loss was no number, as a file for inspection."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from trar.trainer.loader import Loader
from trar.trainer.tensor_file import write_tensors


def bad_batch_path(run: Path, epoch: int, step: int) -> Path:
    """Where the batch of a step goes; both count from 1."""
    return run / f"bad-batch-epoch-{epoch}-step-{step}.safetensors"


def write_bad_batch(path: Path, loader: Loader, epoch: int, step: int) -> None:
    """Read the batch of a step (both from 1) once more and keep it: every tensor by its name."""
    batch = loader.questions.batch(loader.order.rows(epoch - 1, step - 1))
    tensors = {
        field.name: value
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    write_tensors(path, tensors, {"epoch": str(epoch), "step": str(step)})
