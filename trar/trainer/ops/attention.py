"""Plain multi-head attention, and the masked softmax that pooling uses.

b = batch, h = heads, n = queries, t = keys, c = channels of a head. Masks: True = may attend.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trar.trainer.ops.dropout import dropout


def masked_softmax(scores: Tensor, keep: Tensor | None, dim: int) -> Tensor:
    """Softmax along ``dim`` over the kept elements; all zero where none is kept.

    ``keep`` is bool and broadcasts against ``scores``; None keeps all.
    """
    if keep is None:
        return scores.softmax(dim)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~keep, lowest).softmax(dim) * keep


def attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, rate: float) -> Tensor:
    """softmax(q k^T / sqrt(c)) v with dropout ``rate`` on the probabilities, (b, h, n, c).

    q: (b, h, n, c); k, v: (b, h, t, c); keep: (b, t) bool keys. A query without keys gets zeros.
    """
    allowed = None if keep is None else keep[:, None, None, :]
    if q.device.type == "cpu":  # SDPA has no fused dropout there, and is slow with few keys
        scores = (q @ k.mT).mul_(q.shape[-1] ** -0.5)
        return dropout(masked_softmax(scores, allowed, -1), rate, training=True) @ v
    if keep is not None and allowed is not None:
        # SDPA's kernels disagree on rows without a key: let those attend to all, then zero them.
        none = ~allowed.any(-1, keepdim=True)  # (b, 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, allowed | none, dropout_p=rate)
        return out.masked_fill(none, 0)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
