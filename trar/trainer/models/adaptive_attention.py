"""Multi-head attention whose heads may learn how far they look and how sparse they are.

b = batch, h = heads, n = queries, t = keys, c = channels of a head, d = width. True = may attend.
Source: Bhargava, Adaptive Transformers for Learning Multimodal Representations, ACL SRW 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trar.trainer.models.layers import merge_heads, split_heads
from trar.trainer.ops.adaptive_span import masked_again, span_mask
from trar.trainer.ops.attention import attention, masked_softmax
from trar.trainer.ops.dropout import dropout
from trar.trainer.ops.entmax import entmax

SMALLEST_ALPHA = 1.01  # below it the gradient of alpha is lost in rounding


@dataclass(frozen=True)
class Keys:
    """What is attended to: ``keep`` (b, 1, 1, t), None = all; ``distance`` (t,) or (n, t), None =
    these keys are in no order; ``length``: the distance that a span of 1 reaches."""

    keep: Tensor | None
    distance: Tensor | None
    length: int


class AdaptiveAttention(nn.Module):
    """Queries, keys and values in one product; ``ramp`` None: no spans; ``sparse``: entmax.

    ``span_logit`` and ``alpha_logit`` (h,) are free parameters, ``span`` and ``alpha`` what they
    stand for, which no step can move out of its range.
    """

    def __init__(
        self, width: int, heads: int, rate: float, *, ramp: float | None, sparse: bool
    ) -> None:
        super().__init__()
        self.heads, self.rate, self.ramp = heads, rate, ramp
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.span_logit = nn.Parameter(torch.zeros(heads)) if ramp is not None else None
        self.alpha_logit = nn.Parameter(torch.zeros(heads)) if sparse else None

    @property
    def span(self) -> Tensor | None:
        """The reach of each head, (h,), as a share in (0, 1) of the keys' length."""
        return None if self.span_logit is None else self.span_logit.sigmoid()

    @property
    def alpha(self) -> Tensor | None:
        """The sparsity of each head, (h,), from 1.01, almost softmax, to 2, sparsemax."""
        if self.alpha_logit is None:
            return None
        return SMALLEST_ALPHA + (2 - SMALLEST_ALPHA) * self.alpha_logit.sigmoid()

    def project(self, x: Tensor, parts: slice = slice(0, 3)) -> tuple[Tensor, ...]:
        """Of x (b, n, d) the query, the key and the value, or those of them in ``parts``, each
        (b, h, n, c)."""
        width = x.shape[-1]
        rows = slice(parts.start * width, parts.stop * width)
        weight, bias = self.query_key_value.weight[rows], self.query_key_value.bias[rows]
        return split_heads(F.linear(x, weight, bias), parts.stop - parts.start, self.heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keys: Keys) -> Tensor:
        """q: (b, h, n, c); k, v: (b, h, t, c); returns (b, n, d)."""
        rate = self.rate if self.training else 0.0
        if self.alpha is None and (self.span is None or keys.distance is None):
            out = attention(q, k, v, keys.keep, rate)
        else:
            p = dropout(self.probabilities(q, k, keys), rate, training=True)
            out = p.to(v.dtype) @ v
        merged: Tensor = self.merge(merge_heads(out))
        return merged

    def probabilities(self, q: Tensor, k: Tensor, keys: Keys) -> Tensor:
        """How much each query attends to each key, (b, h, n, t), in float32 or wider."""
        scores = (q @ k.mT) * q.shape[-1] ** -0.5
        alpha, span = self.alpha, self.span
        if alpha is None:
            p = masked_softmax(scores, keys.keep, -1)
        else:
            p = entmax(scores, alpha[:, None, None], keys.keep)
        if span is None or self.ramp is None or keys.distance is None:
            return p
        mask = span_mask(span * keys.length, keys.distance, self.ramp)
        return masked_again(p, mask if mask.dim() == 3 else mask.unsqueeze(1))
