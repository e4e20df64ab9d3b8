"""``trar-data``: make a store, prove it sound, say what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from trar.commands.options import PATH, json_option, on_stop, store_option
from trar.errors import TrarError


@click.command()
@click.option(
    "--dataset",
    type=click.Choice(["vqa", "easy-vqa"]),
    default="vqa",
    show_default=True,
    help="What the raw files are.",
)
@click.option(
    "--raw",
    type=PATH,
    default=Path("data"),
    show_default=True,
    help="Folder of the raw files, laid out as docs/data.md shows. easy-vqa needs none: its "
    "package carries them.",
)
@click.option(
    "--store",
    type=PATH,
    default=Path("features"),
    show_default=True,
    help="Where the store goes; the dataset becomes a folder in it.",
)
@click.option(
    "--split",
    default=None,
    help="Question splits joined by +, for example train+val+vg.  [default: train+val; easy-vqa: "
    "train+val+test]",
)
@click.option("--grid", default=8, show_default=True, help="Side of the feature grid.")
@click.option(
    "--feature-dim", type=int, help="Assert this width of a cell's features.  [default: any]"
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="How features are stored.",
)
@click.option(
    "--answers",
    type=PATH,
    help="A given answer dictionary, for example the published answer_dict.json.  [default: built "
    "from the train and val answers]",
)
@click.option(
    "--limit", type=int, help="Only this many images a split, and the questions about them."
)
@click.option("--shard-images", type=int, help="Images a shard.  [default: 1024, at most 256 MiB]")
@click.option("--workers", type=int, help="Processes that read features.  [default: one a core]")
def prepare(split: str | None, **settings: Any) -> None:
    """Turn raw files into a feature store.

    Run it again after Ctrl-C or a crash and it goes on where it stopped; run it on a finished
    store and it does nothing, or adds the splits that are missing.

    \b
    Example: trar-data prepare --raw ./data --split train+val+vg
    """
    from pydantic import ValidationError

    from trar.console import WorkProgress
    from trar.pipeline import PrepareConfig
    from trar.pipeline import prepare as run

    default = "train+val+test" if settings["dataset"] == "easy-vqa" else "train+val"
    try:
        config = PrepareConfig(split=split or default, **settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise click.BadParameter(first["msg"], param_hint=f"--{name}") from None
    stopped = "Stopped. Finished shards are kept: run the same command again to go on."
    with on_stop(stopped), WorkProgress("images") as progress:
        result = run(config, progress)
    for warning in result.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if not result.made:
        click.echo(f"{result.folder}: already complete, nothing to do")
        return
    counts = ", ".join(
        f"{name} {result.meta.question_splits[name].questions:,}" for name in result.made
    )
    kept = f"; kept {', '.join(result.kept)}" if result.kept else ""
    click.echo(f"{result.folder}: finished. Questions: {counts}{kept}")
    click.echo(f"Next: trar-data verify --store {config.store}")


@click.command()
@click.argument("place", metavar="[STORE]", type=PATH, required=False)
@store_option
@json_option
def verify(place: Path | None, store: Path, dataset: str | None, as_json: bool) -> None:
    """Prove a store sound, or name each problem.

    Every file is compared with its digest, every question with its image, answers and words.
    Exits 0 when sound and 1 when not, with one line for each problem. STORE is short for --store.

    \b
    Example: trar-data verify --store ./features
    """
    from trar.console import WorkProgress
    from trar.features import verify_store
    from trar.features.schema import find_dataset, read_meta
    from trar.fileio import human_bytes

    folder = find_dataset(place or store, dataset)
    with WorkProgress() as progress:
        problems = verify_store(folder, progress=progress)
    meta = read_meta(folder)
    size_bytes = sum(entry.bytes for entry in meta.files.values())
    if as_json:
        report = {
            "store": str(folder),
            "sound": not problems,
            "files": len(meta.files),
            "bytes": size_bytes,
            "fingerprint": meta.fingerprint,
            "problems": [{"where": one.where, "what": one.what} for one in problems],
            "raw": "not checked",
        }
        click.echo(json.dumps(report, indent=1))
    else:
        for problem in problems:
            click.echo(f"{folder / problem.where}: {problem.what}", err=True)
    if problems:
        raise TrarError(
            f"{folder}: {len(problems)} problem(s) found; delete this folder and prepare it again "
            "from the raw files"
        )
    if not as_json:
        images = sum(split.images for split in meta.image_splits.values())
        questions = sum(split.questions for split in meta.question_splits.values())
        click.echo(
            f"{folder}: sound. {len(meta.files)} files, {human_bytes(size_bytes)}, {images:,} "
            f"images, {questions:,} questions: digests and joins hold; raw: not checked"
        )


@click.command()
@click.argument("place", metavar="[STORE]", type=PATH, required=False)
@store_option
@json_option
def info(place: Path | None, store: Path, dataset: str | None, as_json: bool) -> None:
    """Show what a store holds.

    Splits, counts, sizes, and what it was made from. STORE is short for --store.

    \b
    Example: trar-data info --store ./features
    """
    from trar.console import table
    from trar.features import FeatureStore
    from trar.features.summary import summary_json, summary_rows

    opened = FeatureStore(place or store, dataset)
    if as_json:
        click.echo(json.dumps(summary_json(opened), indent=1))
    else:
        click.echo(table([*summary_rows(opened)]))
