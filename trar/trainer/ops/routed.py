"""Routed attention: every sample mixes the attention maps of several window sizes.

A = sum_o route_o softmax(S | window o), out = A V, with S = Q K^T / sqrt(c).
Source: Zhou et al., TRAR, ICCV 2021; TRAR-VQA openvqa/models/TRAR/trar.py:272-354, which computes
one masked softmax per order. Here one map of exponentials serves all orders (see ``rings``) and
the backward pass is written out, so one map is kept, and a byte per element of dropout, instead of
2 o + 1 maps and more. On CUDA a Triton kernel (``routed_triton``) does the same and keeps none.

b = batch, h = heads, n = grid cells, c = channels of a head, o = orders. Inside, batch and heads
are one axis.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trar.errors import ConfigError
from trar.trainer.ops.dropout import as_factor, keep_mask, kept_share
from trar.trainer.ops.rings import Rings, RingSoftmax, ring_softmax

AttentionDropout = Literal["shared", "per_order"]
EmptyWindow = Literal["zero", "uniform"]
Kernel = Literal["auto", "eager", "triton"]
_CACHED = 1 << 18  # elements of a map that are worked on at once on a CPU
LARGEST_GRID, LARGEST_HEAD = 256, 128  # of the Triton kernel: a row of scores stays in registers


@torch.compiler.disable  # type: ignore[untyped-decorator]  # nothing in it that it could fuse
def routed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    route: Tensor,
    rings: Rings,
    *,
    cells: Tensor | None = None,
    empty_window: EmptyWindow = "zero",
    dropout: float = 0.0,
    attn_dropout: AttentionDropout = "shared",
    kernel: Kernel = "auto",
) -> Tensor:
    """Mix one softmax per window with the routing weights, then attend once: (b, h, n, c).

    q, k, v: (b, h, n, c). route: (b, o), in the order of ``rings``. cells: (b, n) bool, True =
    real cell, None = all; other cells are no keys. A window without a key contributes nothing
    (``zero``) or attends to all n cells alike, as the originals do (``uniform``). ``dropout``
    falls on the probabilities: one mask for the mixed map (``shared``) or an independent one per
    order before mixing (``per_order``, as the originals). ``kernel``: ``auto`` takes Triton's on
    CUDA where it can. Halves are computed in float32, and returned as they came.

    Raises:
        ConfigError: ``kernel`` is ``triton`` and cannot be used here.
    """
    uniform, per_order = empty_window == "uniform", attn_dropout == "per_order"
    if kernel != "eager":
        why_not = _why_no_triton(q, rings, interpreted=kernel == "triton")
        if why_not is None:
            from trar.trainer.ops.routed_triton import triton_routed_attention

            return triton_routed_attention(
                q, k, v, route, rings, cells, uniform, dropout, per_order
            )
        if kernel == "triton":
            raise ConfigError(f"kernel is 'triton', but {why_not}; use kernel 'auto' or 'eager'")
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        merged: Tensor = _RoutedAttention.apply(  # type: ignore[no-untyped-call]
            q.flatten(0, 1).to(wide),
            k.flatten(0, 1).to(wide),
            v.flatten(0, 1).to(wide),
            route.to(wide),
            rings,
            cells,
            uniform,
            dropout,
            per_order,
        )
    return merged.view(q.shape).to(q.dtype)


def _why_no_triton(q: Tensor, rings: Rings, *, interpreted: bool) -> str | None:
    """Why the Triton kernel cannot take ``q`` (b, h, n, c), or None where it can; on the CPU it can
    by Triton's interpreter, which is slow and for tests (``interpreted``)."""
    if find_spec("triton") is None:
        return "triton is not installed"
    interpreted = interpreted and os.environ.get("TRITON_INTERPRET") == "1"
    if q.device.type != "cuda" and not interpreted:
        return f"the tensors are on {q.device.type}"
    if q.dtype == torch.float64:
        return "the tensors are float64"
    if len(rings.level) > LARGEST_GRID or q.shape[-1] > LARGEST_HEAD:
        return (
            f"{len(rings.level)} cells with heads of {q.shape[-1]} channels are more than "
            f"{LARGEST_GRID} and {LARGEST_HEAD}"
        )
    return None


