"""``trar bench``: what a training run on a store would wait for on this machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.commands.options import device_option, json_option, share_cores, store_option

if TYPE_CHECKING:
    from trar.trainer.bench import Findings

_ADVICE = {
    "storage, cached": "more reading threads (--threads), or verify_reads=none, which is unsafe",
    "storage, cold": "a faster disk, more memory to cache the store, or --threads 16",
    "loader": "more reading threads (--threads)",
    "model step": "a faster device: data are no reason to wait",
}


@click.command()
@store_option
@click.option("--preset", help="A recipe by name or .yaml file.  [default: the dataset's own]")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting, for example --set data.verify_reads=none. May be given again.",
)
@click.option("--batch-size", type=int, help="Questions a step.  [default: the preset's]")
@click.option("--threads", type=int, help="Threads that read ahead.  [default: the preset's]")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="About how long to measure, in all.",
)
@device_option
@json_option
def bench(
    store: Path,
    dataset: str | None,
    preset: str | None,
    sets: tuple[str, ...],
    batch_size: int | None,
    threads: int | None,
    seconds: float,
    device: str,
    as_json: bool,
) -> None:
    """Find out what binds on this machine: storage, loader or model.

    Each is measured by itself on the batches of a training run: reading images from the cache and
    from the disk, whole batches from the loader, and forward, backward and update of the model.
    Nothing is written.

    \b
    Example: trar bench --store ./features --device cuda
    """
    share_cores()
    from trar.trainer import build_config
    from trar.trainer.bench import bench as measure

    data = {"batch_size": batch_size, "threads": threads}
    given = [f"data.{name}={value}" for name, value in data.items() if value is not None]
    config = build_config(
        store, dataset=dataset, preset=preset, sets=(*sets, *given), device=device
    )

    def tell(part: str) -> None:
        if not as_json:
            click.echo(f"measuring {part} …", err=True)

    found = measure(config, seconds=seconds, report=tell)
    click.echo(json.dumps(_plain(found), indent=1) if as_json else _text(found))


def _plain(found: Findings) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "store": str(found.store)}


def _text(found: Findings) -> str:
    from trar.console import table

    rows = [
        (
            part.name,
            "" if part.samples_per_s is None else f"{part.samples_per_s:,.0f}",
            f"skipped: {part.skipped}" if part.skipped else f"{part.steps:,} batches",
        )
        for part in found.parts
    ]
    threads = f"{found.threads} reading thread{'' if found.threads == 1 else 's'}"
    return "\n".join(
        [
            f"{found.store}, preset {found.preset} on {found.device}, batches of "
            f"{found.batch_size}, {threads}",
            table(rows, header=("", "questions/s", "")),
            f"Binds: {found.binds}. What would help: {_ADVICE[found.binds]}.",
        ]
    )
