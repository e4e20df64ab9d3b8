"""Training losses, summed over the batch. Targets travel sparse.

b = batch, a = answers in the dictionary.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from trar.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


def dense_targets(row: Tensor, label: Tensor, score: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sparse targets as (b, a) float32 on their device: ``score`` at (``row``, ``label``), else 0.

    ``row`` and ``label`` (t,) int64, ``score`` (t,) float32; a place is named at most once.
    """
    targets = score.new_zeros(shape)
    targets[row, label] = score
    return targets


def bce_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of every answer against its soft score, summed; both (b, a)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")


def ce_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy against the answer with the highest score (the first of equals), summed.

    A question whose answers are all outside the dictionary has no such answer and adds nothing.
    """
    best, label = targets.max(dim=1)
    return F.cross_entropy(logits, label.masked_fill(best <= 0, -100), reduction="sum")


_LOSSES: dict[str, Loss] = {"bce-sum": bce_sum, "ce-sum": ce_sum, "bce-mean-answers": bce_sum}


def loss_named(name: str) -> Loss:
    """The loss that a config names.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in _LOSSES:
        raise ConfigError(f"loss is {name!r}, expected {', '.join(_LOSSES)}")
    return _LOSSES[name]


def gradient_share(name: str, batch_size: int) -> float:
    """What the summed loss is multiplied by before its gradient is taken. ``bce-mean-answers`` is
    the mean over the questions of a whole batch; a shorter last batch does not weigh more."""
    return 1 / batch_size if name == "bce-mean-answers" else 1.0
