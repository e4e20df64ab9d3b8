"""alpha-entmax: a softmax that gives small scores a probability of exactly zero.

p_i = [(alpha - 1) s_i - tau]_+ ^ (1 / (alpha - 1)), with tau such that they sum to one; alpha = 1
is softmax, alpha = 2 sparsemax. Source: Peters et al., Sparse Sequence-to-Sequence Models, ACL
2019; the gradient of alpha: Correia et al., Adaptively Sparse Transformers, EMNLP 2019.

The package ``entmax`` halves an interval 50 times. The sum is convex and falls with tau, so
Newton's method from the left never passes the root and doubles its digits: ten steps give the same
numbers to 1e-12 (docs/performance.md says in what time).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_STEPS = 10


def entmax(scores: Tensor, alpha: Tensor, keep: Tensor | None = None) -> Tensor:
    """Probabilities over the last axis of ``scores`` (..., t), in float32 or wider.

    ``alpha`` in (1, 2] broadcasts against ``scores`` with a last axis of 1; its gradient needs
    float64 below about 1.01. ``keep`` is bool and broadcasts; at least one key of a row is kept.
    """
    wide = torch.promote_types(scores.dtype, torch.float32)
    scores = scores.to(wide)
    if keep is not None:
        scores = scores.masked_fill(~keep, -torch.inf)
    p: Tensor = _Entmax.apply(scores, alpha.to(wide))  # type: ignore[no-untyped-call]
    return p


class _Entmax(torch.autograd.Function):
    """Saves the probabilities alone.

    With g = p^(2 - alpha) where p > 0, w = g / sum(g), a = alpha - 1 and u = dL/dp:
    dL/ds = g (u - sum(w u));
    dL/dalpha = sum(u ((p - w) / a^2 - (p log p - w sum(p log p)) / a)).
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: Tensor) -> Tensor:
        power = 1 / (alpha - 1)
        z = (scores - scores.amax(-1, keepdim=True)) * (alpha - 1)
        tau = torch.full_like(z[..., :1], -1)  # the largest alone has probability one here
        for _ in range(_STEPS):
            room = (z - tau).clamp_min_(0)
            slope = torch.where(room > 0, room ** (power - 1), 0)
            excess = (slope * room).sum(-1, keepdim=True) - 1
            tau += excess / (power * slope.sum(-1, keepdim=True))
        p = (z - tau).clamp_min_(0) ** power
        p /= p.sum(-1, keepdim=True)
        ctx.save_for_backward(p, alpha)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        p, alpha = ctx.saved_tensors
        g = torch.where(p > 0, p ** (2 - alpha), 0)
        share = g / g.sum(-1, keepdim=True)
        grad_scores = g * (grad - (share * grad).sum(-1, keepdim=True))
        if not ctx.needs_input_grad[1]:
            return grad_scores, None
        surprise = torch.special.xlogy(p, p)
        change = (p - share) / (alpha - 1) ** 2
        change -= (surprise - share * surprise.sum(-1, keepdim=True)) / (alpha - 1)
        return grad_scores, (grad * change).sum_to_size(alpha.shape)
