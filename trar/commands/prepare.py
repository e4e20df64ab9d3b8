"""``trar-data prepare``: raw files to a feature store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.commands.options import PATH, PLACE, json_option, on_stop

if TYPE_CHECKING:
    from trar.pipeline import PrepareConfig, PrepareResult
    from trar.pipeline.estimate import Estimate


@click.command()
@click.option(
    "--dataset",
    type=click.Choice(["vqa", "clevr", "easy-vqa", "table"]),
    default="vqa",
    show_default=True,
    help="What the raw files are. table: one CSV, JSONL or Parquet file of your own.",
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
    "--features",
    type=PATH,
    help="Image features that are not in --raw: a folder, an archive, a TSV or an HDF5 file.",
)
@click.option(
    "--questions",
    type=PATH,
    multiple=True,
    help="A question or annotation file that is not in --raw, known by content; repeat for more.",
)
@click.option(
    "--store",
    type=PLACE,
    default=Path("features"),
    show_default=True,
    help="Where the store goes, a folder or s3://bucket/prefix; the dataset becomes a folder in "
    "it.",
)
@click.option(
    "--split",
    default=None,
    help="Question splits joined by +, for example train+val+vg; all: every one present.  "
    "[default: train+val; easy-vqa: train+val+test; table: all]",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "grid", "regions", "ragged"]),
    default="auto",
    show_default=True,
    help="Grid cells, a fixed number of regions, or any number. auto: as the first images are.",
)
@click.option(
    "--grid", type=int, help="Side of the feature grid.  [default: as the files; .pth: 8]"
)
@click.option(
    "--keep-portrait",
    is_flag=True,
    help="Leave .pth maps of portrait images upright; TRAR's published features turn them.",
)
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
    "--format",
    type=click.Choice(["zarr", "hdf5"]),
    help="The container of the arrays.  [default: as the store is; a new one zarr]",
)
@click.option(
    "--compress",
    type=click.Choice(["none", "zstd"]),
    help="zstd: two thirds of the disk, read many times slower; Zarr in a local folder alone.  "
    "[default: as the store is; a new one none]",
)
@click.option(
    "--on-bad-image",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="An image that is missing or unreadable: stop, or leave it and its questions out.",
)
@click.option(
    "--answers",
    type=PATH,
    help="A given answer dictionary for --targets, for example the published answer_dict.json.  "
    "[default: built from the train and val answers]",
)
@click.option(
    "--targets",
    type=click.Choice(["openvqa", "lxmert"]),
    default="openvqa",
    show_default=True,
    help="lxmert: also targets by LXMERT's rule, answers counted as they stand, in the order of "
    "its trainval_label2ans.json (from --answers or --raw).",
)
@click.option(
    "--tokenizer",
    type=click.Choice(["openvqa", "wordpiece"]),
    default="openvqa",
    show_default=True,
    help="wordpiece: also BERT's word pieces of each question, as LXMERT reads.",
)
@click.option(
    "--wordpiece-vocab",
    type=PATH,
    help="The vocab.txt or tokenizer.json of bert-base-uncased, for --tokenizer wordpiece.",
)
@click.option(
    "--vg-answer-weight",
    type=click.Choice(["as_counted", "one"]),
    default="as_counted",
    show_default=True,
    help="Target of a Visual Genome answer: by its number of copies (one copy: 0.3), or 1.",
)
@click.option(
    "--vectors",
    metavar="SOURCE",
    help="Word vectors to cut to the vocabulary: a spaCy pipeline or folder, a GloVe .txt or .zip.",
)
@click.option(
    "--vectors-lookup",
    type=click.Choice(["spacy", "plain"]),
    default="spacy",
    show_default=True,
    help="A word's vector: the mean over spaCy's tokens of it (TRAR), or its own or zeros (RWSAN).",
)
@click.option(
    "--limit", type=int, help="Only this many images a split, and the questions about them."
)
@click.option("--shard-images", type=int, help="Images a shard.  [default: 1024, at most 256 MiB]")
@click.option("--workers", type=int, help="Processes that read features.  [default: one a core]")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="A dask cluster that reads the features instead, tcp://host:port; all its machines must "
    "see --raw and --store under the same paths.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be read and written; write nothing.")
@json_option
def prepare(dry_run: bool, as_json: bool, **settings: Any) -> None:
    """Turn raw files into a feature store.

    Run it again after Ctrl-C or a crash and it goes on where it stopped; run it on a finished
    store and it does nothing, or adds the splits, word vectors, word pieces or targets that are
    missing.

    \b
    Example: trar-data prepare --raw ./data --split train+val+vg
    """
    from pydantic import ValidationError

    from trar.console import WorkProgress
    from trar.pipeline import PrepareConfig
    from trar.pipeline import prepare as run
    from trar.pipeline.estimate import estimate

    try:
        config = PrepareConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise click.BadParameter(first["msg"], param_hint=f"--{name}") from None
    if dry_run:
        _show_estimate(estimate(config), as_json)
        return
    stopped = "Stopped. Finished shards are kept: run the same command again to go on."
    with on_stop(stopped) as check, WorkProgress("images", check) as progress:
        result = run(config, progress)
    if as_json:
        click.echo(json.dumps(_result_json(result), indent=1))
    else:
        _show_result(config, result)


def _show_result(config: PrepareConfig, result: PrepareResult) -> None:
    for warning in result.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if result.vectors is not None:
        share = 100 * result.vectors.covered / result.vectors.tokens
        click.echo(
            f"word vectors {result.vectors.name}: {result.vectors.covered:,} of "
            f"{result.vectors.tokens:,} tokens ({share:.1f} %) from {result.vectors.made_from}"
        )
    elif not result.made and not result.remade and not result.added:
        click.echo(f"{result.folder}: already complete, nothing to do")
        return
    if result.added:
        click.echo(f"added to every split: {', '.join(result.added)}")
    counts = ", ".join(
        f"{name} {result.meta.question_splits[name].questions:,}" for name in result.made
    )
    kept = f"; kept {', '.join(result.kept)}" if result.kept else ""
    if result.remade:
        click.echo(f"made anew, their raw files have changed: {', '.join(result.remade)}")
    click.echo(f"{result.folder}: finished. Questions: {counts or 'none new'}{kept}")
    click.echo(f"Next: trar-data verify --store {config.store}")


def _result_json(result: PrepareResult) -> dict[str, Any]:
    from trar.features.summary import meta_json

    return {
        "folder": str(result.folder),
        "made": result.made,
        "kept": result.kept,
        "remade": result.remade,
        "added": result.added,
        "warnings": result.warnings,
        "store": meta_json(result.meta),
    }


def _show_estimate(found: Estimate, as_json: bool) -> None:
    from trar.console import duration, table
    from trar.fileio import human_bytes

    if as_json:
        plain = {**found.__dict__, "folder": str(found.folder)}
        click.echo(json.dumps(plain, indent=1))
        return
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)
    free = "no limit known"
    if found.free_bytes is not None:
        enough = "enough" if found.free_bytes >= found.write_bytes else "NOT ENOUGH"
        free = f"{human_bytes(found.free_bytes)}: {enough}"
    time_left = "unknown" if found.seconds is None else f"about {duration(found.seconds)}"
    rows = [("store", str(found.folder)), ("features", found.features)]
    rows += [("read", f"{path}, {human_bytes(size)}") for path, size in found.reads.items()]
    rows += [(f"questions {name}", f"{count:,}") for name, count in found.questions.items()]
    rows += [(f"images {name}", f"{count:,}") for name, count in found.images.items()]
    if found.added:
        rows.append(("added to every split", ", ".join(found.added)))
    rows += [
        ("already there", ", ".join(found.kept) or "nothing"),
        ("shards", f"{found.shards}, {found.finished_shards} finished by an earlier run"),
        ("write", f"at most {human_bytes(found.write_bytes)}"),
        ("free", free),
        ("time", f"{time_left}, from a few images read now"),
    ]
    click.echo(table(rows))
    click.echo("Nothing was written (--dry-run).")
