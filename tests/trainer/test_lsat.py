"""LSAT: windows by one mask are windows one by one; positions are relative."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from systems import batch_for, small_model, small_run

from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.loop import train
from trar.trainer.models.lsat import (
    LsatConfig,
    WindowAttention,
    rotary_angles,
    rotate,
    window_mask,
)

SIZES = {"vocabulary_size": 20, "answer_count": 7, "width": 16, "heads": 2}


def window_by_window(attention: WindowAttention, x: torch.Tensor) -> torch.Tensor:
    """The same without a mask: each window's queries with the keys of the windows they see."""
    config, (batch, cells, width) = attention.config, x.shape
    channels = width // config.heads
    projected = attention.query_key_value(x).view(batch, cells, 3, config.heads, channels)
    q, k, v = projected.permute(2, 0, 3, 1, 4)
    if config.rotary:
        place = torch.arange(cells)[:, None]
        angle = place / 10000 ** (2 * torch.arange(channels // 2)[None, :] / channels)
        turn = torch.polar(torch.ones_like(angle), angle)
        q, k = (
            torch.view_as_real(torch.complex(*one.chunk(2, -1)) * turn).movedim(-1, -2).flatten(-2)
            for one in (q, k)
        )
    last = -(-cells // config.window) - 1
    outs = []
    for number in range(last + 1):
        own = slice(number * config.window, (number + 1) * config.window)
        seen = slice(
            max(number - config.look_back, 0) * config.window,
            (min(number + config.look_forward, last) + 1) * config.window,
        )
        scores = q[:, :, own] @ k[:, :, seen].mT / channels**0.5
        outs.append(scores.softmax(-1) @ v[:, :, seen])
    return attention.merge(torch.cat(outs, 2).transpose(1, 2).flatten(2))


@settings(max_examples=25)
@given(
    side=st.integers(1, 6),
    window=st.integers(1, 40),
    look_back=st.integers(0, 3),
    look_forward=st.integers(0, 3),
    rotary=st.booleans(),
)
def test_one_masked_attention_equals_a_loop_over_the_windows(
    side: int, window: int, look_back: int, look_forward: int, rotary: bool
) -> None:
    torch.manual_seed(0)
    window = min(window, side**2)
    config = LsatConfig(
        **SIZES,
        grid_side=side,
        window=window,
        look_back=look_back,
        look_forward=look_forward,
        rotary=rotary,
    )
    attention = WindowAttention(config).double().eval()
    x = torch.randn(2, side**2, 16, dtype=torch.float64)
    mask = window_mask(side**2, window, look_back, look_forward)
    masked, looped = attention(x, mask[None, None]), window_by_window(attention, x)
    torch.testing.assert_close(masked, looped, rtol=0, atol=1e-6 if rotary else 1e-13)


def test_a_cell_sees_its_window_and_those_beside_it() -> None:
    mask = window_mask(10, 4, 1, 0)  # windows 0-3, 4-7 and 8-9
    assert mask[0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert mask[5].nonzero().flatten().tolist() == list(range(8))
    assert mask[9].nonzero().flatten().tolist() == list(range(4, 10))


def test_scores_depend_on_how_far_apart_two_cells_are_and_on_nothing_else() -> None:
    torch.manual_seed(0)
    angles = rotary_angles(12, 8).double()
    q, k = torch.randn(2, 8, dtype=torch.float64)
    every = torch.ones(1, 1, 12, 1, dtype=torch.float64)
    scores = (
        rotate(q * every, angles.cos(), angles.sin())
        @ rotate(k * every, angles.cos(), angles.sin()).mT
    )[0, 0]
    for apart in range(12):
        diagonal = scores.diagonal(apart)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-6)
    assert scores[0, 0] == pytest.approx(float(q @ k))


def test_a_window_as_large_as_the_grid_without_positions_is_mcan() -> None:
    lsat = small_model("lsat", window=16, rotary=False)
    mcan = small_model("mcan")
    mcan.load_state_dict(lsat.state_dict())
    inputs = batch_for(5)
    torch.testing.assert_close(lsat(*inputs), mcan(*inputs), rtol=0, atol=1e-12)


def test_padded_cells_whose_windows_are_all_padding_change_nothing() -> None:
    model = small_model("lsat", window=4, look_back=0, look_forward=0)
    features, question, cells = batch_for(4)
    cells[:, 4:] = False
    logits = model(features, question, cells)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    features = features.clone()
    features[:, 4:] = 3.0
    torch.testing.assert_close(model(features, question, cells), logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window is 0; it must be a whole number, 1 or more"),
        ({"window": 65}, "window is 65 cells, the grid of 8x8 has 64; .* two rows .16."),
        ({"look_back": -1}, "look_back is -1; it must be a whole number, 0 or more"),
        ({"width": 6, "heads": 2}, "a head of 3 channels has no pairs to rotate"),
        ({"width": 5, "heads": 2}, "width 5 is not a multiple of heads 2"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
        ({"layer_norm": "quick"}, "layer_norm is 'quick'; choose 'exact' or 'fast'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LsatConfig(**{**SIZES, **change})


def test_a_window_that_does_not_fit_the_grid_of_the_store_leaves_no_run(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    message = "window is 28 cells, the grid of 4x4 has 16; .*`trar-data prepare --features DIR`"
    with pytest.raises(ConfigError, match=message):
        train(small_run("lsat", shared_store.path, tmp_path, "model.window=28"))
    assert not list(tmp_path.iterdir())


def test_features_of_another_grid_are_refused() -> None:
    model = small_model("lsat")
    features, question, cells = batch_for(2)
    with pytest.raises(ConfigError, match="grid_side 4 means 16 cells, the image features have 9"):
        model(features[:, :9], question, cells[:, :9])
