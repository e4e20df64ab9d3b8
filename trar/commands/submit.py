"""``trar submit``: what there is to know before a result file is handed in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from trar.commands.options import PATH, json_option, store_option

_TYPED = click.core.ParameterSource.COMMANDLINE


@click.group()
def submit() -> None:
    """Check a result file before it is submitted.

    \b
    Example: trar submit check result-test.json --store ./features
    """


@submit.command()
@click.argument("file", type=PATH)
@store_option
@click.option("--split", default="test", show_default=True, help="The split that FILE answers.")
@click.option(
    "--questions",
    type=PATH,
    metavar="FILE",
    help="Compare with this official question file, which says its split, instead of a store.",
)
@json_option
def check(
    file: Path, store: Path, dataset: str | None, split: str, questions: Path | None, as_json: bool
) -> int:
    """Find what an evaluation server would refuse, offline.

    Exits with 1 and a line for each problem; else says where to submit.

    \b
    Example: trar submit check result-test.json --store ./features
             trar submit check result-test.json --questions test2015_questions.json
    """
    source = click.get_current_context().get_parameter_source
    given = [name for name in ("store", "dataset", "split") if source(name) is _TYPED]
    if questions is not None and given:
        raise click.UsageError(
            f"--questions is compared with alone: leave out {' and '.join(f'--{n}' for n in given)}"
        )
    from trar.features import FeatureStore
    from trar.trainer.expected_questions import expected_of_files, expected_of_store
    from trar.trainer.submission_check import PAGES, check_submission

    if questions is not None:
        expected = expected_of_files(questions)
    else:
        expected = expected_of_store(FeatureStore(store, dataset), split)
    found = check_submission(file, expected)
    notes = (*expected.notes, *found.notes)
    page = PAGES.get(expected.dataset)
    if as_json:
        plain = dataclasses.asdict(found) | {"notes": notes, "sound": not found.problems}
        click.echo(json.dumps(plain | {"submit_to": page}, indent=1))
        return 1 if found.problems else 0
    for problem in found.problems:
        click.echo(problem)
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    if found.problems:
        return 1
    click.echo(f"{file}: sound, {found.answers:,} answers to all questions of {expected.name}")
    if page is not None:
        click.echo(f"Submit to: {page}")
    return 0
