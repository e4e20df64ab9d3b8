"""What a run is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from trar.features.reader import FeatureStore
from trar.trainer.config import TrainConfig
from trar.trainer.distributed import Ranks
from trar.trainer.loader import Loader


@dataclass(frozen=True)
class Parts:
    """What does not change as a run goes on: ``run`` is its folder, ``eval_split`` what is scored
    (None: nothing)."""

    config: TrainConfig
    store: FeatureStore
    loader: Loader
    eval_split: str | None
    run: Path
    device: torch.device
    ranks: Ranks

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.loader.steps

    @property
    def longest_question(self) -> int:
        """How many words of a question are read at most."""
        return self.config.data.max_tokens or self.store.longest_question
