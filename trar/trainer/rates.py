"""Learning rate and temperature of a recipe, by epoch or step (from 0)."""

from __future__ import annotations

from trar.trainer.config import TrainConfig
from trar.trainer.schedules import cyclic_factor, learning_rate_factor, temperature


def epoch_learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, of a schedule that goes by epochs."""
    schedule = config.schedule
    return config.optim.lr * learning_rate_factor(
        epoch,
        warmup_epochs=schedule.warmup_epochs,
        decay_epochs=schedule.decay_epochs,
        decay_rate=schedule.decay_rate,
    )


def step_learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a global step, of a schedule that goes by steps."""
    schedule = config.schedule
    return config.optim.lr * cyclic_factor(
        step,
        up_steps=schedule.up_steps,
        down_steps=schedule.down_steps,
        lowest=schedule.lowest,
    )


def epoch_temperature(config: TrainConfig, epoch: int, policy: int | None = None) -> float:
    """The temperature of an epoch under the recipe's policy, or another."""
    heat, schedule = config.temperature, config.schedule
    return temperature(
        heat.policy if policy is None else policy,
        epoch,
        epochs=schedule.epochs,
        warmup_epochs=schedule.warmup_epochs,
        largest=heat.max,
        smallest=heat.min,
    )


def uses_temperature(config: TrainConfig) -> bool:
    """Soft routing and the other systems have no use for one."""
    return getattr(config.model, "routing", None) == "hard"
