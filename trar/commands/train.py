"""``trar train``: train a model on a store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.commands.options import (
    PATH,
    device_option,
    json_option,
    on_stop,
    share_cores,
    store_option,
)

if TYPE_CHECKING:
    from trar.trainer.config import TrainConfig
    from trar.trainer.progress import Progress


@click.command()
@store_option
@click.option(
    "--preset",
    help="A recipe by name, a .yaml file, or an original .yml.  [default: the dataset's own]",
)
@click.option("--split", help="Question splits to train on, joined by +.  [default: the preset's]")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting, for example --set optim.lr=1e-4. May be given again.",
)
@click.option(
    "--where",
    metavar="COLUMN=VALUE,…",
    help="Train on certain questions alone: answer_type=number, question_type=what|how.",
)
@click.option("--fraction", type=float, help="Train on this share of the questions, drawn by seed.")
@click.option("--limit", type=int, help="Train on the first so many questions.")
@click.option(
    "--mix",
    metavar="SPLIT=WEIGHT,…",
    help="Share of each split in an epoch: train=0.8,vg=0.2.",
)
@click.option(
    "--order",
    type=click.Choice(["global", "block"]),
    help="Mix all questions, or read each image once an epoch and mix in windows.  "
    "[default: the preset's]",
)
@click.option(
    "--max-ram",
    metavar="SIZE",
    help="Read less far ahead and mix in smaller windows to keep to this memory, such as 8G.",
)
@click.option("--run", help="Name of the run's folder.  [default: the preset's name]")
@click.option(
    "--runs", type=PATH, default=Path("runs"), show_default=True, help="Where run folders go."
)
@click.option(
    "--resume",
    metavar="auto|FILE",
    help="Go on after the newest checkpoint of the run (auto), or after this checkpoint.",
)
@click.option("--seed", type=int, help="Of everything random.  [default: fixed]")
@click.option(
    "--dry-run", is_flag=True, help="Check it all, take two steps, tell what it costs; then stop."
)
@device_option
@json_option
def train(
    store: Path,
    dataset: str | None,
    preset: str | None,
    sets: tuple[str, ...],
    where: str | None,
    fraction: float | None,
    limit: int | None,
    mix: str | None,
    order: str | None,
    max_ram: str | None,
    resume: str | None,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a model on a store, scored every epoch.

    The run's folder gets the effective config, a log, and checkpoints; an existing run is never
    overwritten.

    \b
    Example: trar train --store ./features
             trar train --store ./features --run first --resume auto
    """
    share_cores()
    from trar.trainer import build_config

    data = {
        "where": where,
        "fraction": fraction,
        "limit": limit,
        "mix": mix,
        "order": order,
        "max_ram": max_ram,
    }
    given = [
        f"data.{name}={json.dumps(value)}" for name, value in data.items() if value is not None
    ]
    config = build_config(store, dataset=dataset, preset=preset, sets=(*given, *sets), **settings)
    tell_notes(config)
    if dry_run:
        from trar.commands.dry_run import tell_dry_run

        source = click.get_current_context().get_parameter_source
        typed = [
            name
            for name in ("store", "dataset", "preset", *settings)
            if source(name) is click.core.ParameterSource.COMMANDLINE
        ]
        names = [one.partition("=")[0].strip() for one in (*given, *sets)]
        tell_dry_run(config, [*typed, *names], as_json=as_json)
        return
    carry_out(config, resume=resume, as_json=as_json)


def tell_notes(config: TrainConfig) -> None:
    """Say what a reader of the command line does not see in the preset's name."""
    from trar.trainer.preset_files import read_preset

    preset = read_preset(config.preset)
    notes, first = list(preset.notes), preset.continue_from
    if first is not None and config.start_from is None:
        notes.append(
            f"two stages: {first.epochs} epochs on {first.split} (run {config.run_name}-first), "
            f"then to epoch {config.schedule.epochs} on {config.split}"
        )
    for note in notes:
        click.echo(f"Note: {note}", err=True)


def carry_out(
    config: TrainConfig,
    *,
    resume: str | None,
    as_json: bool,
    on_run: Callable[[Path], None] = lambda _: None,
) -> None:
    """Train as ``config`` says, and say how it went; ``on_run`` is told each run's folder once."""
    from trar.console import TrainingProgress, duration
    from trar.trainer.stages import train_stages

    stopped = "Stopped before training began."
    with on_stop(stopped) as check, TrainingProgress(as_json, check) as progress:
        runs = set()

        def tell(told: Progress) -> None:
            if told.run not in runs:
                runs.add(told.run)
                on_run(told.run)
            progress(told)

        result = train_stages(config, tell, resume=resume)
    if int(os.environ.get("RANK", "0")):
        return  # one of several processes: the first one tells
    if as_json:
        report = {
            "run": str(result.run),
            "checkpoint": str(result.checkpoint),
            "best_checkpoint": str(result.best_checkpoint),
            "scores": result.scores,
            "seconds": round(result.seconds, 1),
        }
        click.echo(json.dumps(report, indent=1))
        return
    click.echo(f"Trained in {duration(result.seconds)}: {result.checkpoint}")
    if result.best_checkpoint != result.checkpoint:
        click.echo(f"Best on {config.eval_split}: {result.best_checkpoint}")
    click.echo(f"Log: {result.run / 'log.jsonl'}")
    if result.scores is None and (config.eval_split or "val" in config.splits):
        click.echo(f"Next: trar predict {result.checkpoint} --store {config.store} --split test")
    else:
        split = config.eval_split or "val"
        click.echo(f"Next: trar eval {result.checkpoint} --store {config.store} --split {split}")
