"""What a run tells while it goes on: progress for the user, losses for the log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trar.errors import TrarError
from trar.trainer.metrics import VqaScore
from trar.trainer.run_log import RunLog


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


class NotFiniteError(TrarError):
    """The loss of ``step`` (from 1, of its epoch) is infinite or no number."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Losses:
    """The losses of an epoch, kept on the device until somebody looks. ``seen`` are those of the
    steps that an earlier process finished, of which every ``log_steps`` are logged. ``told`` is
    what the loop last said of itself."""

    def __init__(
        self,
        log: RunLog,
        told: Progress,
        *,
        batch_size: int,
        questions: int,
        log_steps: int,
        seen: Sequence[float] = (),
    ) -> None:
        self.latest: float | None = None
        self.seen = list(seen)
        self._log, self.told = log, told
        self._batch_size, self._questions = batch_size, questions
        self._waiting: list[Tensor] = []
        self._logged = len(seen) - len(seen) % log_steps

    @property
    def mean(self) -> float:
        """Mean loss per question of what was looked at."""
        return math.fsum(self.seen) / self._samples(len(self.seen))

    def add(self, loss: Tensor) -> None:
        """Take the summed loss of the next step."""
        self._waiting.append(loss)

    def look(self, *, log: bool) -> None:
        """Fetch what is waiting; a loss that is not finite ends the run.

        Raises:
            NotFiniteError: naming epoch and step.
        """
        values = torch.stack(self._waiting).tolist() if self._waiting else []
        self._waiting.clear()
        for value in values:
            self.seen.append(value)
            if not math.isfinite(value):
                raise NotFiniteError(
                    len(self.seen),
                    f"the loss is {value} in epoch {self.told.epoch}, step {len(self.seen)} of "
                    f"{self.told.steps}: training has diverged; use a lower learning rate "
                    f"(--set optim.lr={self.told.learning_rate / 3:.1g}) or a longer warm-up",
                )
        if not self.seen:
            return
        steps = len(self.seen)
        self.latest = self.seen[-1] / (self._samples(steps) - self._samples(steps - 1))
        if log:
            line = {
                "event": "steps",
                "epoch": self.told.epoch,
                "step": steps,
                "steps": self.told.steps,
                "loss": math.fsum(self.seen[self._logged :])
                / (self._samples(steps) - self._samples(self._logged)),
                "learning_rate": self.told.learning_rate,
                "temperature": self.told.temperature,
            }
            self._log.add(line)
            self._logged = steps

    def _samples(self, steps: int) -> int:
        return min(steps * self._batch_size, self._questions)


class Rate:
    """How long the rest of the run takes, at the speed of this call so far."""

    def __init__(self, steps: int) -> None:
        self._begun, self._done, self._steps = time.perf_counter(), 0, steps

    def step(self) -> None:
        self._done += 1

    def eta_s(self) -> float:
        elapsed = time.perf_counter() - self._begun
        return elapsed / self._done * (self._steps - self._done)
