"""``trar-data fetch``: download the raw files of a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from trar.commands.options import PATH, json_option, on_stop
from trar.errors import RawDataError

if TYPE_CHECKING:
    from trar.pipeline.fetch import Fetched, Wanted

_MIB = 20  # bits


@click.command()
@click.option(
    "--dataset",
    type=click.Choice(["vqa", "clevr", "refcoco", "glove", "easy-vqa"]),
    default="vqa",
    show_default=True,
    help="What to fetch; vqa has the Visual Genome questions as split vg.",
)
@click.option(
    "--raw",
    type=PATH,
    default=Path("data"),
    show_default=True,
    help="Folder of the raw files; everything goes where prepare looks for it.",
)
@click.option("--split", help="Splits joined by +, for example train+val.  [default: all]")
@click.option(
    "--what",
    help="Kinds joined by commas: questions, annotations, pairs, genome, labels, answers, scenes, "
    "instances, refs, features:FORM, images, vectors.  [default: questions,annotations; all of a "
    "dataset that has neither]",
)
@click.option(
    "--mirror",
    metavar="URL",
    help="A folder on a server of yours, tried before the others: URL/ARCHIVE-NAME.",
)
@click.option("--dry-run", is_flag=True, help="Only list the files, their bytes and hosts.")
@json_option
def fetch(
    dataset: str,
    raw: Path,
    split: str | None,
    what: str | None,
    mirror: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Download raw files, resumed and verified.

    A broken download goes on where it stopped, from another mirror if need be; size and digest are
    proved before a file gets its name. Files that are already there and right are left alone;
    nothing is overwritten. Exits 1 when a file could not be had.

    \b
    Example: trar-data fetch --dataset vqa --split train+val --raw ./data
    """
    from trar.console import WorkProgress
    from trar.pipeline.fetch import fetch as run
    from trar.pipeline.fetch import plan_fetch

    splits = split.split("+") if split else None
    kinds = [one.strip() for one in what.split(",")] if what else None
    wanted = plan_fetch(dataset, raw, splits, kinds, mirror)
    if not as_json:
        click.echo(_plan_table(wanted))
    if dry_run:
        if as_json:
            click.echo(json.dumps([_wanted_json(one) for one in wanted], indent=1))
        return
    stopped = "Stopped. What came so far is kept: run the same command again to go on."
    with on_stop(stopped) as check, WorkProgress("MiB", check) as progress:

        def show(stage: str, done: int, total: int) -> None:
            progress(stage, done >> _MIB, max(total, done) >> _MIB)

        results = run(dataset, raw, splits, kinds, mirror, show)
    if as_json:
        click.echo(json.dumps([_result_json(one) for one in results], indent=1))
    else:
        for one in results:
            click.echo(f"{one.wanted.name}: {_result_line(one)}", err=one.status == "failed")
    failed = [one.wanted.name for one in results if one.status == "failed"]
    if failed:
        raise RawDataError(
            f"{len(failed)} of {len(results)} files could not be had: {', '.join(failed)}"
        )


def _plan_table(wanted: list[Wanted]) -> str:
    from trar.console import table

    rows: list[tuple[str, ...]] = [
        (
            one.name,
            "?" if one.size_bytes is None else f"{one.size_bytes:,}",
            urlsplit(one.urls[0]).hostname or "?" if one.urls else "by hand",
            one.contents,
        )
        for one in wanted
    ]
    known = [one.size_bytes for one in wanted if one.size_bytes is not None and one.urls]
    unknown = sum(one.size_bytes is None and bool(one.urls) for one in wanted)
    more = f" and {unknown} of unknown size" if unknown else ""
    folders = dict.fromkeys(str(one.folder) for one in wanted)
    return (
        f"{table(rows, ('file', 'bytes', 'from', 'holds'))}\n"
        f"{len(known)} files of {sum(known):,} bytes{more}, to {', '.join(folders)}"
    )


def _result_line(one: Fetched) -> str:
    if one.status == "failed":
        return one.note.removeprefix(f"{one.wanted.name}: ")
    place = "" if one.status == "by hand" else f", {one.path}"
    return f"{one.status}{place}: {one.note}"


def _wanted_json(one: Wanted) -> dict[str, object]:
    return {
        "name": one.name,
        "holds": [file.title() for file in one.files],
        "bytes": one.size_bytes,
        "folder": str(one.folder),
        "urls": list(one.urls),
        "by_hand": one.files[0].by_hand,
    }


def _result_json(one: Fetched) -> dict[str, object]:
    return {
        "name": one.wanted.name,
        "status": one.status,
        "path": str(one.path),
        "url": one.url,
        "sha256": one.sha256,
        "note": one.note,
    }
