"""How long it takes to know where 200,000 images lie, in Zarr and in HDF5.

A store with as many shards and chunks as one of real size, but tiny images, so that its files'
indexes are the real ones. "first image" opens the store and reads one image, which needs the chunk
table that ``prepare`` wrote; "from the shards" resolves that table from the shards' own indexes.

    python benchmarks/containers.py --json figures.json     # two minutes, 70 MB of disk

How fast images then come from either container: ``benchmarks/loader.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from trar.console import table
from trar.features.containers import open_backend
from trar.features.reader import FeatureStore
from trar.features.schema import FORMAT_VERSION, Container, FeatureSpec, ImageSplit, StoreMeta
from trar.features.shard_writer import PreparedImage, ShardPlace, write_image_shard
from trar.features.writer import StoreWriter

SPLIT, SHARD_IMAGES = "train2014", 1024
SPEC = FeatureSpec(4, 8, "float16", (2, 2))
TARGETS: dict[Container, float] = {"zarr": 0.5, "hdf5": 2.0}  # seconds for 200,000 images
_COLUMNS = ("first_image_s", "first_image_cpu_s", "from_shards_s", "from_shards_cpu_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000, help="how many")
    parser.add_argument("--rounds", type=int, default=5, help="repeats of each measurement")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch), options.images, options.rounds)
    cells = [
        (row["container"], *(f"{row[name]:.3f}" for name in _COLUMNS), f"{row['target_s']:g}")
        for row in rows
    ]
    heads = ("", "first image", "by cpu", "from the shards", "by cpu", "at most")
    print(f"{options.images:,} images in shards of {SHARD_IMAGES:,}, seconds, medians")
    print(table(cells, header=heads))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(folder: Path, images: int, rounds: int) -> list[dict[str, Any]]:
    """Median seconds of each container, and of processor time (``_cpu``); interleaved."""
    stores = {container: make_store(folder, container, images) for container in TARGETS}
    taken: dict[Container, list[dict[str, float]]] = {container: [] for container in TARGETS}
    for _ in range(rounds):
        for container, store in stores.items():
            clocks = [_clocks()]
            FeatureStore(store).read(SPLIT, [images - 1])
            clocks.append(_clocks())
            open_backend(store, container).resolve_chunks(SPLIT)
            clocks.append(_clocks())
            spans = np.diff(clocks, axis=0).flatten().tolist()
            taken[container].append(dict(zip(_COLUMNS, spans, strict=True)))
    return [
        {
            "container": container,
            "images": images,
            **{
                name: round(statistics.median(one[name] for one in taken[container]), 4)
                for name in _COLUMNS
            },
            "target_s": target,
        }
        for container, target in TARGETS.items()
    ]


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def make_store(folder: Path, container: Container, images: int) -> Path:
    """A finished store without questions; its dataset folder."""
    store = folder / container / "vqa"
    image = PreparedImage(np.ones((4, 8), np.float16), np.ones(4, np.bool_))
    with StoreWriter(store, container) as writer:
        writer.create_images(SPLIT, SPEC, np.arange(images), SHARD_IMAGES)
        receipts = []
        for shard, start in enumerate(range(0, images, SHARD_IMAGES)):
            place = ShardPlace(store, SPLIT, shard, SHARD_IMAGES, SPEC, container)
            some = [image] * min(SHARD_IMAGES, images - start)
            receipts.append(write_image_shard(place, some, "made up"))
        writer.finish_images(SPLIT, SPEC, receipts)
        meta = StoreMeta(
            format_version=FORMAT_VERSION,
            dataset="vqa",
            container=container,
            feature=SPEC,
            image_splits={SPLIT: ImageSplit(images, SHARD_IMAGES, 0, 1.0, 0.0)},
            question_splits={},
            vocabularies={},
            answer_schemes={},
            files={},
            fingerprint="",
            provenance={},
        )
        writer.finish(meta, {})
    return store


if __name__ == "__main__":
    main()
