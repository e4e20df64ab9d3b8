"""Learning rate and temperature of a recipe, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from trar.errors import ConfigError
from trar.fileio import disk_errors
from trar.trainer.config import TrainConfig, config_from
from trar.trainer.preset_files import parse_yaml
from trar.trainer.run_folder import CONFIG_FILE
from trar.trainer.schedules import learning_rate_factor, temperature

POLICIES = ("slow", "fast", "finetune")  # by number, as the originals call them


@dataclass(frozen=True)
class EpochSchedule:
    """What is constant within ``epoch``, from 1: the learning rate, the temperature (None: routing
    is soft and has none), and the temperature under each policy."""

    epoch: int
    learning_rate: float
    temperature: float | None
    policies: dict[str, float]


def schedule_by_epoch(config: TrainConfig) -> list[EpochSchedule]:
    """The whole schedule of a recipe.

    Raises:
        ConfigError: it goes by steps.
    """
    schedule, heat = config.schedule, config.temperature
    if schedule.kind == "cyclic":
        raise ConfigError(
            f"the learning rate of this recipe goes by steps: from "
            f"{config.optim.lr * schedule.lowest:.3g} to {config.optim.lr:.3g} in "
            f"{schedule.up_steps:,} steps and back in {schedule.down_steps:,}, over and over; "
            "there is no table by epoch"
        )
    rows = []
    for epoch in range(schedule.epochs):
        factor = learning_rate_factor(
            epoch,
            warmup_epochs=schedule.warmup_epochs,
            decay_epochs=schedule.decay_epochs,
            decay_rate=schedule.decay_rate,
        )
        warmth = [
            temperature(
                policy,
                epoch,
                epochs=schedule.epochs,
                warmup_epochs=schedule.warmup_epochs,
                largest=heat.max,
                smallest=heat.min,
            )
            for policy in range(len(POLICIES))
        ]
        own = warmth[heat.policy] if getattr(config.model, "routing", None) == "hard" else None
        policies = dict(zip(POLICIES, warmth, strict=True))
        rows.append(EpochSchedule(epoch + 1, config.optim.lr * factor, own, policies))
    return rows


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


def plot_schedule(rows: Sequence[EpochSchedule], policy: int, title: str, path: Path) -> None:
    """Draw the learning rate, and the temperature under the three policies, into ``path``; the
    policy of the recipe stands out where its routing is hard.

    Raises:
        ConfigError: matplotlib is not installed, or does not know the file's suffix.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "--plot needs matplotlib: pip install 'trar[plots]', or take the table or --json"
        ) from None
    epochs = [row.epoch for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    rates, heats = figure.subplots(1, 2)
    rates.plot(epochs, [row.learning_rate for row in rows], marker="o", color="C0")
    rates.set_title("learning rate")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
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
    for axes in (rates, heats):
        axes.set_xlabel("epoch")
        axes.set_xticks(epochs if len(epochs) <= 16 else epochs[:: len(epochs) // 12])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    if path.suffix.lstrip(".") not in figure.canvas.get_supported_filetypes():
        raise ConfigError(
            f"{path}: matplotlib writes no {path.suffix or 'nameless'} files; use .png"
        )
    with disk_errors(path):
        figure.savefig(path, dpi=150)
