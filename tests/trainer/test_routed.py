"""Routed attention against a plain loop over orders."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trar.errors import ConfigError
from trar.trainer.ops import rings as rings_module
from trar.trainer.ops.chosen import chosen_attention
from trar.trainer.ops.dropout import keep_mask, kept_share
from trar.trainer.ops.noise import gumbel_noise, sample_keys
from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention


def plain(q, k, v, route, side, orders, cells, empty_window):
    """One masked softmax per order, row by row as the equations read."""
    scores = (q @ k.mT) / q.shape[-1] ** 0.5
    size = side * side
    y, x = torch.arange(size) // side, torch.arange(size) % side
    distance = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
    mixed = torch.zeros_like(scores)
    for number, order in enumerate(orders):
        keep = (distance <= (order or side)) & cells[:, None, None, :]
        none = ~keep.any(-1, keepdim=True)
        probs = scores.masked_fill(~(keep | none), float("-inf")).softmax(-1)
        fill = 1 / size if empty_window == "uniform" else 0.0
        mixed = mixed + route[:, number, None, None, None] * probs.masked_fill(none, fill)
    return mixed @ v


def inputs(seed, side, count, *, batch=2, heads=2, channels=3, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, batch, heads, side * side, channels)
    q, k, v = torch.randn(shape, dtype=torch.float64, generator=generator)
    route = torch.randn(batch, count, dtype=torch.float64, generator=generator).softmax(-1)
    return [x.requires_grad_() for x in (q * scale, k * scale, v.clone(), route)]


def double_rings(side, orders):
    return Rings(side, orders).double()


@contextlib.contextmanager
def only(maxima_of_windows: bool):
    """With True, the form for scores far apart, which other devices than the CPU always use."""
    with pytest.MonkeyPatch.context() as patch:
        if maxima_of_windows:
            patch.setattr(rings_module, "_joint_softmax", lambda *_: None)
        yield


@pytest.mark.parametrize("maxima_of_windows", [False, True])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_equals_a_plain_loop_over_orders_with_all_gradients(maxima_of_windows, data) -> None:
    side = data.draw(st.integers(1, 5))
    orders = data.draw(
        st.lists(st.integers(0, side - 1), min_size=1, max_size=4, unique=True), "orders"
    )
    seed = data.draw(st.integers(0, 1000))
    scale = data.draw(st.sampled_from([0.1, 1.0, 20.0, 60.0]))
    empty_window = data.draw(st.sampled_from(["zero", "uniform"]))
    values = inputs(seed, side, len(orders), scale=scale)
    padded = data.draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    cells = torch.rand(2, side * side, generator=torch.Generator().manual_seed(seed)) >= padded
    rings = double_rings(side, orders)

    with only(maxima_of_windows):
        ours = routed_attention(
            *values, rings, cells=None if padded == 0 else cells, empty_window=empty_window
        )
    wanted = plain(*values, side, orders, cells, empty_window)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)
    cotangent = torch.cos(torch.arange(ours.numel(), dtype=torch.float64)).view_as(ours)
    expected = torch.autograd.grad(wanted, values, cotangent)
    found = torch.autograd.grad(ours, values, cotangent)
    largest = max(1.0, *(float(x.abs().max()) for x in expected))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one / largest, other / largest, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padded", [False, True])
def test_scores_of_a_thousand_are_exact_in_float32(padded: bool) -> None:
    side, orders, channels = 4, (0, 1, 2), 4
    generator = torch.Generator().manual_seed(0)
    # Whole numbers whose products float32 holds exactly, so that both types see the same scores.
    q, k = torch.randint(-22, 23, (2, 3, 2, 16, channels), generator=generator).float()
    v = torch.randn(3, 2, 16, channels, generator=generator)
    route = torch.randn(3, 3, generator=generator).softmax(-1)
    scores = q @ k.mT / 2
    assert scores.abs().max() > 500
    cells = torch.rand(3, 16, generator=generator) > (0.5 if padded else -1)
    values = [x.requires_grad_() for x in (q, k, v, route)]
    wide = [x.detach().double().requires_grad_() for x in values]
    ours = routed_attention(*values, Rings(side, orders), cells=cells, empty_window="uniform")
    wanted = plain(*wide, side, orders, cells, "uniform")
    assert ours.isfinite().all()
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-5)
    cotangent = torch.ones_like(ours)
    found = torch.autograd.grad(ours, values, cotangent)
    expected = torch.autograd.grad(wanted, wide, cotangent.double())
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["shared", "per_order"])
@pytest.mark.parametrize("empty_window", ["zero", "uniform"])
@pytest.mark.parametrize("maxima_of_windows", [False, True])
def test_gradients_are_right_with_dropout_and_padding(
    mode, empty_window, maxima_of_windows
) -> None:
    values = inputs(3, 3, 3, heads=1, channels=2)
    cells = torch.tensor([[True] * 9, [True] + [False] * 8])
    rings = double_rings(3, (2, 0, 1))

    def run(*tensors):
        torch.manual_seed(5)
        return routed_attention(
            *tensors,
            rings,
            cells=cells,
            empty_window=empty_window,
            dropout=0.3,
            attn_dropout=mode,
        )

    with only(maxima_of_windows):
        assert torch.autograd.gradcheck(run, values, atol=1e-6)


@pytest.mark.parametrize("mode", ["shared", "per_order"])
def test_dropout_keeps_the_expected_value(mode: str) -> None:
    q, k, v, route = (x.detach() for x in inputs(1, 3, 2, batch=1, heads=1, channels=2))
    rings = double_rings(3, (0, 1))
    torch.manual_seed(0)
    repeat = [x.expand(8000, *x.shape[1:]) for x in (q, k, v, route)]
    dropped = routed_attention(*repeat, rings, dropout=0.25, attn_dropout=mode)
    whole = routed_attention(q, k, v, route, rings)
    torch.testing.assert_close(dropped.mean(0), whole[0], rtol=0, atol=0.03)


def test_one_mask_serves_all_orders_only_when_shared() -> None:
    """With values = identity the output is the map, whose dropped elements are zeros."""
    size, rate = 16, 0.5
    q = torch.zeros(64, 1, size, size)
    v = torch.eye(size).expand(64, 1, size, size)
    route = torch.full((64, 3), 1 / 3)
    rings = Rings(4, (0, 3, 2))  # order 3 is the whole grid too
    torch.manual_seed(0)
    shared = routed_attention(q, q, v, route, rings, dropout=rate)
    each = routed_attention(q, q, v, route, rings, dropout=rate, attn_dropout="per_order")
    inner = ((rings.member @ rings.nested) > 0).all(-1).expand_as(shared)  # seen by all orders
    assert abs(float((shared[inner] == 0).float().mean()) - rate) < 0.02
    assert abs(float((each[inner] == 0).float().mean()) - rate**3) < 0.02


@pytest.mark.parametrize("empty_window", ["zero", "uniform"])
@pytest.mark.parametrize("padded", [None, 0.7])
def test_a_chosen_window_is_the_one_hot_route(empty_window, padded) -> None:
    q, k, v, _ = inputs(2, 4, 3, batch=5)
    rings = double_rings(4, (2, 0, 1))
    choice = torch.tensor([0, 1, 2, 2, 0])
    cells = None
    if padded is not None:
        cells = torch.rand(5, 16, generator=torch.Generator().manual_seed(0)) >= padded
    ours = chosen_attention(q, k, v, choice, rings, cells=cells, empty_window=empty_window)
    route = torch.nn.functional.one_hot(choice, 3).double()
    wanted = routed_attention(q, k, v, route, rings, cells=cells, empty_window=empty_window)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


def test_halves_are_computed_in_float32() -> None:
    rings = Rings(4, (0, 1))
    q, k, v, route = (x.detach().bfloat16() for x in inputs(0, 4, 2))
    ours = routed_attention(q, k, v, route, rings)
    wanted = routed_attention(q.float(), k.float(), v.float(), route.float(), rings)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, wanted.bfloat16())


@pytest.mark.parametrize(("rate", "mode", "most"), [(0, "shared", 1), (0.1, "shared", 1.25)])
def test_one_map_and_a_byte_per_element_of_dropout_are_kept(rate, mode, most) -> None:
    q, k, v = torch.randn(3, 2, 4, 64, 8, requires_grad=True).unbind()
    route = torch.full((2, 4), 0.25, requires_grad=True)
    given = {x.untyped_storage().data_ptr() for x in (q, k, v, route)}
    kept: dict[int, int] = {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        routed_attention(q, k, v, route, Rings(8, (0, 1, 2, 3)), dropout=rate, attn_dropout=mode)
    one_map = 2 * 4 * 64 * 64 * 4
    assert one_map <= sum(kept.values()) < (most + 0.2) * one_map  # and numbers a row and window


def test_noise_is_gumbel_and_belongs_to_the_key() -> None:
    keys = sample_keys(7, torch.arange(4000))
    noise = gumbel_noise(keys, 2, 3)
    assert noise.shape == (2, 4000, 3)
    assert torch.equal(gumbel_noise(keys[5:6], 2, 3)[:, 0], noise[:, 5])
    assert len(set(keys.tolist())) == 4000
    assert len(noise.unique()) > 23_900  # float32
    assert abs(float(noise.mean()) - 0.5772) < 0.03  # Euler's constant
    assert abs(float(noise.std()) - 1.2825) < 0.03  # pi / sqrt(6)


def test_keep_mask_keeps_the_share_it_says() -> None:
    torch.manual_seed(0)
    keep = keep_mask((7, 11, 1001), 0.1, torch.device("cpu"))
    assert keep.shape == (7, 11, 1001)
    assert abs(float(keep.float().mean()) - kept_share(0.1)) < 0.005
    assert abs(kept_share(0.1) - 0.9) < 1e-5
    assert keep_mask((5,), 0.0, torch.device("cpu")).all()


@pytest.mark.parametrize(
    ("orders", "message"),
    [((0, 1, 1), "duplicates"), ((0, 5), "past a grid of 4x4"), ((), "one or more"), ((-1,), "0")],
)
def test_orders_that_make_no_sense_are_refused(orders, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Rings(4, orders)
