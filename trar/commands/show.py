"""``trar-data info`` and ``show``: what a store holds, as a whole and one record at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.commands.options import PLACE, json_option, store_option

if TYPE_CHECKING:
    from trar.features.record import Record

_SHADES = " ░▒▓█"
_BAR_WIDTH = 40
_BARS_SHOWN = 12


@click.command()
@click.argument("place", metavar="[STORE]", type=PLACE, required=False)
@store_option
@json_option
def info(place: Path | None, store: Path, dataset: str | None, as_json: bool) -> None:
    """Show what a store holds.

    Splits, counts, sizes, what it was made from, digests, and what a training's loader takes of
    memory at most. STORE is short for --store.

    \b
    Example: trar-data info --store ./features
    """
    from trar.console import table
    from trar.features import FeatureStore
    from trar.features.summary import summary_json, summary_rows
    from trar.trainer.memory_bound import BATCH_SIZE, usual_bound

    opened = FeatureStore(place or store, dataset)
    bound = usual_bound(opened.meta)
    if as_json:
        plain = {**summary_json(opened), "loader_memory_bytes": bound.total}
        click.echo(json.dumps(plain, indent=1))
    else:
        training = f"{bound.describe()}, in batches of {BATCH_SIZE}"
        click.echo(table([*summary_rows(opened), ("training", training)]))


@click.command()
@click.argument("record", metavar="[DATASET/]SPLIT/QUESTION_ID")
@store_option
@json_option
def show(record: str, store: Path, dataset: str | None, as_json: bool) -> None:
    """Show one question as a person would read it.

    The question, its tokens, answers and targets, and the features of its image with a small
    picture of their norms over the grid.

    \b
    Example: trar-data show vqa/val/262148000 --store ./features
    """
    from trar.features import FeatureStore
    from trar.features.record import read_record

    parts = record.split("/")
    if len(parts) not in (2, 3) or not parts[-1].lstrip("-").isdigit():
        raise click.BadParameter(
            f"{record!r}: expected SPLIT/QUESTION_ID or DATASET/SPLIT/QUESTION_ID, for example "
            "vqa/val/262148000",
            param_hint="RECORD",
        )
    opened = FeatureStore(store, parts[0] if len(parts) == 3 else dataset)
    found = read_record(opened, parts[-2], int(parts[-1]))
    click.echo(json.dumps(_plain(found), indent=1) if as_json else _text(found))


def _plain(found: Record) -> dict[str, Any]:
    norms = [None if math.isnan(one) else round(one, 6) for one in found.norms.tolist()]
    return {
        **found.__dict__,
        "norms": norms,
        "statistics": found.statistics.__dict__,
        "tokens": _plain_tokens(found.tokens),
        "answers": [{"answer": text, "annotators": count} for text, count in found.answers],
        "targets": _plain_targets(found.targets),
        "more_tokens": {name: _plain_tokens(one) for name, one in found.more_tokens.items()},
        "more_targets": {name: _plain_targets(one) for name, one in found.more_targets.items()},
    }


def _plain_tokens(tokens: list[tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"id": number, "word": word} for number, word in tokens]


def _plain_targets(targets: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"answer": text, "score": score} for text, score in targets]


def _text(found: Record) -> str:
    from trar.console import table

    image = f"{found.image_split}/{found.image_id}"
    if found.image_name is not None:
        image += f" ({found.image_name})"
    if found.size is not None:
        image += f", {found.size[1]} x {found.size[0]} pixels"
    kinds = [one for one in (found.question_type, found.answer_type) if one]
    statistics = found.statistics
    rows = [
        ("question", f"{found.question}" + (f"   [{', '.join(kinds)}]" if kinds else "")),
        ("tokens", _token_line(found.tokens)),
        *((name, _token_line(one)) for name, one in found.more_tokens.items()),
        ("answers", ", ".join(f"{text} x{n}" for text, n in found.answers) or "none"),
        ("targets", _target_line(found.targets)),
        *((f"targets {name}", _target_line(one)) for name, one in found.more_targets.items()),
        ("image", image),
        (
            "features",
            f"mean {statistics.mean:.4g}, deviation {statistics.deviation:.4g}, "
            f"{statistics.smallest:.4g} to {statistics.largest:.4g}, "
            f"{100 * statistics.zero_share:.1f} % zeros",
        ),
    ]
    return table(rows) + "\n\n" + _picture(found)


def _token_line(tokens: list[tuple[int, str]]) -> str:
    return " ".join(f"{word}({number})" for number, word in tokens) or "none"


def _target_line(targets: list[tuple[str, float]]) -> str:
    return ", ".join(f"{text} {score:g}" for text, score in targets) or "none"


def _picture(found: Record) -> str:
    """Norms as shades of a grid, or as bars of the largest regions."""
    known = [one for one in found.norms.tolist() if not math.isnan(one)]
    if not known:
        return "all cells are padding"
    top = max(known) or 1.0
    if found.grid is None:
        order = sorted(range(len(known)), key=lambda row: -known[row])[:_BARS_SHOWN]
        bars = [
            f"region {row:>3}  {known[row]:8.2f}  {'█' * round(_BAR_WIDTH * known[row] / top)}"
            for row in order
        ]
        return "\n".join([f"norms of the {len(order)} largest of {len(known)} regions", *bars])
    low = min(known)
    span = (top - low) or 1.0
    height, width = found.grid
    lines = [f"norms over the {height}x{width} grid, {low:.2f} (░) to {top:.2f} (█), · is padding"]
    for row in range(height):
        cells = found.norms[row * width : (row + 1) * width].tolist()
        lines.append("".join(_shade(one, low, span) for one in cells))
    return "\n".join(lines)


def _shade(norm: float, low: float, span: float) -> str:
    if math.isnan(norm):
        return " ·"
    level = 1 + round((len(_SHADES) - 2) * (norm - low) / span)
    return _SHADES[level] * 2
