"""Finds out, from the first images, what the features of a store look like."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import ConfigError, RawDataError, StoreError
from trar.features.progress import Progress
from trar.features.schema import Compression, FeatureSpec, StoreMeta
from trar.pipeline.config import PrepareConfig
from trar.pipeline.readers.arrays import orient_regions
from trar.pipeline.readers.image import Form, Images, RawImage
from trar.pipeline.transforms import fits_grid, orient_grid

_SAMPLED = 32  # images whose number of regions decides between fixed and ragged
_USUAL_REGIONS = (36, 100)  # square numbers that published region features have
_USUAL_WIDTHS = (2048, 1024)


@dataclass(frozen=True)
class Features:
    """How every image of a store is read, and what is stored of it."""

    form: Form
    spec: FeatureSpec


def find_features(
    config: PrepareConfig, images: Images, grid: int, existing: StoreMeta | None
) -> Features:
    """Read the first images of the first image split and settle the store's features.

    ``grid`` is the side to assume where neither the files nor --grid say. What an existing store
    holds is not asked again, only compared.

    Raises:
        RawDataError: no image can be read, or the first fits nothing.
        ConfigError: an option contradicts the files.
        StoreError: the existing store holds other features.
    """
    asked = _requested_grid(config, existing)
    raw, form, where = _first_image(config, images, asked, grid)
    side = _decide_grid(config, raw, asked, grid)
    if side is not None:
        width = orient_grid(raw.features, side, where).shape[1]
        spec = FeatureSpec(side * side, width, config.dtype, (side, side))
    else:
        width = orient_regions(raw.features, form, raw.boxes, where).shape[1]
        spec = FeatureSpec(1, width, config.dtype, None, boxes=raw.boxes is not None)
    if config.feature_dim not in (None, width):
        raise ConfigError(f"--feature-dim {config.feature_dim}: {where} has {width} channels")
    form = Form(side, width, config.keep_portrait)
    if side is None:
        spec = _count_regions(config, images.with_form(form), spec, existing)
    spec = msgspec.structs.replace(spec, compression=_compression(config, existing))
    if existing is not None and existing.feature != spec:
        raise StoreError(
            f"{config.store / existing.dataset}: this store holds {existing.feature.describe()}, "
            f"this prepare would add {spec.describe()}; use the same extractor, --dtype and "
            "--compress, or another --store"
        )
    return Features(form, spec)


def flat_offsets(
    config: PrepareConfig, images: Images, spec: FeatureSpec, split: str, progress: Progress
) -> NDArray[np.int64]:
    """Where each image's regions lie in the flat array, (images + 1,); an image that cannot be
    read has none if it may be skipped.

    Raises:
        RawDataError: an image cannot be read, or has more regions than ``spec.rows`` (0: any).
    """
    counts = np.zeros(len(images) + 1, np.int64)
    for row in range(len(images)):
        progress(f"count {split}", row, len(images))
        try:
            counts[row + 1] = images.regions(row)
        except RawDataError:
            if config.on_bad_image == "error":
                raise
            continue
        if spec.rows and counts[row + 1] > spec.rows:
            raise RawDataError(
                f"{images.name(row)}: {counts[row + 1]} regions, this store's images have at most "
                f"{spec.rows}; prepare {split} into another --store"
            )
    progress(f"count {split}", len(images), len(images))
    return np.cumsum(counts)


def _compression(config: PrepareConfig, existing: StoreMeta | None) -> Compression | None:
    if config.compress is None:
        return existing.feature.compression if existing is not None else None
    return None if config.compress == "none" else config.compress


def _requested_grid(config: PrepareConfig, existing: StoreMeta | None) -> int | None:
    if config.grid is None and existing is not None and existing.feature.grid is not None:
        return existing.feature.grid[0]
    if config.grid is not None and config.layout in ("regions", "ragged"):
        raise ConfigError(f"--grid {config.grid} and --layout {config.layout} exclude each other")
    return config.grid


def _first_image(
    config: PrepareConfig, images: Images, asked: int | None, grid: int
) -> tuple[RawImage, Form, str]:
    """The first image that can be read; a bad one ends it unless bad ones may be skipped."""
    # as regions first: that takes any array, while a grid must have a known side
    forms = [Form(asked or grid, config.feature_dim, config.keep_portrait)]
    if asked is None and config.layout != "grid":
        forms.insert(0, Form(None, config.feature_dim, config.keep_portrait))
    first: RawDataError | None = None
    for row in range(len(images)):
        for form in forms:
            try:
                return images.with_form(form).read(row), form, images.name(row)
            except RawDataError as error:
                first = first or error
        if config.on_bad_image == "error":
            break
    assert first is not None, "an image split is never empty"
    raise first


def _decide_grid(config: PrepareConfig, raw: RawImage, asked: int | None, grid: int) -> int | None:
    """The side of the grid, or None for regions."""
    shape = raw.features.shape
    if config.layout in ("regions", "ragged"):
        return None
    if asked is not None:
        return asked
    if len(shape) == 3 and shape[1] == shape[2]:
        return int(shape[1])
    if config.layout == "auto" and raw.boxes is not None:
        return None
    if fits_grid(shape, grid):
        return grid
    if len(shape) == 2:
        known = [one for one in (config.feature_dim, *_USUAL_WIDTHS) if one in shape]
        cells = int(shape[0] if known and shape[1] == known[0] else shape[1])
        side = round(cells**0.5)
        square = known and side > 1 and side * side == cells
        if square and (config.layout == "grid" or cells not in _USUAL_REGIONS):
            return int(side)
    return grid if config.layout == "grid" or len(shape) != 2 else None


def _count_regions(
    config: PrepareConfig, images: Images, spec: FeatureSpec, existing: StoreMeta | None
) -> FeatureSpec:
    """Fixed or ragged, and how many regions."""
    if existing is not None and existing.feature.grid is None:
        rows, ragged = existing.feature.rows, existing.feature.ragged
        return FeatureSpec(rows, spec.width, spec.dtype, None, ragged, spec.boxes)
    counts = []
    for row in range(min(_SAMPLED, len(images))):
        try:
            counts.append(images.regions(row))
        except RawDataError:
            if config.on_bad_image == "error":
                raise
    fixed = len(set(counts)) == 1 and config.layout != "ragged"
    if config.layout == "regions" and not fixed:
        raise ConfigError(
            f"--layout regions: the first images have {min(counts)} to {max(counts)} regions; "
            "use --layout ragged, or auto"
        )
    rows = counts[0] if fixed else 0  # the largest is known once all images have been counted
    return FeatureSpec(rows, spec.width, spec.dtype, None, not fixed, spec.boxes)
