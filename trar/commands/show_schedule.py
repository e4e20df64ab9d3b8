"""``trar show``, and ``trar show schedule``: what a recipe does, drawn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trar.commands.options import PATH, json_option

if TYPE_CHECKING:
    from trar.trainer.schedule_table import EpochSchedule, StepSchedule

_BAR = 20


@click.group()
def show() -> None:
    """Show what a recipe does, and what a model has learned.

    \b
    Example: trar show schedule --preset vqa-hard-avg
             trar show spans runs/lxmert-span
    """


@show.command()
@click.option("--preset", help="A recipe by name or file.  [default: vqa-soft-avg]")
@click.option("--run", type=PATH, help="The recipe of this run's folder.")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one setting of the preset."
)
@click.option("--plot", type=PATH, metavar="FILE.png", help="Draw it (extra `plots`).")
@json_option
def schedule(
    preset: str | None, run: Path | None, sets: tuple[str, ...], plot: Path | None, as_json: bool
) -> None:
    """Show learning rate and temperature by epoch, or one cycle of a rate that goes by steps.

    \b
    Example: trar show schedule --preset vqa-hard-avg
             trar show schedule --run runs/vqa-hard-avg --plot schedule.png
    """
    from trar.console import table
    from trar.trainer.config import build_config
    from trar.trainer.preset_files import FALLBACK_PRESET
    from trar.trainer.schedule_table import (
        config_of_run,
        plot_by_epoch,
        plot_by_step,
        schedule_by_epoch,
        schedule_by_step,
    )

    if run is not None and (preset or sets):
        raise click.UsageError("--run has a recipe of its own: leave out --preset and --set")
    name = preset or FALLBACK_PRESET
    config = config_of_run(run) if run else build_config("features", preset=name, sets=sets)
    title = str(run or name)
    rows: list[EpochSchedule] | list[StepSchedule]
    header: tuple[str, ...]
    if config.schedule.kind == "cyclic":
        rows = by_step = schedule_by_step(config)
        lines, header = _step_lines(by_step), ("step", "learning rate", "")
        note = (
            f"And so on, over and over: {config.schedule.up_steps:,} steps up, "
            f"{config.schedule.down_steps:,} down. A step takes {config.data.batch_size} questions."
        )
        if plot is not None:
            plot_by_step(by_step, title, plot)
    else:
        rows = by_epoch = schedule_by_epoch(config)
        lines, header = _lines(by_epoch), _header(by_epoch)
        soft = getattr(config.model, "routing", None) == "soft"
        note = "Routing is soft: no temperature." if soft else ""
        if plot is not None:
            plot_by_epoch(by_epoch, config.temperature.policy, title, plot)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    click.echo(title)
    click.echo(table(lines, header=header))
    if note:
        click.echo(note)
    if plot is not None:
        click.echo(f"Drawn: {plot}")


def _header(rows: list[EpochSchedule]) -> tuple[str, ...]:
    heat = () if rows[0].temperature is None else ("temperature", "")
    return ("epoch", "learning rate", "".ljust(_BAR), *heat)


def _lines(rows: list[EpochSchedule]) -> list[tuple[str, ...]]:
    fastest = max(row.learning_rate for row in rows)
    hottest = max(row.temperature or 0 for row in rows)
    lines = []
    for row in rows:
        cells = [str(row.epoch), f"{row.learning_rate:.3g}", _bar(row.learning_rate / fastest)]
        if row.temperature is not None:
            cells += [f"{row.temperature:.3f}", _bar(row.temperature / hottest)]
        lines.append(tuple(cells))
    return lines


def _step_lines(rows: list[StepSchedule]) -> list[tuple[str, ...]]:
    fastest = max(row.learning_rate for row in rows)
    return [
        (f"{row.step:,}", f"{row.learning_rate:.3g}", _bar(row.learning_rate / fastest))
        for row in rows
    ]


def _bar(share: float) -> str:
    return "█" * max(1, round(share * _BAR))
