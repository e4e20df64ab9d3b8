"""Routed attention by Triton kernels: no map of scores ever reaches the memory of the GPU.

The same function as ``routed`` (see there for the equations and the shape letters). A program holds
the scores of some queries against all n keys in registers, takes each window's softmax relative to
that window's own maximum, which is exact for any scores, and mixes them before the one product with
V. Kept for the backward pass: the maximum and the sum of each row and window. That pass is two
kernels, by queries (dQ, delta) and by keys (dK, dV), so that no sum depends on who comes first.

Dropout is Philox (Salmon et al., SC 2011) of (seed, head, query, key): drawn again on the way back,
and kept nowhere. Its masks are others than the eager path's, of the same distribution.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from trar.trainer.ops import triton_kernels as kernels
from trar.trainer.ops.rings import Rings


def triton_routed_attention(
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
    """``routed.routed_attention`` for q, k, v (b, h, n, c) in float32, float16 or bfloat16.

    ``uniform``: an empty window attends to all cells alike. ``rate``: of dropout, one mask for each
    order if ``per_order``. Products of float32 are
    made of three TF32 ones, which is as exact, or of one with
    ``torch.backends.cuda.matmul.allow_tf32``.
    The seed of dropout comes from torch's CPU generator.
    """
    seed = int(torch.randint(1 << 31, ())) if rate else 0
    out: Tensor = _TritonRoutedAttention.apply(  # type: ignore[no-untyped-call]
        *_alike(q, k.to(q.dtype), v.to(q.dtype)),
        route.float()[:, rings.ascending],
        rings.level,
        cells,
        {
            "seed": seed,
            "rate": rate,
            "scale": q.shape[-1] ** -0.5,
            "HEADS": q.shape[1],
            "SIZE": q.shape[2],
            "CHANNELS": q.shape[3],
            "LEVELS": route.shape[1],
            "PADDED": cells is not None,
            "UNIFORM": uniform,
            "DROPOUT": (2 if per_order else 1) if rate else 0,
            "CHANNEL_BLOCK": _block(q.shape[3]),
            "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3",
        },
    )
    return out


class _TritonRoutedAttention(torch.autograd.Function):
    """``options`` are the kernels' numbers and constants."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        route: Tensor,
        level: Tensor,
        cells: Tensor | None,
        options: dict[str, Any],
    ) -> Tensor:
        batch, heads, size, _ = q.shape
        out = _merged(q)
        tops = q.new_empty((batch * heads, route.shape[1], size), dtype=torch.float32)
        totals = torch.empty_like(tops)
        # without PADDED the mask is never read: any pointer to bytes does
        mask = level if cells is None else cells.contiguous().view(torch.uint8)
        inputs = (q, k, v), (route.contiguous(), level, mask)
        rows, warps = _rows_of_a_program(size)
        kernels.forward[(batch * heads, triton.cdiv(size, rows))](
            *inputs[0], out, *inputs[1], tops, totals, *q.stride()[:3],
            **options, QUERY_BLOCK=rows, KEY_BLOCK=_block(size), num_warps=warps,
        )  # fmt: skip
        ctx.save_for_backward(*inputs[0], *inputs[1], tops, totals)
        ctx.options = options
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *given, tops, totals = ctx.saved_tensors
        batch, heads, size, _ = q.shape
        grad_out = grad_out.transpose(1, 2).contiguous()  # heads side by side, as they mostly come
        grad_q, grad_k, grad_v = _merged(q), _merged(q), _merged(q)
        deltas = torch.empty_like(tops)
        kept = *given, tops, totals, deltas, *q.stride()[:3]
        rows, warps = _rows_of_a_program(size)
        kernels.backward_queries[(batch * heads, triton.cdiv(size, rows))](
            q, k, v, grad_out, grad_q, *kept,
            **ctx.options, QUERY_BLOCK=rows, KEY_BLOCK=_block(size), num_warps=warps,
        )  # fmt: skip
        columns = min(64, _block(size))
        kernels.backward_keys[(batch * heads, triton.cdiv(size, columns))](
            q, k, v, grad_out, grad_k, grad_v, *kept,
            **ctx.options, QUERY_BLOCK=rows, KEY_BLOCK=columns, num_warps=4,
        )  # fmt: skip
        grad_route = deltas.view(batch, heads, -1, size).sum((1, 3))
        return grad_q, grad_k, grad_v, grad_route, None, None, None


def _block(size: int) -> int:
    """Triton's blocks are powers of two, and 16 or more in a product."""
    return max(16, 1 << (size - 1).bit_length())


def _rows_of_a_program(size: int) -> tuple[int, int]:
    """Queries of a program, and its warps: whole rows of scores have to fit in the registers."""
    return (min(64, _block(size)), 4) if size <= 64 else (32, 8)


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors (b, h, n, c) with common strides and channels side by side, copied if need be."""
    steps = {x.stride() for x in tensors}
    if len(steps) == 1 and tensors[0].stride(-1) == 1:
        return tensors
    return tuple(x.contiguous() for x in tensors)


def _merged(q: Tensor) -> Tensor:
    """An empty (b, h, n, c) whose heads lie side by side, so that merging them moves nothing."""
    batch, heads, size, channels = q.shape
    return q.new_empty((batch, size, heads, channels)).transpose(1, 2)
