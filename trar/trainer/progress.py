"""What a run tells while it goes on: progress for the user, losses for the log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trar.errors import TrarError
from trar.trainer.metrics import VqaScore
from trar.trainer.run_folder import append_log


@dataclass(frozen=True)
class Progress:
    """One thing to tell the user.

    ``stage`` "note" has a ``note`` and nothing else of interest; "train" comes after each step,
    "evaluate" after each scored batch (``step`` of ``steps`` counts questions there), "epoch" when
    an epoch is finished, with ``scores`` if it was scored. ``epoch`` counts from 1; ``loss`` is the
    latest mean per question, None before the first is known; ``eta_s`` is for the whole run;
    ``data_wait_share`` is the share of this epoch's time spent waiting for data.
    """

    stage: Literal["note", "train", "evaluate", "epoch"]
    run: Path
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    learning_rate: float = 0.0
    temperature: float = 0.0
    samples_per_s: float = 0.0
    eta_s: float = 0.0
    data_wait_share: float = 0.0
    scores: VqaScore | None = None
    note: str | None = None


Report = Callable[[Progress], None]


class Losses:
    """The losses of an epoch, kept on the device until somebody looks."""

    def __init__(self, run: Path, told: Progress, batch_size: int, questions: int) -> None:
        self.latest: float | None = None
        self.samples = 0
        self._run, self._told = run, told
        self._batch_size, self._questions = batch_size, questions
        self._waiting: list[Tensor] = []
        self._seen: list[float] = []
        self._logged = 0

    @property
    def mean(self) -> float:
        """Mean loss per question of what was looked at."""
        return math.fsum(self._seen) / self.samples

    def add(self, loss: Tensor) -> None:
        """Take the summed loss of the next step."""
        self._waiting.append(loss)
        self.samples = min(self.samples + self._batch_size, self._questions)

    def look(self, *, log: bool) -> None:
        """Fetch what is waiting; a loss that is not finite ends the run.

        Raises:
            TrarError: naming epoch and step.
        """
        values = torch.stack(self._waiting).tolist()
        self._waiting.clear()
        for value in values:
            self._seen.append(value)
            if not math.isfinite(value):
                raise TrarError(
                    f"{self._run}: the loss is {value} in epoch {self._told.epoch}, step "
                    f"{len(self._seen)} of {self._told.steps}: training has diverged; use a lower "
                    f"learning rate (--set optim.lr={self._told.learning_rate / 3:.1g}) or a "
                    "longer warm-up; finished epochs are in the run's folder"
                )
        before = (len(self._seen) - 1) * self._batch_size
        self.latest = self._seen[-1] / (self.samples - before)
        if log:
            since = self._logged * self._batch_size
            line = {
                "event": "steps",
                "epoch": self._told.epoch,
                "step": len(self._seen),
                "steps": self._told.steps,
                "loss": math.fsum(self._seen[self._logged :]) / (self.samples - since),
                "learning_rate": self._told.learning_rate,
                "temperature": self._told.temperature,
            }
            append_log(self._run, line)
            self._logged = len(self._seen)


class Rate:
    """How long the rest of the run takes, at the speed of this call so far."""

    def __init__(self, steps: int) -> None:
        self._begun, self._done, self._steps = time.perf_counter(), 0, steps

    def step(self) -> None:
        self._done += 1

    def eta_s(self) -> float:
        elapsed = time.perf_counter() - self._begun
        return elapsed / self._done * (self._steps - self._done)
