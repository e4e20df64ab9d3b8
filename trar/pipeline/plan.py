"""Decides, before the first byte is written, what a prepare reads and writes, and that it joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import ConfigError, StoreError
from trar.features.containers import open_backend, refuse_compression
from trar.features.progress import Progress
from trar.features.reader import SCHEME
from trar.features.remake import remake_folder
from trar.features.schema import STORE_FILE, Container, FeatureSpec, StoreMeta, read_meta
from trar.features.shard_writer import ShardPlace
from trar.pipeline.config import PrepareConfig
from trar.pipeline.dictionaries import Dictionaries, find_added
from trar.pipeline.image_plan import ImagePart, ImagePlan
from trar.pipeline.question_plan import QuestionPlan, about_images, join_questions
from trar.pipeline.readers.image import Form, Images
from trar.pipeline.sources import Questions, Source, open_source
from trar.pipeline.spec import find_features, flat_offsets
from trar.pipeline.vocabulary import Answers, build_answers, load_answers

_SHARD_IMAGES, _SHARD_BYTES = 1024, 256 << 20


@dataclass(frozen=True)
class Plan:
    """Everything a prepare is going to do. ``missing`` are images, by image split, that questions
    ask about and that are not there, where those may be skipped. ``added`` are the word
    pieces and answers that the store has or gets beside openvqa's. ``remake``: parts of a finished
    store are made anew."""

    config: PrepareConfig
    folder: Path
    source: Source
    splits: list[str]
    form: Form
    spec: FeatureSpec
    images: dict[str, ImagePlan]
    questions: dict[str, QuestionPlan]
    answers: Answers
    existing: StoreMeta | None
    added: Dictionaries
    missing: dict[str, list[int]] = field(default_factory=dict)
    remake: bool = False

    @property
    def root(self) -> Path:
        """Where shards are written: the dataset's folder, or aside while parts are made anew."""
        return remake_folder(self.folder) if self.remake else self.folder

    @property
    def container(self) -> Container:
        """What the store's arrays are in: an existing store's own, else what is asked for."""
        return self.existing.container if self.existing else self.config.format or "zarr"

    @property
    def to_add(self) -> Dictionaries:
        """What a finished store gets beside what it has, for all of its splits."""
        return self.added.missing_from(self.existing) if self.existing else Dictionaries()

    def weight_one(self, source: str) -> bool:
        """Whether every annotated answer to this source's questions has target 1."""
        return source == "vg" and self.config.vg_answer_weight == "one"

    def place(self, split: str, part: ImagePart) -> ShardPlace:
        """Where a shard goes."""
        return ShardPlace(
            self.root,
            split,
            part.shard,
            self.images[split].shard_images,
            self.spec,
            self.container,
            skip_rows=part.skip_rows,
            flat_rows=part.flat_rows,
        )


