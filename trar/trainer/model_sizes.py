"""What the store decides about a model, and whether the model can read it at all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from trar.errors import StoreError
from trar.features.reader import FeatureStore
from trar.trainer.model_settings import ModelSettings
from trar.trainer.models import MODELS


@dataclass(frozen=True)
class FeatureSizes:
    """``feature_dim`` numbers in a row of features; ``grid_side``: cells a side of a square grid,
    None where the rows are regions or make no square."""

    feature_dim: int
    grid_side: int | None

    def describe(self) -> str:
        """For people: ``8x8 cells of 2048 numbers``."""
        side = self.grid_side
        rows = "regions" if side is None else f"{side}x{side} cells"
        return f"{rows} of {self.feature_dim} numbers"


def feature_sizes(store: FeatureStore) -> FeatureSizes:
    """The sizes of a store's features."""
    spec = store.meta.feature
    square = spec.grid is not None and spec.grid[0] == spec.grid[1]
    return FeatureSizes(spec.width, spec.grid[0] if square and spec.grid else None)


def model_config(
    settings: ModelSettings,
    *,
    vocabulary_size: int,
    answer_count: int,
    features: FeatureSizes,
) -> Any:
    """The whole config of a model: what the recipe says and what the store decides."""
    kind, _ = MODELS[settings.system]
    decided = {
        "vocabulary_size": vocabulary_size,
        "answer_count": answer_count,
        "feature_dim": features.feature_dim,
        "grid_side": features.grid_side,
    }
    fields = {field.name for field in dataclasses.fields(kind)}
    own = {name: value for name, value in decided.items() if name in fields}
    return kind(**own, **settings.model_dump(exclude={"system"}))


def check_readable(system: str, store: FeatureStore) -> None:
    """Refuse a store without what a model reads: a square grid where its config has a
    ``grid_side``; boxes in images of known size, or a square grid, where it has ``takes_boxes``.

    Raises:
        StoreError: what is missing, and the ``prepare`` that makes it.
    """
    kind, model = MODELS[system]
    spec = store.meta.feature
    if any(field.name == "grid_side" for field in dataclasses.fields(kind)):
        if spec.grid is None:
            raise StoreError(
                f"{store.path}: its features are regions ({spec.describe()}); {system} looks at a "
                "grid: prepare 8x8 or 16x16 .npy or grid-feats-vqa .pth features into a store "
                "(`trar-data prepare --features DIR`), or train mcan or rwsan, which take regions"
            )
        if spec.grid[0] != spec.grid[1]:
            raise StoreError(
                f"{store.path}: a grid of {spec.grid[0]}x{spec.grid[1]} cells; {system} needs a "
                "square one: prepare 8x8 or 16x16 features (`trar-data prepare --features DIR`)"
            )
    if not getattr(model, "takes_boxes", False):
        return
    if spec.boxes:
        _check_image_sizes(system, store)
    elif feature_sizes(store).grid_side is None:
        raise StoreError(
            f"{store.path}: its features have no boxes ({spec.describe()}); {system} reads where a "
            "region is: prepare bottom-up .npz or obj36 .tsv features, which have boxes, into a "
            "store (`trar-data prepare --features DIR`)"
        )


def _check_image_sizes(system: str, store: FeatureStore) -> None:
    for split in store.meta.image_splits:
        ids = store.image_ids(split)[(store.sizes(split) < 1).any(axis=1)]
        ids = ids[~np.isin(ids, list(store.skipped(split)))]
        if len(ids):
            raise StoreError(
                f"{store.path}: {len(ids):,} images of {split} have boxes but no height and width "
                f"(the first is {ids[0]}), and {system} reads boxes as shares of them; prepare "
                "features that say them (.tsv, or .npz with image_h and image_w) into a new store"
            )
