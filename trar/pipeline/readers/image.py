"""What every reader of image features gives, whatever its files look like.

Shapes: n grid cells or regions, f channels of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Form:
    """How the images of a store are to be read.

    ``grid`` is the side of a square grid (n = grid * grid), None means regions; ``width`` is f,
    None while no image has been seen. ``keep_portrait`` keeps maps of portrait images upright
    where TRAR's published features turn them (grid-feats-vqa maps only).
    """

    grid: int | None
    width: int | None = None
    keep_portrait: bool = False


@dataclass(frozen=True)
class RawImage:
    """One image as its file holds it.

    ``features``: a grid as (n, f), (f, n) or (f, grid, grid); regions as (n, f) or (f, n).
    ``boxes``: (n, 4) x1 y1 x2 y2 in pixels, and ``size``: (height, width) in pixels, or None where
    the file has none.
    """

    features: NDArray[Any]
    boxes: NDArray[Any] | None = None
    size: tuple[int, int] | None = None


class Images(Protocol):
    """The images of one image split, by row; small and picklable after ``part``.

    What one image's bytes can be wrong with (damaged, NaN, another shape) is a RawDataError of
    ``read`` or ``regions``, so that ``--on-bad-image skip`` can go on without that image.
    """

    @property
    def ids(self) -> NDArray[np.int64]:
        """Image ids, (images,) ascending."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> Images:
        """Rows start..stop."""

    def with_form(self, form: Form) -> Images:
        """The same images, read in this form."""

    def read(self, row: int) -> RawImage:
        """The image of a row.

        Raises:
            RawDataError: the image is damaged, empty, hostile, or of another form.
        """

    def regions(self, row: int) -> int:
        """How many regions a row has, found without reading its features where that is possible.

        Raises:
            RawDataError: as ``read``.
        """

    def name(self, row: int) -> str:
        """Where the row comes from (file, and member of an archive), for messages."""

    def fingerprint(self) -> str:
        """A digest that changes when the raw data of these images do."""
