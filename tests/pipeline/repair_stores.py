"""Finished stores of every kind with the raw files that they were made from, to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clevr_raw import write_clevr
from raw_data import SAMPLE, grid_features, image_ids, write_vqa_raw
from raw_forms import folder_of_npz, region_count

from trar.features.schema import read_meta
from trar.pipeline import PrepareConfig, prepare
from trar.pipeline.repair import RepairConfig, repair


@dataclass(frozen=True)
class Made:
    """A finished store, what it was made from, and its bytes. Tests change copies."""

    raw: Path
    store: Path
    dataset: str = "vqa"

    @property
    def folder(self) -> Path:
        return self.store / self.dataset

    def copy(self, place: Path) -> Made:
        shutil.copytree(self.raw, place / "raw", copy_function=shutil.copy2)
        shutil.copytree(self.store, place / "store")
        return Made(place / "raw", place / "store", self.dataset)

    def repair(self, **settings) -> object:
        return repair(self.folder, RepairConfig(raw=self.raw, workers=0, **settings))


def prepared(raw: Path, store: Path, container: str, **changes) -> Made:
    settings = {"shard_images": 20, "workers": 0, **changes}
    config = PrepareConfig(raw=raw, store=store, format=container, **settings)
    prepare(config)
    return Made(raw, store, config.dataset)


def make_grid(place: Path, container: str) -> Made:
    glove = place / "own.3d.txt"
    glove.write_text("what 1 2 3\nis 3 4 5\nthe 0 1 1\n")
    raw = write_vqa_raw(place / "raw")
    return prepared(raw, place / "store", container, vectors=str(glove), vectors_lookup="plain")


def questions_only(raw: Path, *splits: str) -> Path:
    (raw / "vqa").mkdir(parents=True)
    for split in splits:
        for path in SAMPLE.glob(f"*{split}*.json"):
            shutil.copy(path, raw / "vqa" / path.name)
    return raw


def make_fixed(place: Path, container: str) -> Made:
    raw = questions_only(place / "raw", "val2014")
    folder_of_npz(raw / "coco_extract/val2014", "val2014", image_ids("val2014"))
    return prepared(raw, place / "store", container, split="val")


def make_ragged(place: Path, container: str) -> Made:
    """3 to 20 regions an image, so that images lie across the borders of shards."""
    raw = questions_only(place / "raw", "val2014")
    folder_of_npz(raw / "coco_extract/val2014", "val2014", image_ids("val2014"), region_count)
    return prepared(raw, place / "store", container, split="val", shard_images=1)


def make_clevr(place: Path, container: str) -> Made:
    raw = place / "raw"
    for split, answers in (("train", ["red", "yes"] * 6), ("val", ["0", "yes"] * 5)):
        write_clevr(raw / "clevr/raw/questions", split, answers)
        folder = raw / "clevr/feats" / split
        folder.mkdir(parents=True)
        for number in range(len(answers) // 2):
            values = np.random.default_rng(number).random((196, 5), np.float32)
            np.savez(folder / f"{number}.npz", x=values.T.reshape(5, 14, 14))
    return prepared(raw, place / "store", container, dataset="clevr", shard_images=2)


def make_table(place: Path, container: str) -> Made:
    """Images with names, one of them unreadable and left out, and one missing."""
    raw = place / "raw"
    (raw / "features").mkdir(parents=True)
    names = [f"{letter}.jpg" for letter in "abcdefgh"]
    lines = [f'{{"image": "{name}", "question": "what?", "answer": "{name[0]}"}}' for name in names]
    (raw / "own.jsonl").write_text("\n".join(lines * 2) + "\n")
    for number, name in enumerate(names[:-1]):
        np.save(raw / f"features/{name}.npy", grid_features(number))
    (raw / "features/c.jpg.npy").write_bytes(b"junk" * 40)
    return prepared(
        raw, place / "store", container, dataset="table", on_bad_image="skip", shard_images=3
    )


KINDS: dict[str, Callable[[Path, str], Made]] = {
    "grid": make_grid,
    "fixed": make_fixed,
    "ragged": make_ragged,
    "clevr": make_clevr,
    "table": make_table,
}


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def shards_of(made: Made, split: str) -> list[set[str]]:
    """The files of each shard."""
    from trar.features.containers import open_backend

    meta = read_meta(made.folder)
    backend = open_backend(made.folder, meta.container)
    count = meta.image_splits[split].shards(meta.feature)
    return [set(backend.shard_files(split, n, meta.feature).values()) for n in range(count)]
