"""Learning rate and temperature of a recipe, epoch by epoch, or one cycle of the learning rate of a
recipe that goes by steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trar.errors import ConfigError
from trar.fileio import disk_errors
from trar.trainer.config import TrainConfig, config_from
from trar.trainer.drawing import new_figure, save_figure
from trar.trainer.preset_files import parse_yaml
from trar.trainer.rates import (
    epoch_learning_rate,
    epoch_temperature,
    step_learning_rate,
    uses_temperature,
)
from trar.trainer.run_folder import CONFIG_FILE

POLICIES = ("slow", "fast", "finetune")  # by number, as the originals call them
_ROWS_UP_AND_DOWN = 8


@dataclass(frozen=True)
class EpochSchedule:
    """What is constant within ``epoch``, from 1: the learning rate, the temperature (None: routing
    is soft and has none), and the temperature under each policy."""

    epoch: int
    learning_rate: float
    temperature: float | None
    policies: dict[str, float]


@dataclass(frozen=True)
class StepSchedule:
    """The learning rate in ``step`` of a run, from 0."""

    step: int
    learning_rate: float


def schedule_by_epoch(config: TrainConfig) -> list[EpochSchedule]:
    """The whole schedule of a recipe that goes by epochs."""
    assert config.schedule.kind == "epochs"
    rows = []
    for epoch in range(config.schedule.epochs):
        rate = epoch_learning_rate(config, epoch)
        warmth = [epoch_temperature(config, epoch, policy) for policy in range(len(POLICIES))]
        own = warmth[config.temperature.policy] if uses_temperature(config) else None
        policies = dict(zip(POLICIES, warmth, strict=True))
        rows.append(EpochSchedule(epoch + 1, rate, own, policies))
    return rows


def schedule_by_step(config: TrainConfig) -> list[StepSchedule]:
    """One cycle of a recipe that goes by steps, in at most eight rows up and eight down."""
    assert config.schedule.kind == "cyclic"
    up, down = config.schedule.up_steps, config.schedule.down_steps
    parts = range(_ROWS_UP_AND_DOWN + 1)
    steps = {up * part // _ROWS_UP_AND_DOWN for part in parts}
    steps |= {up + down * part // _ROWS_UP_AND_DOWN for part in parts}
    return [StepSchedule(step, step_learning_rate(config, step)) for step in sorted(steps)]


def config_of_run(folder: Path) -> TrainConfig:
    """The settings that a run's folder says it was trained with.

    Raises:
        ConfigError: no run there, or its config is of another version.
    """
    path = folder / CONFIG_FILE
    try:
        with disk_errors(path):
            said = parse_yaml(path.read_text(encoding="utf-8"))
        settings = said["config"]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; --run takes the folder of a run") from None
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise ConfigError(f"{path}: not the config of a run; edited or damaged") from None
    return config_from(TrainConfig, settings)


def plot_by_epoch(rows: Sequence[EpochSchedule], policy: int, title: str, path: Path) -> None:
    """Draw the learning rate, and the temperature under the three policies, into ``path``; the
    policy of the recipe stands out where its routing is hard.

    Raises:
        ConfigError: matplotlib is not installed, or does not know the file's suffix.
    """
    figure = new_figure(9, 3.6)
    figure.suptitle(title)
    epochs = [row.epoch for row in rows]
    rates, heats = figure.subplots(1, 2)
    _draw_rates(rates, epochs, rows, "epoch")
    for number, name in enumerate(POLICIES):
        own = rows[0].temperature is not None and number == policy
        heats.plot(
            epochs,
            [row.policies[name] for row in rows],
            marker="o" if own else ".",
            linewidth=2.5 if own else 1,
            linestyle="-" if own else "--",
            color=f"C{number + 1}",
            label=f"{number}: {name}" + (" (this recipe)" if own else ""),
        )
    soft = rows[0].temperature is None
    heats.set_title("temperature by policy" + (" (soft routing: unused)" if soft else ""))
    heats.legend()
    heats.set_xlabel("epoch")
    for axes in (rates, heats):
        axes.set_xticks(epochs if len(epochs) <= 16 else epochs[:: len(epochs) // 12])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_by_step(rows: Sequence[StepSchedule], title: str, path: Path) -> None:
    """Draw one cycle of the learning rate into ``path``; errors as ``plot_by_epoch``."""
    figure = new_figure(5, 3.6)
    figure.suptitle(title)
    axes = figure.subplots()
    _draw_rates(axes, [row.step for row in rows], rows, "step")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def _draw_rates(
    axes: Any, places: list[int], rows: Sequence[EpochSchedule | StepSchedule], unit: str
) -> None:
    axes.plot(places, [row.learning_rate for row in rows], marker="o", color="C0")
    axes.set_title("learning rate")
    axes.set_xlabel(unit)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
