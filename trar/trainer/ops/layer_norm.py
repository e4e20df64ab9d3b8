"""Layer normalisation as the originals compute it, and torch's own.

Exact: y = a (x - mean) / (s + eps) + b with the unbiased deviation s (n - 1) and eps = 1e-6 added
outside the root (openvqa/ops/layer_norm.py:9-21). Weights trained with one form need that form:
the other differs by sqrt((n - 1) / n). n = size of the last axis.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPSILON = 1e-6
_NO_EPSILON = 1e-30  # keeps the deviation of a row of equal numbers above 0, and changes no other


class _ExactLayerNorm(torch.autograd.Function):
    """Saves one normalised copy of x where autograd would save four intermediates.

    With z = (x - mean) / (s + eps) and g = dL/dz:
    dL/dx = (g - mean(g)) / (s + eps) - z sum(g z) / ((n - 1) s).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # torch's fused kernel is several times as fast as var_mean; its 1 / deviation is biased.
        size = x.shape[-1]
        z, _, inverse = torch.native_layer_norm(x, [size], None, None, _NO_EPSILON)
        deviation = (size / (size - 1)) ** 0.5 / inverse
        z.mul_(((deviation + EPSILON) * inverse).reciprocal_())
        inverse = (deviation + EPSILON).reciprocal_()
        ctx.save_for_backward(z, inverse, deviation, weight)
        return torch.addcmul(bias, z, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, inverse, deviation, weight = ctx.saved_tensors
        size = z.shape[-1]
        grad_z = grad * z
        along = (grad_z @ weight).unsqueeze(-1)  # sum(g z), since g = grad * weight
        mean = (grad @ weight).unsqueeze(-1) / size
        pull = along / ((size - 1) * deviation)  # s > 0; a row of equal numbers has z = 0
        grad_x = (grad * weight).sub_(mean).mul_(inverse).addcmul_(z, pull, value=-1)
        rows = tuple(range(grad.dim() - 1))
        return grad_x, grad_z.sum(rows), grad.sum(rows)


def exact_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise the last axis of ``x`` (..., n), n > 1; weight, bias: (n,).

    Half-precision inputs are computed in float32 and returned as they came.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    y: Tensor = _ExactLayerNorm.apply(  # type: ignore[no-untyped-call]
        x.to(wide), weight.to(wide), bias.to(wide)
    )
    return y.to(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis: the originals' (``exact``) or torch's (``fast``)."""

    def __init__(self, width: int, kind: Literal["exact", "fast"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.exact = kind == "exact"

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., width), normalised."""
        if self.exact:
            return exact_layer_norm(x, self.weight, self.bias)
        # eps**2 inside the root bounds a constant row as the exact form does.
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, EPSILON**2)
