"""``trar show spans``, ``alphas`` and ``routing``: what a model has learned about its attention."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trar.commands.options import PATH, device_option, json_option, share_cores, store_option

if TYPE_CHECKING:
    from trar.trainer.attention_tables import Learned

_checkpoint = click.argument("checkpoint", type=PATH)
_plot = click.option("--plot", type=PATH, metavar="FILE.png", help="Draw it (extra `plots`).")


@click.command()
@_checkpoint
@_plot
@json_option
def spans(checkpoint: Path, plot: Path | None, as_json: bool) -> None:
    """Show how far each head looks, as a share of the keys' length.

    \b
    Example: trar show spans runs/lxmert-span --plot spans.png
    """
    _by_head(checkpoint, "span", plot, as_json)


@click.command()
@_checkpoint
@_plot
@json_option
def alphas(checkpoint: Path, plot: Path | None, as_json: bool) -> None:
    """Show how sparse each head is: near 1 softmax, 2 sparsemax.

    \b
    Example: trar show alphas runs/lxmert-entmax
    """
    _by_head(checkpoint, "alpha", plot, as_json)


@click.command()
@_checkpoint
@store_option
@click.option("--split", default="val", show_default=True, help="The questions to look at.")
@_plot
@device_option
@json_option
def routing(
    checkpoint: Path,
    store: Path,
    dataset: str | None,
    split: str,
    plot: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Show how TRAR weighs its windows, layer by layer and by question type.

    \b
    Example: trar show routing runs/vqa-soft-avg --store ./features --split val
    """
    share_cores()
    from trar.console import WorkProgress, table
    from trar.features import FeatureStore
    from trar.trainer import load_checkpoint
    from trar.trainer.attention_tables import plot_routing, routing_weights

    loaded = load_checkpoint(checkpoint)
    with WorkProgress("questions") as progress:
        rows = routing_weights(
            loaded,
            FeatureStore(store, dataset),
            split,
            device=device,
            progress=lambda done, total: progress("routing", done, total),
        )
    orders = getattr(loaded.config.model, "orders", ())
    if plot is not None:
        plot_routing(rows, orders, plot)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    header = ("questions", "count", "layer", *(f"window {order}" for order in orders))
    lines = [
        (row.question_type, f"{row.questions:,}", str(layer), *(f"{one:.3f}" for one in weights))
        for row in rows
        for layer, weights in enumerate(row.weights)
    ]
    click.echo(table(lines, header=header))


def _by_head(checkpoint: Path, what: Learned, plot: Path | None, as_json: bool) -> None:
    from trar.console import table
    from trar.trainer import load_checkpoint
    from trar.trainer.attention_tables import learned_by_head, plot_heads

    rows = learned_by_head(load_checkpoint(checkpoint), what)
    if plot is not None:
        plot_heads(rows, what, plot)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    header = ("attention", *(f"head {number}" for number in range(len(rows[0].heads))), "mean")
    lines = [
        (row.attention, *(f"{x:.3f}" for x in row.heads), f"{sum(row.heads) / len(row.heads):.3f}")
        for row in rows
    ]
    click.echo(table(lines, header=header))
