"""A run that takes a second: a model of two small layers and few epochs."""

from __future__ import annotations

from pathlib import Path

from trar.trainer.config import TrainConfig, build_config
from trar.trainer.progress import Progress

SMALL = (
    "model.layers=1",
    "model.width=16",
    "model.heads=2",
    "model.ff_width=32",
    "model.word_width=8",
    "model.flat_hidden=16",
    "model.flat_width=16",
    "model.orders=[0, 1]",
    "data.batch_size=16",
    "data.eval_batch_size=32",
    "optim.lr=0.005",
    "schedule.epochs=3",
    "schedule.warmup_epochs=1",
    "schedule.decay_epochs=[2]",
    "log_steps=3",
)


def small_config(store: Path, runs: Path, *sets: str, **settings: object) -> TrainConfig:
    """The easy-vqa preset cut down to ``SMALL``, then ``sets``."""
    return build_config(
        store,
        preset="easy-vqa",
        runs=str(runs),
        device="cpu",
        sets=(*SMALL, *sets),
        **settings,
    )


class StopAfter:
    """A report that is stopped by Ctrl-C after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, told: Progress) -> None:
        if told.stage == "train":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
