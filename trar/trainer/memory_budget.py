"""Keeps a run to a memory limit: reads less far ahead and mixes in smaller windows, or refuses.

Counted for each process: the loader's bound, a second ring while an epoch is scored, the model with
its gradients and Adam's two moments, and what Python and torch take by themselves. Not counted:
activations (they go with ``data.batch_size / data.accumulation``) and mapped files, which are page
cache. All sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from trar.errors import ConfigError
from trar.features.local_sources import available_memory
from trar.features.schema import StoreMeta
from trar.trainer.config import TrainConfig
from trar.trainer.evaluator import PREFETCH
from trar.trainer.memory_bound import MemoryBound, image_bytes, memory_bound, size_text
from trar.trainer.models import build_model
from trar.trainer.run_settings import DataSettings

PROCESS_BYTES = 512 << 20  # measured: 0.2 to 0.4 GiB with torch imported and a store open
_ADAM_COPIES = 4  # weights, gradients and two moments, float32


@dataclass(frozen=True)
class MemoryPlan:
    """What one process of a run takes: ``loader``, the ``scoring`` ring, the ``model`` with
    gradients and moments, and the ``process`` itself."""

    loader: MemoryBound
    scoring: int
    model: int
    process: int = PROCESS_BYTES

    @property
    def total(self) -> int:
        """Bytes of memory at most, without activations."""
        return self.loader.total + self.scoring + self.model + self.process

    def describe(self) -> str:
        """All that is counted, for people."""
        return (
            f"loader {size_text(self.loader.total)}, scoring {size_text(self.scoring)}, model with "
            f"gradients and moments {size_text(self.model)}, Python and torch "
            f"{size_text(self.process)}"
        )


def parameter_count(model: Any) -> int:
    """How many numbers are learned in the model that a config describes."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(model).parameters())


def training_bytes(model: Any) -> int:
    """Bytes of the weights, gradients and moments of the model that a config describes."""
    return parameter_count(model) * 4 * _ADAM_COPIES


def within_memory(
    config: TrainConfig, meta: StoreMeta, *, model_bytes: int, ranks: int = 1
) -> tuple[TrainConfig, MemoryPlan]:
    """``config`` changed so that each of ``ranks`` processes keeps to ``data.max_ram``.

    The window of a block order is made smaller first, then fewer batches are read ahead. The same
    settings and store give the same answer, so a run can be resumed.

    Raises:
        ConfigError: it does not fit; the message says what is needed and what can be changed.
    """
    data = config.data
    largest = min(data.window, _feature_bytes(config, meta))
    for prefetch in range(data.prefetch, 0, -1):
        plan = _plan(config, meta, prefetch, largest, model_bytes, ranks)
        if data.max_ram is None or plan.total <= data.max_ram:
            return _changed(config, prefetch, data.window), plan
        window = largest - (plan.total - data.max_ram + 1) // 2
        if data.order == "block" and window >= _smallest_window(data, meta):
            plan = _plan(config, meta, prefetch, window, model_bytes, ranks)
            return _changed(config, prefetch, window), plan
    assert data.max_ram is not None
    least = _plan(config, meta, 1, _smallest_window(data, meta), model_bytes, ranks)
    raise ConfigError(
        f"--max-ram {size_text(data.max_ram)}: this run needs {size_text(least.total)} at the "
        f"least ({least.describe()}; activations come on top); give it that much, or use a smaller "
        "data.batch_size, data.eval_batch_size or model"
    )


def need_memory(plan: MemoryPlan, device: torch.device, *, processes: int = 1) -> None:
    """Refuse a run that this machine has no memory for, as far as it says what is available;
    ``processes`` of them run on it. A model on a GPU is not in the machine's memory.

    Raises:
        ConfigError: what is needed and available, and what to change.
    """
    counted = plan.loader.total + plan.scoring + (plan.model if device.type == "cpu" else 0)
    available = available_memory()
    if available is not None and available < processes * counted:
        each = f", {processes} processes of {size_text(counted)}" if processes > 1 else ""
        raise ConfigError(
            f"this machine has {size_text(available)} of memory available, the run needs "
            f"{size_text(processes * counted)} at the least{each} ({plan.describe()}; activations "
            "come on top); end other programs, or use a smaller data.batch_size, data.window, "
            "data.prefetch or model"
        )


def memory_note(asked: TrainConfig, config: TrainConfig, plan: MemoryPlan) -> str:
    """What to tell before a run begins: the loader's bound, and what a limit has changed."""
    note = plan.loader.describe()
    if config.data.max_ram is not None:
        limit = size_text(config.data.max_ram)
        note += f"; {size_text(plan.total)} of --max-ram {limit}: {plan.describe()}"
    if config.data != asked.data:
        window = f" and data.window {size_text(config.data.window)}"
        note += f"; data.prefetch is now {config.data.prefetch}" + window * (
            config.data.window != asked.data.window
        )
    return note


def _plan(
    config: TrainConfig, meta: StoreMeta, prefetch: int, window: int, model_bytes: int, ranks: int
) -> MemoryPlan:
    data = config.data
    questions = sum(
        meta.question_splits[split].questions
        for split in config.splits
        if split in meta.question_splits
    )
    buffers = 1 + (prefetch if data.threads else 0)
    loader = memory_bound(
        meta,
        questions=questions,
        batch_size=-(-data.batch_size // ranks),
        buffers=buffers,
        threads=min(data.threads, buffers),
        window_bytes=window if data.order == "block" else 0,
    )
    scoring = memory_bound(
        meta,
        questions=0,
        batch_size=data.eval_batch_size,
        buffers=1 + PREFETCH,
        threads=1,
        window_bytes=0,
    )
    return MemoryPlan(loader, scoring.ring if config.eval_split else 0, model_bytes)


def _feature_bytes(config: TrainConfig, meta: StoreMeta) -> int:
    """The features of all images that the run may ask for."""
    asked = [meta.question_splits[name] for name in config.splits if name in meta.question_splits]
    names = {name for split in asked for name in split.image_splits}
    return sum(meta.image_splits[name].images for name in names) * image_bytes(meta)


def _smallest_window(data: DataSettings, meta: StoreMeta) -> int:
    return 2 * data.batch_size * image_bytes(meta)


def _changed(config: TrainConfig, prefetch: int, window: int) -> TrainConfig:
    data = config.data.model_copy(update={"prefetch": prefetch, "window": window})
    return config.model_copy(update={"data": data})
