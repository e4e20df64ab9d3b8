"""``trar show spans``, ``alphas``, ``sparsity``, ``layers`` and ``routing``: what a model has
learned about its attention, and which of its layers it goes through."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trar.commands.options import PATH, device_option, json_option, share_cores, store_option

if TYPE_CHECKING:
    from trar.trainer.attention_tables import HeadValues, Learned

_checkpoint = click.argument("checkpoint", type=PATH)
_plot = click.option("--plot", type=PATH, metavar="FILE.png", help="Draw it (extra `plots`).")
_split = click.option("--split", default="val", show_default=True, help="The questions to look at.")


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
@_split
@click.option(
    "--questions",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="How many, spread over the split.",
)
@_plot
@device_option
@json_option
def sparsity(
    checkpoint: Path,
    store: Path,
    dataset: str | None,
    split: str,
    questions: int,
    plot: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Show which share of each head's attention weights is exactly zero, over some questions.

    \b
    Example: trar show sparsity runs/lxmert-entmax --store ./features
    """
    share_cores()
    from trar.features import FeatureStore
    from trar.trainer import load_checkpoint
    from trar.trainer.attention_tables import sparsity_by_head

    opened = FeatureStore(store, dataset)
    loaded = load_checkpoint(checkpoint)
    rows = sparsity_by_head(loaded, opened, split, questions=questions, device=device)
    _show_heads(rows, "sparsity", plot, as_json)


@click.command()
@_checkpoint
@_plot
@json_option
def layers(checkpoint: Path, plot: Path | None, as_json: bool) -> None:
    """Show which layers evaluation goes through, and how often training did (LayerDrop).

    \b
    Example: trar show layers runs/lxmert-layerdrop
    """
    from trar.console import table
    from trar.trainer import load_checkpoint
    from trar.trainer.layer_table import layer_use, plot_layers

    rows = layer_use(load_checkpoint(checkpoint))
    if plot is not None:
        plot_layers(rows, plot)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    lines = [(row.layer, "yes" if row.evaluation else "no", _share(row.training)) for row in rows]
    click.echo(table(lines, header=("layer", "at evaluation", "share of training steps")))


@click.command()
@_checkpoint
@store_option
@_split
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
    from trar.trainer import load_checkpoint
    from trar.trainer.attention_tables import learned_by_head

    _show_heads(learned_by_head(load_checkpoint(checkpoint), what), what, plot, as_json)


def _show_heads(rows: list[HeadValues], what: str, plot: Path | None, as_json: bool) -> None:
    from trar.console import table
    from trar.trainer.attention_tables import plot_heads

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


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
