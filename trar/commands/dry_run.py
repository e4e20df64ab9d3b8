"""What ``trar train --dry-run`` prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trar.trainer.config import TrainConfig


def tell_dry_run(config: TrainConfig, given: Sequence[str], *, as_json: bool) -> None:
    """Take the dry run of ``config`` and print it; ``given`` are the names of the user's own
    settings."""
    from trar.console import duration, table
    from trar.fileio import human_bytes
    from trar.trainer.dry_run import dry_run

    found = dry_run(config, given)
    if as_json:
        plain = dataclasses.asdict(found) | {"step_bytes": found.step_bytes}
        click.echo(json.dumps(plain, indent=1))
        return
    rows = [(one.name, json.dumps(one.value), one.origin) for one in found.settings]
    click.echo(table(rows, ("setting", "value", "from")))
    for stage in found.stages:
        click.echo(
            f"to epoch {stage.to_epoch} on {stage.split}: {stage.questions:,} questions an epoch, "
            f"{stage.steps:,} steps, {duration(stage.epoch_s)} on this machine, scoring not counted"
        )
    click.echo(f"{found.parameters:,} parameters, {found.flops / 1e9:.3g} GFLOP a sample forward")
    click.echo(
        f"memory of a step: {human_bytes(found.step_bytes)} (activations "
        f"{human_bytes(found.activation_bytes)}, weights with gradients and moments "
        f"{human_bytes(found.state_bytes)}, loader {human_bytes(found.loader_bytes)})"
    )
    click.echo(
        f"two steps: loss {found.losses[0]:.4f}, {found.losses[1]:.4f}; {found.step_s:.3f} s a step"
    )
    needed = found.checkpoint_bytes * found.checkpoints
    click.echo(
        f"checkpoints: {human_bytes(found.checkpoint_bytes)} each, {human_bytes(needed)} for "
        f"{found.checkpoints} at a time; {human_bytes(found.free_bytes)} are free"
    )
    click.echo("Nothing was written. Train: the same command without --dry-run")
