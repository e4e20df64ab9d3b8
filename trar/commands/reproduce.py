"""``trar reproduce``: a published row by name, with what differs from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.commands.options import share_cores
from trar.commands.train import carry_out, tell_notes, train

if TYPE_CHECKING:
    from trar.trainer.reproduce import SplitCount

_OPTIONS_OF_TRAIN = {
    *("store", "dataset", "split", "sets", "run", "runs", "resume", "seed", "device", "as_json"),
}


@click.command(short_help="Train a published row, and say what differs from it.")
@click.argument("row", required=False)
@click.option("--report-only", is_flag=True, help="Say what differs, and train nothing.")
def reproduce(
    row: str | None,
    store: Path,
    dataset: str | None,
    sets: tuple[str, ...],
    resume: str | None,
    report_only: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train the recipe of a published row, and say in what the run differs from it.

    Without ROW, list the rows, their published numbers and sources. The report goes into the run's
    folder as reproduce.json; --report-only stops after it. The other options are as for train.

    \b
    Example: trar reproduce
             trar reproduce vqa-soft-avg --store ./features --report-only
    """
    share_cores()
    from trar.console import table
    from trar.trainer.preset_files import published_row, published_rows

    if row is None:
        rows = [
            (name, f"{one.overall:.2f}", one.scored_on, one.source)
            for name, one in published_rows().items()
        ]
        click.echo(table(rows, header=("row", "published", "on", "source")))
        return
    published = published_row(row)
    from trar.features import FeatureStore
    from trar.fileio import write_json
    from trar.trainer.config import build_config
    from trar.trainer.reproduce import differences, report_json

    config = build_config(store, dataset=dataset, preset=row, sets=sets, **settings)
    opened = FeatureStore(config.store, config.dataset)
    found = differences(config, opened, _published_counts(published.dataset))
    report = report_json(config, opened, found)
    if as_json and report_only:
        click.echo(json.dumps(report, indent=1))
        return
    parts = ", ".join(f"{name} {score:.2f}" for name, score in published.parts.items())
    lines = [(one.what, one.published, one.here) for one in found]
    click.echo(
        f"{row}: {published.overall:.2f} on {published.scored_on}"
        f"{f' ({parts})' if parts else ''}, {published.source}\n\n"
        f"This run differs from the published one in {len(found)} points:\n"
        f"{table(lines, header=('point', 'published', 'here'))}\n"
        "What differs in every run of trar: docs/fidelity.md.",
        err=as_json,
    )
    tell_notes(config)
    if report_only:
        return
    carry_out(
        config,
        resume=resume,
        as_json=as_json,
        on_run=lambda run: write_json(run / "reproduce.json", report),
    )


reproduce.params += [option for option in train.params if option.name in _OPTIONS_OF_TRAIN]


def _published_counts(dataset: str) -> dict[str, SplitCount]:
    """Questions and images of each split, as the manifest has them."""
    from trar.pipeline.manifest import load_manifest
    from trar.trainer.reproduce import SplitCount

    files = load_manifest().datasets.get(dataset)
    if files is None:
        return {}
    return {
        file.split: SplitCount(file.count, file.images)
        for file in files.files
        if file.holds == "questions" and file.form is None
    }