def make_plan(config: PrepareConfig, progress: Progress = lambda *_: None) -> Plan:
    """Read the question files and the names of the feature files, and join them.

    ``progress(stage, done, total)`` counts question and image splits, then ragged images.

    Raises:
        RawDataError: a raw file is missing or damaged, or questions have no image.
        ConfigError: a split or an option that does not fit the data.
        StoreError: the store that is there does not fit what is asked.
    """
    if config.format is not None:
        open_backend(config.store, config.format)  # refuses HDF5 where there are no files
    source = open_source(config)
    splits = parse_splits(config.wanted_split, source.splits, source.present())
    for split in splits:
        source.files(split)  # the plainest problem is named first: a file that is not there
    folder = config.store / source.dataset
    existing = read_meta(folder) if (folder / STORE_FILE).exists() else None
    if existing is not None and config.format not in (None, existing.container):
        raise StoreError(
            f"{folder}: this store is in {existing.container}, --format {config.format} was asked "
            "for; leave --format out, or prepare into another --store"
        )
    if config.compress == "zstd":
        refuse_compression(folder, existing.container if existing else config.format or "zarr")
    added = find_added(config, source, folder, existing)
    given = config.answers if config.targets == SCHEME else None
    if existing is None:
        answers = build_answers(source, given)
    else:
        answers = load_answers(folder, existing, given)
    source.use_answers(answers.dictionary)
    names = list(dict.fromkeys(name for split in splits for name in source.image_splits(split)))
    questions: dict[str, Questions] = {}
    images: dict[str, Images] = {}
    for number, split in enumerate(splits):
        progress("plan", number, len(splits) + len(names))
        questions[split] = source.questions(split)
    for number, name in enumerate(names, start=len(splits)):
        progress("plan", number, len(splits) + len(names))  # an archive is indexed here
        images[name] = source.images(name)
    progress("plan", len(splits) + len(names), len(splits) + len(names))
    if config.limit is not None:
        images = {name: one.part(0, config.limit) for name, one in images.items()}
        questions = {
            split: about_images(one, [images[name] for name in source.image_splits(split)])
            for split, one in questions.items()
        }
    found = find_features(config, images[names[0]], source.grid, existing)
    plans, spec = _plan_images(config, images, found.form, found.spec, existing, progress)
    missing: dict[str, list[int]] = {}
    joined = {
        split: join_questions(config, split, one, source.image_splits(split), images, missing)
        for split, one in questions.items()
    }
    return Plan(
        config=config,
        folder=folder,
        source=source,
        splits=splits,
        form=found.form,
        spec=spec,
        images=plans,
        questions=joined,
        answers=answers,
        existing=existing,
        added=added,
        missing=missing,
    )


def check_join(config: PrepareConfig) -> None:
    """Read the question files that are there and the names of their images, and join them.

    Raises:
        TrarError: as ``make_plan``, as far as no image is read.
    """
    source = open_source(config)
    missing: dict[str, list[int]] = {}
    for split in parse_splits(config.wanted_split, source.splits, source.present()):
        names = source.image_splits(split)
        images = {name: source.images(name) for name in names}
        join_questions(config, split, source.questions(split), names, images, missing)


def _plan_images(
    config: PrepareConfig,
    images: dict[str, Images],
    form: Form,
    spec: FeatureSpec,
    existing: StoreMeta | None,
    progress: Progress,
) -> tuple[dict[str, ImagePlan], FeatureSpec]:
    """Shards of each image split; ragged ones are counted, which also gives the longest."""
    images = {name: one.with_form(form) for name, one in images.items()}
    kept = (
        {name: one.shard_images for name, one in existing.image_splits.items()} if existing else {}
    )
    shard_images = config.shard_images
    if shard_images is None:
        shard_images = max(1, min(_SHARD_IMAGES, _SHARD_BYTES // spec.chunk_bytes))
    offsets: dict[str, NDArray[np.int64] | None] = dict.fromkeys(images)
    if spec.ragged:
        counted = {
            name: flat_offsets(config, one, spec, name, progress) for name, one in images.items()
        }
        longest = max(int(np.diff(one).max(initial=0)) for one in counted.values())
        if not spec.rows:
            spec = msgspec.structs.replace(spec, rows=longest)
        offsets.update(counted)
    plans = {
        name: ImagePlan(name, one, kept.get(name, shard_images), offsets[name])
        for name, one in images.items()
    }
    return plans, spec


def parse_splits(text: str, known: Sequence[str], present: Sequence[str]) -> list[str]:
    """``train+val`` -> [train, val]; ``all`` is every split that is ``present``.

    Raises:
        ConfigError: a split that this dataset does not have, or one named twice.
    """
    splits = list(present) if text == "all" and "all" not in known else text.split("+")
    for split in splits:
        if split not in known:
            raise ConfigError(
                f"--split {text}: {split!r} is no split of this dataset; it has {', '.join(known)}"
            )
    if len(set(splits)) != len(splits):
        raise ConfigError(f"--split {text}: a split is named twice")
    return splits
