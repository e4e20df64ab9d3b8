"""The parts that TRAR's encoder and decoder share: attention, feed-forward, attention flattening.

b = batch, n = queries, t = keys, d = width. Masks are bool, True = real token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trar.trainer.ops.attention import attention, masked_softmax
from trar.trainer.ops.dropout import Dropout
from trar.trainer.ops.layer_norm import LayerNorm

LayerNormKind = Literal["exact", "fast"]


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Cut (b, n, parts * d) into ``parts`` tensors (b, heads, n, d / heads)."""
    batch, tokens, _ = x.shape
    # chunks, whose gradients are joined by one copy; a permuted view would take three
    return tuple(
        part.view(batch, tokens, heads, -1).transpose(1, 2) for part in x.chunk(parts, dim=-1)
    )


def merge_heads(x: Tensor) -> Tensor:
    """Put (b, heads, n, c) back together as (b, n, heads * c)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, its three projections in one product."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x: (b, n, d); keep: (b, 1, 1, n) keys."""
        q, k, v = split_heads(self.query_key_value(x), 3, self.heads)
        rate = self.dropout if self.training else 0.0
        out: Tensor = self.merge(merge_heads(attention(q, k, v, keep, rate)))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another; see ``keys_and_values``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
        """Queries x: (b, n, d); k, v: (b, heads, t, c); keep: (b, 1, 1, t) keys."""
        (q,) = split_heads(self.query(x), 1, self.heads)
        rate = self.dropout if self.training else 0.0
        out: Tensor = self.merge(merge_heads(attention(q, k, v, keep, rate)))
        return out


def keys_and_values(layers: Sequence[CrossAttention], y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (b, heads, t, c) for each of ``layers``, which all attend to the same y
    (b, t, d): one product instead of one a layer, forward and backward."""
    weight = torch.cat([layer.key_value.weight for layer in layers])
    bias = torch.cat([layer.key_value.bias for layer in layers])
    parts = split_heads(F.linear(y, weight, bias), 2 * len(layers), layers[0].heads)
    return list(zip(parts[::2], parts[1::2], strict=True))


class FeedForward(nn.Sequential):
    """Two linear layers with ReLU and dropout between; the second maps to ``out`` numbers."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, hidden),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(hidden, out),
        )


class AttentionFlatten(nn.Module):
    """A sequence as one vector: tokens weighted by a learned score, summed, and projected."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.score = FeedForward(width, hidden, 1, dropout)
        self.merge = nn.Linear(width, out)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x: (b, n, d); keep: (b, n); returns (b, out)."""
        out: Tensor = self.merge(weighted_sum(x, self.score(x), keep))
        return out


class Residual(nn.Module):
    """LayerNorm(x + dropout(change)): how every sub-layer is attached (post-norm)."""

    def __init__(self, width: int, dropout: float, layer_norm: LayerNormKind) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.norm = LayerNorm(width, layer_norm)

    def forward(self, x: Tensor, change: Tensor) -> Tensor:
        """x, change: (b, n, d)."""
        out: Tensor = self.norm(x + self.dropout(change))
        return out


def weighted_sum(x: Tensor, scores: Tensor, keep: Tensor | None) -> Tensor:
    """The tokens of x (b, n, d) summed with the softmax of ``scores`` (b, n, 1) over those kept."""
    weights = masked_softmax(scores, None if keep is None else keep.unsqueeze(-1), dim=1)
    return (weights.to(x.dtype).mT @ x).squeeze(1)
