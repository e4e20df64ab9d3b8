"""Inputs on which the Triton kernels of routed attention are held against the eager path."""

from __future__ import annotations

import torch

from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention


def inputs(side, orders, channels, *, scale=1.0, padded=None, device="cpu"):
    generator = torch.Generator().manual_seed(side)
    q, k, v = torch.randn(3, 2, 2, side * side, channels, generator=generator).to(device)
    route = torch.randn(2, len(orders), generator=generator).to(device).softmax(-1)
    cells = None
    if padded is not None:
        cells = (torch.rand(2, side * side, generator=generator) >= padded).to(device)
    values = [x.detach().requires_grad_() for x in (q * scale, k * scale, v, route)]
    return values, Rings(side, orders).to(device), cells


def check(values, rings, cells, **options):
    eager = routed_attention(*values, rings, cells=cells, kernel="eager", **options)
    triton = routed_attention(*values, rings, cells=cells, kernel="triton", **options)
    torch.testing.assert_close(triton, eager, rtol=0, atol=2e-5)
    cotangent = torch.cos(torch.arange(eager.numel(), device=eager.device)).view_as(eager)
    wanted = torch.autograd.grad(eager, values, cotangent)
    found = torch.autograd.grad(triton, values, cotangent)
    largest = max(float(x.abs().max()) for x in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one / largest, other / largest, rtol=0, atol=2e-5)


CASES = [
    # side, orders, channels, scale, padded, empty window
    (4, (0, 1, 2), 4, 1.0, None, "zero"),
    (5, (3, 1, 0), 8, 1.0, 0.6, "uniform"),  # more rows than a block's, any order of the list
    (3, (2, 0, 1), 4, 1.0, 0.5, "zero"),
    (6, (1, 2), 3, 30.0, 0.8, "uniform"),  # no global window, scores of some thousands
    (9, (0, 1, 3, 2, 4), 4, 4.0, 0.3, "uniform"),  # a block of queries after the first
]
