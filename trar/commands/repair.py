"""``trar-data repair``: makes the damaged files of a store anew from the raw files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.commands.options import PATH, PLACE, json_option, on_stop, store_option
from trar.errors import TrarError

if TYPE_CHECKING:
    from trar.pipeline.repair import RepairResult


@click.command()
@click.argument("place", metavar="[STORE]", type=PLACE, required=False)
@store_option
@click.option(
    "--raw",
    type=PATH,
    default=Path("data"),
    show_default=True,
    help="Folder of the raw files that the store was made from.",
)
@click.option("--features", type=PATH, help="Where the raw image features are, if not below --raw.")
@click.option(
    "--questions",
    type=PATH,
    multiple=True,
    help="A question or annotation file that is not in --raw; repeat for more.",
)
@click.option("--answers", type=PATH, help="The answer dictionary, if the store was given one.")
@click.option("--wordpiece-vocab", type=PATH, help="The word pieces, if the store was given them.")
@click.option("--vectors", metavar="SOURCE", help="The source of damaged word vectors.")
@click.option("--keep-portrait", is_flag=True, help="As the store was prepared.")
@click.option("--workers", type=int, help="Processes that read features.  [default: one a core]")
@click.option(
    "--dry-run", is_flag=True, help="Say what is damaged; read no raw file, write nothing."
)
@json_option
def repair(
    place: Path | None,
    store: Path,
    dataset: str | None,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make the damaged and missing files of a store anew, and only those.

    Every file is compared with its digest first. One made anew from the raw files replaces the
    damaged one only if it is what the store had, to the byte; raw files that have changed since are
    named. At the end the store is verified. Run it again after Ctrl-C and it goes on. STORE is
    short for --store.

    \b
    Example: trar-data repair --store ./features --raw ./data
    """
    from trar.console import WorkProgress
    from trar.features.schema import find_dataset
    from trar.pipeline.repair import RepairConfig, find_damage
    from trar.pipeline.repair import repair as run

    folder = find_dataset(place or store, dataset)
    if dry_run:
        with WorkProgress() as progress:
            _show_damage(folder, find_damage(folder, progress), as_json)
        return
    stopped = "Stopped. Every file is the old one or repaired: run the same command again to go on."
    with on_stop(stopped) as check, WorkProgress(check=check) as progress:
        result = run(folder, RepairConfig(**settings), progress)
    _show_result(result, as_json)


def _show_damage(folder: Path, damaged: dict[str, str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "damaged": damaged}, indent=1))
        return
    for name, what in damaged.items():
        click.echo(f"would make anew {folder / name}: {what}")
    click.echo(f"{folder}: {len(damaged)} damaged file(s). Nothing was written (--dry-run).")


def _show_result(result: RepairResult, as_json: bool) -> None:
    folder, problems = result.folder, result.problems
    if as_json:
        plain = {
            "folder": str(folder),
            "damaged": result.damaged,
            "repaired": result.repaired,
            "problems": problems,
            "sound": not problems,
        }
        click.echo(json.dumps(plain, indent=1))
    else:
        for name in result.repaired:
            click.echo(f"repaired {folder / name} ({result.damaged[name]})")
        for where, why in problems.items():
            click.echo(f"{folder / where}: {why}", err=True)
    if problems:
        raise TrarError(
            f"{len(result.repaired)} file(s) repaired, {len(problems)} problem(s) stay; "
            "see the lines above"
        )
    if not as_json:
        did = (
            f"{len(result.repaired)} file(s) repaired, " if result.repaired else "nothing damaged, "
        )
        click.echo(f"{folder}: {did}the store is sound")
