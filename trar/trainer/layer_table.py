"""Which layers a model trained with LayerDrop goes through, at evaluation and in its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trar.errors import ConfigError
from trar.trainer.checkpoint import Checkpoint
from trar.trainer.sampler import step_seed
from trar.trainer.table_plots import draw_table


@dataclass(frozen=True)
class LayerUse:
    """``layer`` by its name, whether ``evaluation`` goes through it, and in which share of the
    steps so far ``training`` did; None before the first."""

    layer: str
    evaluation: bool
    training: float | None


def layer_use(checkpoint: Checkpoint) -> list[LayerUse]:
    """Every layer of a checkpoint's model; what was left out in training follows from the seed.

    Raises:
        ConfigError: it never leaves a layer out.
    """
    model: Any = checkpoint.model()
    evaluation = model.eval().layer_use([None]) if hasattr(model, "layer_use") else {}
    if not evaluation:
        raise ConfigError(
            f"{checkpoint.path}: it always goes through all of its layers; train lxmert with "
            "--set model.layer_drop=1"
        )
    seeds = (step_seed(checkpoint.config.seed, step) for step in range(checkpoint.step))
    training = model.train().layer_use(seeds) if checkpoint.step else {}
    return [
        LayerUse(
            f"{stack}.{number}", bool(used), float(training[stack][number]) if training else None
        )
        for stack, shares in evaluation.items()
        for number, used in enumerate(shares.tolist())
    ]


def plot_layers(layers: Sequence[LayerUse], path: Path) -> None:
    """Draw the use of layers into ``path``; errors as ``draw_table``."""
    values = [(float(one.evaluation), one.training or 0.0) for one in layers]
    names = [one.layer for one in layers]
    draw_table(values, names, ["evaluation", "training"], ("", "share of passes"), path)
