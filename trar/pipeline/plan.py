"""Decides, before the first byte is written, what a prepare reads and writes, and that it joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trar.errors import ConfigError, RawDataError, StoreError
from trar.features.schema import STORE_FILE, FeatureSpec, StoreMeta, read_meta
from trar.features.writer import ShardPlace
from trar.pipeline.config import PrepareConfig
from trar.pipeline.sources import Images, Questions, Source, open_source
from trar.pipeline.transforms import orient

_SHARD_IMAGES, _SHARD_BYTES = 1024, 256 << 20


@dataclass(frozen=True)
class ImagePlan:
    """One image split to write: its images in row order, cut into shards."""

    split: str
    images: Images
    shard_images: int

    def parts(self) -> list[tuple[int, Images]]:
        """Shard number and images of every shard."""
        starts = range(0, len(self.images), self.shard_images)
        return [
            (shard, self.images.part(start, min(len(self.images), start + self.shard_images)))
            for shard, start in enumerate(starts)
        ]


@dataclass(frozen=True)
class QuestionPlan:
    """One question split to write, joined: question i is about row ``image_row[i]`` of image
    split number ``image_split[i]`` of ``image_splits``."""

    split: str
    questions: Questions
    image_splits: list[str]
    image_split: NDArray[np.uint8]
    image_row: NDArray[np.int32]


@dataclass(frozen=True)
class Plan:
    """Everything a prepare is going to do."""

    config: PrepareConfig
    folder: Path
    source: Source
    splits: list[str]
    spec: FeatureSpec
    images: dict[str, ImagePlan]
    questions: dict[str, QuestionPlan]
    existing: StoreMeta | None

    def place(self, split: str, shard: int) -> ShardPlace:
        """Where a shard goes."""
        plan = self.images[split]
        return ShardPlace(self.folder, split, shard, plan.shard_images, self.spec)


def make_plan(config: PrepareConfig) -> Plan:
    """Read the question files and the names of the feature files, and join them.

    Raises:
        RawDataError: a raw file is missing or damaged, or questions have no image.
        ConfigError: a split or an option that does not fit the data.
        StoreError: the store that is there does not fit what is asked.
    """
    source = open_source(config)
    splits = parse_splits(config.split, source.splits)
    folder = config.store / source.dataset
    existing = read_meta(folder) if (folder / STORE_FILE).exists() else None
    questions = {split: source.questions(split) for split in splits}
    names = list(dict.fromkeys(name for split in splits for name in source.image_splits(split)))
    images = {name: source.images(name) for name in names}
    if config.limit is not None:
        images = {name: one.part(0, config.limit) for name, one in images.items()}
        questions = {
            split: _about(one, [images[name] for name in source.image_splits(split)])
            for split, one in questions.items()
        }
    spec = _feature_spec(config, source.grid, images[names[0]], existing)
    shard_images = config.shard_images or max(1, min(_SHARD_IMAGES, _SHARD_BYTES // spec.row_bytes))
    kept = (
        {name: one.shard_images for name, one in existing.image_splits.items()} if existing else {}
    )
    return Plan(
        config,
        folder,
        source,
        splits,
        spec,
        {name: ImagePlan(name, one, kept.get(name, shard_images)) for name, one in images.items()},
        {
            split: _join(split, one, source.image_splits(split), images)
            for split, one in questions.items()
        },
        existing,
    )


def parse_splits(text: str, known: Sequence[str]) -> list[str]:
    """``train+val`` -> [train, val].

    Raises:
        ConfigError: a split that this dataset does not have, or one named twice.
    """
    splits = text.split("+")
    for split in splits:
        if split not in known:
            raise ConfigError(
                f"--split {text}: {split!r} is no split of this dataset; it has {', '.join(known)}"
            )
    if len(set(splits)) != len(splits):
        raise ConfigError(f"--split {text}: a split is named twice")
    return splits


def _about(questions: Questions, images: list[Images]) -> Questions:
    wanted = np.concatenate([one.ids for one in images])
    kept = np.flatnonzero(np.isin(np.asarray(questions.image_ids, np.int64), wanted))
    return questions.take(kept.tolist())


def _feature_spec(
    config: PrepareConfig, grid: int, images: Images, existing: StoreMeta | None
) -> FeatureSpec:
    width = orient(images.read(0), grid, images.name(0)).shape[1]
    if config.feature_dim not in (None, width):
        raise ConfigError(
            f"--feature-dim {config.feature_dim}: {images.name(0)} has {width} channels a cell"
        )
    spec = FeatureSpec(grid * grid, width, config.dtype, (grid, grid))
    if existing is not None and existing.feature != spec:
        old = existing.feature
        raise StoreError(
            f"{config.store / existing.dataset}: this store holds {old.rows} x {old.width} "
            f"{old.dtype} features, this prepare would add {spec.rows} x {spec.width} "
            f"{spec.dtype}; use the same extractor and --dtype, or another --store"
        )
    return spec


def _join(
    split: str, questions: Questions, names: list[str], images: dict[str, Images]
) -> QuestionPlan:
    wanted = np.asarray(questions.image_ids, np.int64)
    image_split = np.zeros(len(wanted), np.uint8)
    image_row = np.full(len(wanted), -1, np.int32)
    for number, name in enumerate(names):
        ids = images[name].ids
        row = np.searchsorted(ids, wanted)
        found = (row < len(ids)) & (ids[np.minimum(row, len(ids) - 1)] == wanted)
        image_split[found], image_row[found] = number, row[found]
    missing = np.flatnonzero(image_row < 0)
    if len(missing):
        first = int(missing[0])
        absent = len(np.unique(wanted[missing]))
        raise RawDataError(
            f"{len(missing)} of {len(wanted)} questions of split {split!r} have no image: features "
            f"of {absent} images are missing from {' and '.join(names)} "
            f"({sum(len(images[name]) for name in names)} feature files found). The first is "
            f"question {questions.ids[first]} about image {wanted[first]}. Complete the feature "
            "folder (half-unpacked archive?), or prepare a part of it with --limit"
        )
    if not len(wanted):
        raise RawDataError(f"split {split!r} has no questions about these images")
    return QuestionPlan(split, questions, names, image_split, image_row)
