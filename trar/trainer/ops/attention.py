"""Plain multi-head attention, and the masked softmax that pooling uses.

b = batch, h = heads, n = queries, t = keys, c = channels of a head. Masks: True = may attend.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trar.trainer.ops.dropout import dropout


def masked_softmax(scores: Tensor, keep: Tensor | None, dim: int) -> Tensor:
    """Softmax along ``dim`` over the kept elements, in float32 or wider.

    ``keep`` is bool and broadcasts against ``scores``; None keeps all. At least one is kept.
    """
    if keep is not None:
        scores = scores.masked_fill(~keep, torch.finfo(scores.dtype).min)
    return scores.softmax(dim, torch.promote_types(scores.dtype, torch.float32))


def attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, rate: float) -> Tensor:
    """softmax(q k^T / sqrt(c)) v with dropout ``rate`` on the probabilities, (b, h, n, c).

    q: (b, h, n, c); k, v: (b, h, t, c); keep: bool, broadcasts to (b, h, n, t), with a key left
    for every query.
    """
    if q.device.type == "cpu":  # SDPA has no fused dropout there, and is slow with few keys
        scores = (q @ k.mT).mul_(q.shape[-1] ** -0.5)
        return dropout(masked_softmax(scores, keep, -1), rate, training=True).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, keep, dropout_p=rate)
