"""What ``test_routed_triton`` runs in a process of its own, where Triton's interpreter is on before
anything imports triton: the kernels as numpy, against the eager path and the equations."""

from __future__ import annotations

import pytest
import torch
from triton_cases import CASES, check, inputs

from trar.errors import ConfigError
from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention


@pytest.mark.parametrize(("side", "orders", "channels", "scale", "padded", "empty"), CASES)
def test_the_interpreted_kernels_equal_the_eager_path_with_all_gradients(
    side, orders, channels, scale, padded, empty
) -> None:
    values, rings, cells = inputs(side, orders, channels, scale=scale, padded=padded)
    check(values, rings, cells, empty_window=empty)


def dropped(values, rings, cells, mode, **changes):
    """The output under the masks of seed 3."""
    torch.manual_seed(3)
    return routed_attention(
        *values,
        rings,
        cells=cells,
        empty_window="uniform",
        dropout=0.4,
        attn_dropout=mode,
        kernel="triton",
        **changes,
    )


@pytest.mark.parametrize("mode", ["shared", "per_order"])
def test_the_backward_pass_draws_the_masks_of_the_forward_pass_again(mode) -> None:
    """With values = identity the output is the map, so its zeros are the masks; with these the
    gradients must be those of the equation."""
    side, orders, size, rate = 4, (1, 0, 2), 16, 0.4
    (q, k, v, route), rings, cells = inputs(side, orders, size, padded=0.5)
    identity = torch.eye(size).expand_as(v)
    masks = []
    for number in range(len(orders)):
        alone = torch.zeros_like(route)
        alone[:, number] = 1.0
        masks.append(dropped((q, k, identity, alone), rings, cells, mode).detach() != 0)
    shares = torch.stack(masks)[:, cells[:, None, None, :].expand_as(masks[0])]
    assert 0.1 < float((shares[1]).float().mean()) < 0.9  # order 0 sees every cell
    whole = Rings(side, (0,))
    keep_all = dropped((q, k, identity, torch.ones(2, 1)), whole, None, mode).detach() != 0
    assert abs(float(keep_all.float().mean()) - (1 - rate)) < 0.05

    scores = (q @ k.mT / size**0.5).masked_fill(~cells[:, None, None, :], -torch.inf)
    wanted = torch.zeros_like(scores)
    for number, mask in enumerate(masks):
        inside = scores.masked_fill(~rings.window[number], -torch.inf)
        empty = (inside == -torch.inf).all(-1, keepdim=True)
        probs = inside.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 1 / size)
        wanted = wanted + route[:, number, None, None, None] * probs * mask / (1 - rate)
    ours = dropped((q, k, v, route), rings, cells, mode)
    torch.testing.assert_close(ours, wanted @ v, rtol=0, atol=1e-5)
    cotangent = torch.sin(torch.arange(ours.numel(), dtype=torch.float32)).view_as(ours)
    found = torch.autograd.grad(ours, (q, k, v, route), cotangent)
    expected = torch.autograd.grad(wanted @ v, (q, k, v, route), cotangent)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_views_of_one_projection_and_float16_are_taken() -> None:
    values, rings, _ = inputs(4, (0, 1), 8)
    fused = torch.randn(2, 16, 3 * 16).half()
    q, k, v = (x.view(2, 16, 2, 8).transpose(1, 2) for x in fused.chunk(3, -1))
    route = values[3]
    triton = routed_attention(q, k, v, route, rings, kernel="triton")
    eager = routed_attention(q, k, v, route, rings, kernel="eager")
    assert triton.dtype == eager.dtype == torch.float16
    torch.testing.assert_close(triton, eager, rtol=0, atol=3e-3)


def test_inputs_beyond_the_kernel_are_refused_with_the_reason() -> None:
    _, rings, _ = inputs(2, (0, 1), 4)
    wide = torch.zeros(1, 1, 4, 4).double()
    with pytest.raises(ConfigError, match="kernel is 'triton', but the tensors are float64; use"):
        routed_attention(wide, wide, wide, torch.ones(1, 2), rings, kernel="triton")
    q = torch.zeros(1, 1, 289, 4)
    with pytest.raises(ConfigError, match="289 cells with heads of 4 channels are more than 256"):
        routed_attention(q, q, q, torch.ones(1, 1), Rings(17, (0,)), kernel="triton")
