"""Routed attention: every sample mixes the attention maps of several window sizes.

A = sum_o route_o softmax(S | window o), out = A V, with S = Q K^T / sqrt(c).
Source: Zhou et al., TRAR, ICCV 2021; TRAR-VQA openvqa/models/TRAR/trar.py:272-354, which computes
one masked softmax per order. Here one map of exponentials serves all orders (see ``rings``) and
the backward pass is written out, so two or three maps are kept instead of 2 o + 1 and more.

b = batch, h = heads, n = grid cells, c = channels of a head, o = orders. Inside, batch and heads
are one axis.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trar.trainer.ops.dropout import keep_mask, kept_share
from trar.trainer.ops.rings import Rings, RingSoftmax, ring_softmax

AttentionDropout = Literal["shared", "per_order"]
EmptyWindow = Literal["zero", "uniform"]


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
) -> Tensor:
    """Mix one softmax per window with the routing weights, then attend once: (b, h, n, c).

    q, k, v: (b, h, n, c). route: (b, o), in the order of ``rings``. cells: (b, n) bool, True =
    real cell, None = all; other cells are no keys. A window without a key contributes nothing
    (``zero``) or attends to all n cells alike, as the originals do (``uniform``). ``dropout``
    falls on the probabilities: one mask for the mixed map (``shared``) or an independent one per
    order before mixing (``per_order``, as the originals).
    """
    merged = _RoutedAttention.apply(  # type: ignore[no-untyped-call]
        q.flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        route,
        rings,
        cells,
        empty_window == "uniform",
        dropout,
        attn_dropout == "per_order",
    )
    out: Tensor = merged.view(q.shape)
    return out


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
        orders = route.shape[1]
        keep = None
        if rate:
            count = orders if per_order else 1
            keep = keep_mask((count, *softmax.terms.shape), rate, q.device)
            routes = routes / kept_share(rate)
        mixed, extra = _mix(softmax, rings, routes, fill, keep, per_order)
        full = mixed if extra is None else mixed + extra
        ctx.save_for_backward(
            q, k, v, softmax.terms, softmax.shift, softmax.inverse, routes, fill, keep, mixed, full
        )
        ctx.rings, ctx.heads, ctx.rate, ctx.per_order = rings, heads, rate, per_order
        return torch.bmm(full, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, terms, shift, inverse, routes, fill, keep, mixed, full = ctx.saved_tensors
        rings, cells_count = ctx.rings, len(ctx.rings.member)
        softmax = RingSoftmax(terms, shift, inverse)
        grad_v = torch.bmm(full.mT, grad_out)
        grad = torch.bmm(grad_out, v.mT)  # G
        weighted = terms * grad
        if keep is None:
            delta = softmax.to_orders(rings.sums(weighted))
            flat = grad.sum(-1, keepdim=True) if fill is not None else None
        elif not ctx.per_order:
            mask = keep[0].to(grad.dtype)
            delta = softmax.to_orders(rings.sums(weighted.mul_(mask)))
            flat = torch.linalg.vecdot(grad, mask).unsqueeze(-1) if fill is not None else None
        else:
            masks = [one.to(grad.dtype) for one in keep]
            parts = [softmax.to_orders(rings.sums(weighted * mask)) for mask in masks]
            delta = torch.stack([part[..., o] for o, part in enumerate(parts)], -1)
            flat = None
            if fill is not None:
                flat = torch.stack([torch.linalg.vecdot(grad, mask) for mask in masks], -1)

        pull = rings.spread(softmax.to_rings(routes * delta))
        grad_scores = grad.mul_(mixed).addcmul_(terms, pull, value=-1)
        scale = q.shape[-1] ** -0.5
        nothing = q.new_empty(1, 1, 1)
        grad_q = torch.baddbmm(nothing, grad_scores, k, beta=0, alpha=scale)
        grad_k = torch.baddbmm(nothing, grad_scores.mT, q, beta=0, alpha=scale)

        if flat is not None:
            delta = delta + fill * flat.transpose(0, 1) / cells_count
        grad_route = delta.view(len(delta), -1, ctx.heads, delta.shape[-1]).sum((0, 2))
        if keep is not None:
            grad_route = grad_route / kept_share(ctx.rate)
        return grad_q, grad_k, grad_v, grad_route, None, None, None, None, None


def _mix(
    softmax: RingSoftmax,
    rings: Rings,
    routes: Tensor,
    fill: Tensor | None,
    keep: Tensor | None,
    per_order: bool,
) -> tuple[Tensor, Tensor | None]:
    """The mixed map (bh, n, n) without empty windows, and what ``fill`` adds to it, if anything.

    routes: (n, bh, o), already divided by the kept share; keep: (1 or o, bh, n, n) bool.
    """
    each = None if fill is None else (fill * routes).transpose(0, 1) / len(rings.member)
    if keep is None or not per_order:
        mixed = softmax.terms * rings.spread(softmax.to_rings(routes))
        extra = None if each is None else each.sum(-1, keepdim=True).expand_as(mixed)
        if keep is not None:
            mask = keep[0].to(mixed.dtype)
            mixed.mul_(mask)
            extra = None if extra is None else extra * mask
        return mixed, extra
    mixed = torch.zeros_like(softmax.terms)
    extra = None if each is None else torch.zeros_like(softmax.terms)
    for order, mask in enumerate(keep):
        one = torch.zeros_like(routes)
        one[..., order] = routes[..., order]
        mask = mask.to(mixed.dtype)
        mixed.addcmul_(mask, rings.spread(softmax.to_rings(one)))
        if extra is not None and each is not None:
            extra.addcmul_(mask, each[..., order, None])
    return mixed.mul_(softmax.terms), extra
