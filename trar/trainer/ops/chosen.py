"""Routed attention when every sample has chosen one window: a single masked attention.

b = batch, h = heads, n = grid cells, c = channels of a head, o = orders.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import EmptyWindow


def chosen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    choice: Tensor,
    rings: Rings,
    *,
    cells: Tensor | None = None,
    empty_window: EmptyWindow = "zero",
) -> Tensor:
    """What ``routed_attention`` gives for the one-hot route of ``choice`` (b,): (b, h, n, c).

    ``choice`` numbers the orders of ``rings``; the rest is as there, without dropout.
    """
    keep = rings.window[choice].unsqueeze(1)  # (b, 1, n, n)
    if cells is None:
        return F.scaled_dot_product_attention(q, k, v, keep)
    keep = keep & cells[:, None, None, :]
    # SDPA's kernels disagree on rows without a key: let those attend to all, then replace them.
    empty = ~keep.any(-1, keepdim=True)
    out = F.scaled_dot_product_attention(q, k, v, keep | empty)
    instead = v.mean(-2, keepdim=True) if empty_window == "uniform" else 0.0
    return out.where(~empty, instead)
