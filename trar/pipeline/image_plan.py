"""How the images of one split are cut into shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.features.schema import FeatureSpec
from trar.pipeline.readers.image import Images


@dataclass(frozen=True)
class ImagePart:
    """One shard's images; ``skip_rows`` and ``flat_rows`` as in ``shard_writer.ShardPlace``."""

    shard: int
    images: Images
    skip_rows: int = 0
    flat_rows: int = 0


@dataclass(frozen=True)
class ImagePlan:
    """One image split to write: its images in row order, cut into shards of ``shard_images``
    chunks; ``offsets`` (images + 1,) where images are ragged."""

    split: str
    images: Images
    shard_images: int
    offsets: NDArray[np.int64] | None = None

    def parts(self, spec: FeatureSpec) -> list[ImagePart]:
        """What each shard is made of."""
        if self.offsets is not None:
            return _ragged_parts(self.images, self.offsets, self.shard_images * spec.chunk_rows)
        starts = range(0, len(self.images), self.shard_images)
        return [
            ImagePart(
                shard, self.images.part(start, min(len(self.images), start + self.shard_images))
            )
            for shard, start in enumerate(starts)
        ]


def _ragged_parts(images: Images, offsets: NDArray[np.int64], shard_rows: int) -> list[ImagePart]:
    """Shards of equal numbers of regions; an image across a border belongs to both sides.

    An image begins in the shard of its first region; one without regions, in that of the next.
    """
    total = int(offsets[-1])
    shards = max(1, -(-total // shard_rows))
    begins = np.minimum(offsets[:-1] // shard_rows, shards - 1)
    parts = []
    for shard in range(shards):
        first_row, last_row = shard * shard_rows, min(total, (shard + 1) * shard_rows)
        start, stop = np.searchsorted(begins, [shard, shard + 1]).tolist()
        if offsets[start] > first_row:  # the shard opens with the rest of an earlier image
            start = int(np.searchsorted(offsets, first_row, "right")) - 1
        stop = max(stop, start + 1)
        skip = max(0, first_row - int(offsets[start]))
        parts.append(ImagePart(shard, images.part(start, stop), skip, last_row - first_row))
    return parts
