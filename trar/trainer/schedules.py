"""What changes from epoch to epoch or step to step, as pure functions. Both count from 0.

Source: TRAR-VQA ``utils/optim.py`` (learning rate) and ``utils/train_engine.py`` (temperature),
with the warm-up generalised from three epochs to any number.
"""

from __future__ import annotations

from collections.abc import Sequence

from trar.errors import ConfigError


def learning_rate_factor(
    epoch: int, *, warmup_epochs: int, decay_epochs: Sequence[int], decay_rate: float
) -> float:
    """The share of the base learning rate in ``epoch``, in (0, 1].

    The warm-up goes up in equal steps, k / (W + 1) in the k-th of W epochs (a quarter, a half and
    three quarters for W = 3); each decay epoch that has begun multiplies by ``decay_rate``.
    """
    warmup = min(1.0, (epoch + 1) / (warmup_epochs + 1))
    return float(warmup * decay_rate ** sum(start <= epoch for start in decay_epochs))


def cyclic_factor(step: int, *, up_steps: int, down_steps: int, lowest: float) -> float:
    """The share of the learning rate in ``step`` of a run: a straight line from ``lowest`` up to 1
    and down again, over and over (Smith, Cyclical Learning Rates, 2017; "triangular")."""
    within = step % (up_steps + down_steps)
    height = within / up_steps if within <= up_steps else 1 - (within - up_steps) / down_steps
    return lowest + (1 - lowest) * height


def temperature(
    policy: int, epoch: int, *, epochs: int, warmup_epochs: int, largest: float, smallest: float
) -> float:
    """The temperature of hard routing in ``epoch`` of ``epochs``, never below ``smallest``.

    Policy 0 falls evenly over the whole run. Policy 1 falls to 1 in the warm-up and evenly after
    it. Policy 2 is for finetuning: low after the warm-up. A run of one epoch stays at
    ``largest``, where policy 0 of the original divides by zero.

    Raises:
        ConfigError: an unknown policy.
    """
    if policy not in (0, 1, 2):
        raise ConfigError(f"temperature.policy is {policy!r}, expected 0, 1 or 2")
    if epochs == 1:
        return largest
    if policy == 0:
        value = largest - (largest - smallest) * epoch / (epochs - 1)
    elif policy == 1 and epoch < warmup_epochs:
        value = largest - (largest - 1) * epoch / warmup_epochs
    elif policy == 1:
        value = 1 - (epoch - warmup_epochs) / (epochs - warmup_epochs)
    elif epoch < warmup_epochs:
        # parity: (epoch - epochs), which looks like a slip for epoch; the published figure has it
        value = 1 - (epoch - epochs) / (warmup_epochs + 1)
    else:
        value = 0.1
    return max(value, smallest)