class _RoutedAttention(torch.autograd.Function):
    """Forward: with E, w = the terms and weights of ``RingSoftmax``, D = dropout / kept share,
    u = sum of the routes of empty windows / n:
        A = E D spread(sum_o route_o w_ro) + u D                              (shared)
        A = sum_o route_o D_o (E spread(w_ro) + [o empty] / n)                (per order)
    Backward: with G = dOut V^T and delta_o = sum_j P_o D_o G:
        dRoute_o = sum over rows of delta_o + [o empty] mean_j D_o G
        dS = (A without u) G - E spread(sum_o w_ro route_o delta_o)
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        route: Tensor,
        rings: Rings,
        cells: Tensor | None,
        uniform: bool,
        rate: float,
        per_order: bool,
    ) -> Tensor:
        heads = len(q) // len(route)
        scale = q.shape[-1] ** -0.5
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.mT, beta=0, alpha=scale)
        empty = None
        if cells is not None:
            padding = ~cells.repeat_interleave(heads, 0)
            scores.masked_fill_(padding[:, None, :], torch.finfo(scores.dtype).min)
            empty = rings.empty(cells).repeat_interleave(heads, 1)
        softmax = ring_softmax(scores, rings, empty)
        fill = empty if uniform and empty is not None and bool(empty.any()) else None

        routes = route.repeat_interleave(heads, 0).expand(len(rings.member), -1, -1)  # (n, bh, o)
        keep = None
        if rate:
            count = route.shape[1] if per_order else 1
            keep = keep_mask((count, *softmax.terms.shape), rate, q.device)
            routes = routes / kept_share(rate)
        filled = None if fill is None else _Filled.of(routes, fill, keep)
        # memory that is new has to be cleared, so that of the scores is used again
        spare = None if softmax.terms is scores else scores
        if keep is not None and per_order:
            keep &= rings.window.unsqueeze(1)  # what an order does not see, it has not kept
            mixed, _ = _mix_per_order(softmax, rings, routes, keep, out=spare)
        else:
            mixed = rings.spread(softmax.to_rings(routes), into=spare).mul_(softmax.terms)
            if keep is not None:
                mixed.mul_(as_factor(keep[0]))
        if filled is not None:
            filled.add_to(mixed)
        ctx.save_for_backward(q, k, v, softmax.terms, softmax.shift, softmax.inverse, routes, keep)
        ctx.rings, ctx.heads, ctx.rate, ctx.filled = rings, heads, rate, filled
        ctx.per_order = keep is not None and per_order
        return torch.bmm(mixed, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, terms, shift, inverse, routes, keep = ctx.saved_tensors
        rings, filled = ctx.rings, ctx.filled
        softmax = RingSoftmax(terms, shift, inverse)
        grad_out = grad_out.contiguous()  # else products of views go one matrix at a time
        grad = torch.bmm(grad_out, v.mT)  # G
        weighted = terms * grad
        # the mixed map is made again rather than kept, in the place of what is no longer needed
        if ctx.per_order:
            mixed, delta = _mix_per_order(softmax, rings, routes, keep, out=weighted, pulled=True)
        else:
            if keep is not None:
                weighted.mul_(as_factor(keep[0]))
            delta = softmax.to_orders(rings.sums(weighted))
        pull = softmax.to_rings(routes * delta)
        if filled is not None:
            delta = delta + filled.route_share(grad)
        if ctx.per_order:
            grad_scores = grad.mul_(mixed).addcmul_(terms, rings.spread(pull), value=-1)
        else:
            shares = rings.spread(softmax.to_rings(routes))
            grad_scores = weighted.mul_(shares)
            grad_scores.addcmul_(terms, rings.spread(pull, into=grad), value=-1)
            mixed = torch.mul(terms, shares, out=grad)
            if keep is not None:
                mixed.mul_(as_factor(keep[0]))
        if filled is not None:
            filled.add_to(mixed)  # after the scores, on which it does not depend
        grad_v = torch.bmm(mixed.mT, grad_out)
        scale = q.shape[-1] ** -0.5
        nothing = q.new_empty(1, 1, 1)
        grad_q = torch.baddbmm(nothing, grad_scores, k, beta=0, alpha=scale)
        grad_k = torch.baddbmm(nothing, grad_scores.mT, q, beta=0, alpha=scale)
        grad_route = delta.view(len(delta), -1, ctx.heads, delta.shape[-1]).sum((0, 2))
        if keep is not None:
            grad_route = grad_route / kept_share(ctx.rate)
        return grad_q, grad_k, grad_v, grad_route, None, None, None, None, None


def _mix_per_order(
    softmax: RingSoftmax,
    rings: Rings,
    routes: Tensor,
    keep: Tensor,
    out: Tensor | None,
    *,
    pulled: bool = False,
) -> tuple[Tensor, Tensor]:
    """The mixed map (bh, n, n) with a dropout mask for each order, without what empty windows add.

    routes: (n, bh, o), already divided by the kept share; keep: (o, bh, n, n) bool, False outside
    of the order's window. Where ``pulled``, ``out`` has held E G, and delta (n, bh, o) is found.

    A few maps at a time, which stay in the cache while every order goes over them.
    """
    mixed = torch.empty_like(softmax.terms) if out is None else out
    delta = torch.zeros_like(routes)
    size, count, orders = routes.shape
    at_once = max(1, _CACHED // size**2) if mixed.device.type == "cpu" else count
    for start in range(0, count, at_once):
        here = slice(start, start + at_once)
        part, pull = softmax.part(here), mixed[here]
        total, kept = torch.zeros_like(pull), torch.empty_like(pull)
        for order in range(orders):
            kept.copy_(keep[order, here])
            share = part.inverse[..., order].T  # (bh, n), of the order's own softmax
            if not part.joint:
                kept *= rings.spread(part.to_rings(_one(part.inverse, order)))
                share = torch.ones_like(share)
            total.addcmul_(kept, (share * routes[:, here, order].T).unsqueeze(-1))
            if pulled:
                delta[:, here, order] = (kept.mul_(pull).sum(-1) * share).T
        torch.mul(total, part.terms, out=pull)
    return mixed, delta


def _one(like: Tensor, order: int) -> Tensor:
    ones = torch.zeros_like(like)
    ones[..., order] = 1
    return ones


@dataclass(frozen=True)
class _Filled:
    """The rows of the map to which empty windows add uniform attention: few, all of padded cells.

    r = such rows. ``rows`` (r,) index (bh * n); ``empty`` (r, o) bool; ``keep`` (1 or o, r, n)
    bool; ``extra`` (r, n), what is added: u D, or sum_o u_o D_o.
    """

    rows: Tensor
    empty: Tensor
    keep: Tensor
    extra: Tensor

    @classmethod
    def of(cls, routes: Tensor, fill: Tensor, keep: Tensor | None) -> _Filled:
        """fill: (n, bh, o) bool, the empty windows; others as ``_mix_per_order``."""
        every = fill.transpose(0, 1).flatten(0, 1)
        rows = every.any(-1).nonzero().squeeze(-1)
        empty, size = every[rows], len(fill)
        uniform = routes.transpose(0, 1).flatten(0, 1)[rows] * empty / size  # (r, o)
        if keep is None:
            kept = torch.ones((1, len(rows), size), dtype=torch.bool, device=rows.device)
        else:
            kept = keep.flatten(1, 2)[:, rows]
        return cls(rows, empty, kept, (uniform.T.unsqueeze(-1) * kept).sum(0))

    def add_to(self, mixed: Tensor) -> None:
        """Add what empty windows attend to, in place; mixed: (bh, n, n)."""
        size = mixed.shape[-1]
        mixed[self.rows // size, self.rows % size] += self.extra

    def route_share(self, grad: Tensor) -> Tensor:
        """The addition's own dRoute_o of each row, (n, bh, o), from G ``grad`` (bh, n, n)."""
        count, size, _ = grad.shape
        here = grad.view(-1, size)[self.rows]
        share = self.empty * (here * self.keep).sum(-1).T / size
        every = share.new_zeros(count * size, share.shape[1]).index_copy_(0, self.rows, share)
        return every.view(count, size, -1).transpose(0, 1)
