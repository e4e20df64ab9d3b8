"""``trar-data convert``: a finished store in the other container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from trar.commands.options import PLACE, json_option, on_stop, store_option

if TYPE_CHECKING:
    from trar.features.schema import Compress, Container


@click.command()
@store_option
@click.option("--to", "target", type=PLACE, required=True, help="Root of the new store.")
@click.option(
    "--format",
    "container",
    type=click.Choice(["zarr", "hdf5"]),
    required=True,
    help="The container of the new store.",
)
@click.option(
    "--compress",
    type=click.Choice(["none", "zstd"]),
    help="zstd: two thirds of the disk, read many times slower; Zarr in a local folder alone.  "
    "[default: as it is; HDF5 none]",
)
@click.option("--shard-images", type=click.IntRange(1), help="Images a shard.  [default: as it is]")
@json_option
def convert(
    store: Path,
    dataset: str | None,
    target: Path,
    container: str,
    compress: str | None,
    shard_images: int | None,
    as_json: bool,
) -> None:
    """Write a finished store again in another container, equal to the bit.

    Everything is checked as it is read. Run it again after Ctrl-C or a crash and it goes on where
    it stopped. The store that it reads stays as it is.

    \b
    Example: trar-data convert --store ./features --to ./features-h5 --format hdf5
    """
    from trar.console import WorkProgress
    from trar.features.convert import convert_store
    from trar.features.summary import meta_json
    from trar.fileio import human_bytes

    stopped = "Stopped. Finished shards are kept: run the same command again to go on."
    with on_stop(stopped) as check, WorkProgress("chunks", check) as progress:
        folder, meta = convert_store(
            store,
            target,
            cast("Container", container),
            dataset,
            shard_images,
            progress,
            compress=cast("Compress | None", compress),
        )
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "store": meta_json(meta)}, indent=1))
        return
    size_bytes = sum(entry.bytes for entry in meta.files.values())
    click.echo(
        f"{folder}: finished, {container}, {len(meta.files)} files, {human_bytes(size_bytes)}"
    )
    click.echo(f"Next: trar-data verify --store {target}")
