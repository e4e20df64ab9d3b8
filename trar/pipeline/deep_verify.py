"""Reads the raw features again and compares them with what a store holds of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError, StoreError
from trar.features.problem import Problem
from trar.features.progress import Progress
from trar.features.reader import FeatureStore
from trar.pipeline.config import PrepareConfig
from trar.pipeline.readers.image import Form, Images
from trar.pipeline.sources import open_source
from trar.pipeline.transforms import prepare_image


@dataclass(frozen=True)
class DeepResult:
    """How many images were compared, and every difference found."""

    compared: int
    problems: list[Problem]


def compare_with_raw(
    store: FeatureStore, config: PrepareConfig, progress: Progress = lambda *_: None
) -> DeepResult:
    """Compare every image of a store with its raw file.

    A raw image is oriented, checked and cast as ``prepare`` does it; what the store holds must be
    equal to the bit, and so must boxes. Images that the store says it left out are not read.
    ``config`` says where the raw files are; its ``limit`` plays no part.

    Raises:
        TrarError: the raw files of an image split cannot be found.
    """
    source = open_source(config)
    spec = store.meta.feature
    side = spec.grid[0] if spec.grid is not None else None
    form = Form(side, spec.width, config.keep_portrait)
    total = sum(one.images for one in store.meta.image_splits.values())
    compared, problems = 0, []
    for split in store.meta.image_splits:
        raw = source.images(split).with_form(form)
        row_of = {image_id: row for row, image_id in enumerate(raw.ids.tolist())}
        left_out = store.skipped(split)
        for row, image_id in enumerate(store.image_ids(split).tolist()):
            progress("images", compared, total)
            compared += 1
            if image_id in left_out:
                continue
            if image_id not in row_of:
                problems.append(Problem(f"{split}, image {image_id}", "its raw file is gone"))
                continue
            problems += _compare(store, split, row, raw, row_of[image_id], form)
    progress("images", total, total)
    return DeepResult(compared, problems)


def _compare(
    store: FeatureStore, split: str, row: int, raw: Images, raw_row: int, form: Form
) -> Iterator[Problem]:
    where = f"{split}, image {raw.ids[raw_row]}"
    try:
        image = prepare_image(raw.read(raw_row), form, store.meta.feature, raw.name(raw_row))
        held = store.read(split, [row])
    except (RawDataError, StoreError) as error:
        yield Problem(where, str(error))
        return
    features: NDArray[np.generic] = held.features[0, : held.lengths[0]]
    if features.shape != image.values.shape:
        yield Problem(where, f"stored as {features.shape}, raw {image.values.shape}")
    elif not np.array_equal(features, image.values):
        largest = float(np.abs(features.astype(np.float64) - image.values).max())
        yield Problem(
            where, f"differs from {raw.name(raw_row)} by up to {largest:g} after the cast"
        )
    if store.meta.feature.boxes:
        assert image.boxes is not None
        if not np.array_equal(store.boxes(split, [row])[0, : len(image.boxes)], image.boxes):
            yield Problem(where, f"its boxes differ from {raw.name(raw_row)}")
