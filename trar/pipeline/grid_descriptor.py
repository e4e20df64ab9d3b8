"""A small hand-made descriptor of 8x8-pixel cells, for images of one flat shape (easy-VQA).

It stands in for a convolutional network where the question is how to train on grid features, not
how to get them: edge orientations tell a triangle from a circle or a rectangle, colour statistics
tell the colour. Shapes: n images, 64 cells in raster order, c channels a cell.

Source: Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005, as
``skimage.feature.hog`` computes it. Unlike theirs, each cell is normalised alone, by its sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import TrarError

IMAGE_SIDE = 64  # pixels
CELL_SIDE = 8  # pixels
GRID_SIDE = IMAGE_SIDE // CELL_SIDE
ORIENTATIONS = 9  # unsigned, so a bin is 20 degrees wide

CHANNELS: tuple[str, ...] = (
    *(f"gradient_{20 * k}_{20 * k + 20}_degrees" for k in range(ORIENTATIONS)),
    *(f"{statistic}_{colour}" for statistic in ("mean", "std", "min", "max") for colour in "rgb"),
)
"""What each channel is, in the order of the last axis of ``describe_cells``.

``gradient_a_b_degrees``: the share, 0 to 1, of the cell's gradient magnitude whose direction lies
in [a, b) degrees; 0 is a horizontal gradient, which is a vertical edge. The nine shares add up to 1
where the cell holds an edge (a little less where it is faint), and are all 0 where it is flat.
``mean``, ``std`` (population), ``min`` and ``max`` of each colour: 0 to 1, where 1 is 255.
"""


def describe_cells(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe each cell of (n, 64, 64, 3) uint8 RGB images: (n, 64, len(CHANNELS)) float32.

    Cells are in raster order: cell ``8 * row + column`` covers the pixels
    ``[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]``. The gradient at a pixel is the central
    difference of the colour with the greatest magnitude, and 0 across the border of the image; it
    reads one pixel of the neighbouring cells, so that an edge between two cells is seen by both.
    Each image is described alone: the same image gives the same bits in any batch.

    Raises:
        TypeError: the images are not uint8.
        ValueError: they are not (n, 64, 64, 3).
        TrarError: scikit-image is not installed.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"images are {images.dtype}, expected uint8")
    if images.ndim != 4 or images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE, 3):
        raise ValueError(
            f"images have shape {images.shape}, expected (n, {IMAGE_SIDE}, {IMAGE_SIDE}, 3)"
        )
    cells = np.empty((len(images), GRID_SIDE**2, len(CHANNELS)), np.float32)
    for row, image in enumerate(images):
        cells[row, :, :ORIENTATIONS] = _orientation_shares(image)
        cells[row, :, ORIENTATIONS:] = _colour_statistics(image)
    return cells


def standardise(
    values: NDArray[np.floating[Any]],
    mean: NDArray[np.floating[Any]],
    scale: NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """``(values - mean) / scale``, channel by channel, in float32.

    values: (..., c). mean and scale: (c,), the mean and the standard deviation of each channel over
    all cells of the *training* images, in float32. With those no cell becomes all zeros, which
    would read as padding: the nine gradient shares of a cell add up to about 0 or about 1, those of
    the mean to something in between.

    Raises:
        ValueError: mean or scale is not (c,), or a scale is not a positive number.
    """
    channels = values.shape[-1:]
    if mean.shape != channels or scale.shape != channels:
        raise ValueError(
            f"mean {mean.shape} and scale {scale.shape} of values with {channels} channels"
        )
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(f"every scale must be positive, found {scale.min()}")
    centred = values.astype(np.float32) - mean.astype(np.float32)
    return np.asarray(centred / scale.astype(np.float32), np.float32)


def _orientation_shares(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(64, 9). A block is one cell, as its neighbours' contrast is no part of its shape."""
    try:
        from skimage.feature import hog
    except ImportError:
        raise TrarError(
            "describing easy-VQA images needs scikit-image: pip install 'trar[easy-vqa]'"
        ) from None
    histogram: NDArray[np.float64] = hog(
        image,
        orientations=ORIENTATIONS,
        pixels_per_cell=(CELL_SIDE, CELL_SIDE),
        cells_per_block=(1, 1),
        block_norm="L1",
        channel_axis=-1,
    )
    return histogram.reshape(GRID_SIDE**2, ORIENTATIONS)


def _colour_statistics(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(64, 12), from exact integer sums: no order of summation shows in the result."""
    pixels = CELL_SIDE**2
    tiles = image.reshape(GRID_SIDE, CELL_SIDE, GRID_SIDE, CELL_SIDE, 3)
    cells = tiles.transpose(0, 2, 4, 1, 3).reshape(GRID_SIDE**2, 3, pixels).astype(np.int64)
    total = cells.sum(axis=-1)
    spread = pixels * (cells * cells).sum(axis=-1) - total * total
    statistics = (total / pixels, np.sqrt(spread) / pixels, cells.min(axis=-1), cells.max(axis=-1))
    return np.concatenate(statistics, axis=-1) / 255
