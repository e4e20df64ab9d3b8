"""The easy-VQA cell descriptor: where it looks, what it tells apart, and that it never varies."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trar.errors import TrarError
from trar.pipeline.grid_descriptor import CHANNELS, describe_cells, standardise

pytest.importorskip("skimage")

GRADIENTS = [k for k, name in enumerate(CHANNELS) if name.startswith("gradient")]
Images = NDArray[np.uint8]


def canvas(*boxes: tuple[int, int, int, int], colour: tuple[int, int, int] = (0, 0, 255)) -> Images:
    """One near-white image with filled boxes (top, left, bottom, right), (1, 64, 64, 3)."""
    image = np.full((1, 64, 64, 3), (240, 245, 250), np.uint8)
    for top, left, bottom, right in boxes:
        image[:, top:bottom, left:right] = colour
    return image


def channel(cells: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return cells[..., CHANNELS.index(name)]


def noise(count: int) -> Images:
    return np.random.default_rng(7).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_channels_are_named_once_and_shape_and_dtype_are_as_promised() -> None:
    cells = describe_cells(noise(3))
    assert cells.shape == (3, 64, len(CHANNELS))
    assert cells.dtype == np.float32
    assert len(set(CHANNELS)) == len(CHANNELS)
    assert describe_cells(noise(0)).shape == (0, 64, len(CHANNELS))


def test_cells_are_in_raster_order() -> None:
    for row, column in ((0, 0), (0, 7), (3, 5), (7, 0)):
        image = canvas((8 * row, 8 * column, 8 * row + 8, 8 * column + 8), colour=(0, 0, 0))
        dark = np.flatnonzero(channel(describe_cells(image)[0], "mean_r") == 0)
        assert dark.tolist() == [8 * row + column]


def test_moving_a_shape_by_one_cell_moves_its_description() -> None:
    before = describe_cells(canvas((18, 19, 37, 30))).reshape(8, 8, -1)
    down = describe_cells(canvas((26, 19, 45, 30))).reshape(8, 8, -1)
    right = describe_cells(canvas((18, 27, 37, 38))).reshape(8, 8, -1)
    np.testing.assert_array_equal(down, np.roll(before, 1, axis=0))
    np.testing.assert_array_equal(right, np.roll(before, 1, axis=1))


def test_a_flat_image_is_described_alike_everywhere_and_has_no_gradient() -> None:
    cells = describe_cells(canvas())[0]
    np.testing.assert_array_equal(cells, np.broadcast_to(cells[0], cells.shape))
    assert not cells[:, GRADIENTS].any()
    assert not channel(cells, "std_g").any()
    np.testing.assert_allclose(channel(cells, "mean_g"), 245 / 255, rtol=1e-6)


def test_vertical_horizontal_and_slanted_edges_fall_in_their_own_channel() -> None:
    vertical = describe_cells(canvas((0, 36, 64, 64)))[0, 8 * 3 + 4]
    horizontal = describe_cells(canvas((36, 0, 64, 64)))[0, 8 * 4 + 3]
    steps = np.where(np.arange(64)[:, None] > np.arange(64), 0, 255)
    slanted = describe_cells(np.repeat(steps[None, ..., None], 3, -1).astype(np.uint8))[0, 9]
    assert channel(vertical, "gradient_0_20_degrees") > 0.999
    assert channel(horizontal, "gradient_80_100_degrees") > 0.999
    # the gradient points up and to the right: 135 degrees where y grows downwards
    assert channel(slanted, "gradient_120_140_degrees") > 0.999


def test_an_edge_looks_the_same_from_either_side() -> None:
    light = np.full((1, 64, 64, 3), 255, np.uint8)
    light[:, :, 20:] = 0
    one, other = describe_cells(light), describe_cells(255 - light)
    np.testing.assert_array_equal(one[..., GRADIENTS], other[..., GRADIENTS])


def test_yellow_on_white_has_an_edge_though_its_brightness_hardly_differs() -> None:
    cells = describe_cells(canvas((20, 20, 40, 40), colour=(255, 255, 0)))[0]
    assert channel(cells[8 * 3 + 2], "gradient_0_20_degrees") > 0.999


def test_colour_statistics_equal_those_of_the_pixels() -> None:
    image = noise(1)
    cells = describe_cells(image)[0]
    for cell in (0, 9, 63):
        row, column = divmod(cell, 8)
        pixels = image[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] / 255
        for k, colour in enumerate("rgb"):
            for statistic in ("mean", "std", "min", "max"):
                expected = getattr(pixels[..., k], statistic)()
                assert channel(cells[cell], f"{statistic}_{colour}") == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(arrays(np.uint8, (2, 64, 64, 3), elements=st.integers(0, 255)))
def test_every_value_is_in_its_range(images: Images) -> None:
    cells = describe_cells(images)
    assert cells.min() >= 0
    assert cells.max() <= 1
    sums = cells[..., GRADIENTS].sum(-1)
    assert (np.isclose(sums, 0, atol=1e-6) | np.isclose(sums, 1, atol=2e-3)).all()


def test_an_image_is_described_alike_in_any_batch_and_any_memory_layout() -> None:
    images = np.concatenate([noise(5), canvas((10, 10, 30, 50))])
    together = describe_cells(images)
    np.testing.assert_array_equal(together, describe_cells(images))
    np.testing.assert_array_equal(together, describe_cells(np.asfortranarray(images)))
    np.testing.assert_array_equal(together[::-1], describe_cells(images[::-1]))
    for row in range(len(images)):
        np.testing.assert_array_equal(together[row], describe_cells(images[row : row + 1])[0])


@pytest.mark.parametrize("shape", [(64, 64, 3), (2, 64, 64), (2, 64, 64, 4), (2, 32, 64, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 64, 64, 3\)"):
        describe_cells(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="expected uint8"):
        describe_cells(np.zeros((1, 64, 64, 3), dtype))


def test_without_scikit_image_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(TrarError, match=r"trar\[easy-vqa\]"):
        describe_cells(canvas())


def test_standardised_training_cells_have_mean_0_std_1_and_none_is_all_zero() -> None:
    cells = describe_cells(np.concatenate([canvas((9, 9, 30, 50)), canvas((20, 35, 61, 60))]))
    mean = cells.mean((0, 1))
    scale = np.maximum(cells.std((0, 1)), 1e-6)
    ready = standardise(cells, mean, scale)
    varied = cells.std((0, 1)) > 1e-3
    assert ready.dtype == np.float32
    np.testing.assert_allclose(ready.mean((0, 1))[varied], 0, atol=1e-4)
    np.testing.assert_allclose(ready.std((0, 1))[varied], 1, atol=1e-3)
    assert ready.astype(np.float16).any(axis=-1).all()


def test_standardise_refuses_a_wrong_width_and_a_scale_of_zero() -> None:
    values = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="channels"):
        standardise(values, np.zeros(2, np.float32), np.ones(3, np.float32))
    with pytest.raises(ValueError, match="must be positive"):
        standardise(values, np.zeros(3, np.float32), np.array([1, 0, 1], np.float32))
