"""What adaptive attention has learned, in figures: spans, alphas, and how many weights are zero.

b = batch, h = heads, n = queries, t = keys. Source: Bhargava, Adaptive Transformers for Learning
Multimodal Representations, ACL SRW 2020, which shows them by layer and head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trar.trainer.models.adaptive_attention import AdaptiveAttention, Keys

NamedAttentions = Sequence[tuple[str, AdaptiveAttention]]


def attention_figures(
    named: NamedAttentions, forward: Callable[[], Any]
) -> dict[str, dict[str, Tensor]]:
    """``span``, ``alpha`` and ``sparsity`` of every attention by its name, (h,); left out where
    nothing is learned. ``forward`` goes through the model once."""
    figures: dict[str, Mapping[str, Tensor | None]] = {
        "span": {name: one.span for name, one in named},
        "alpha": {name: one.alpha for name, one in named},
        "sparsity": zero_shares(named, forward),
    }
    return {what: known for what, rows in figures.items() if (known := _known(rows))}


def zero_shares(named: NamedAttentions, forward: Callable[[], Any]) -> dict[str, Tensor]:
    """The share of exact zeros among the weights of each head, (h,), by the attention's name.

    Counted in what ``forward`` computes, between real queries and real keys: the mean over
    questions, and over the directions of an attention that has two. Left out: attentions without
    span and alpha, which have no zeros, and those that ``forward`` does not come by.
    """
    learned = [pair for pair in named if pair[1].span is not None or pair[1].alpha is not None]
    if not learned:
        return {}
    count = _ZeroCount()
    with contextlib.ExitStack() as watched:
        for name, one in learned:
            watched.enter_context(one.register_forward_pre_hook(partial(count.look, name)))
        forward()
    return {name: torch.stack(maps).mean(0) for name, maps in count.shares.items()}


class _ZeroCount:
    """``shares`` of zeros by attention, (h,) for each map of weights."""

    def __init__(self) -> None:
        self.shares: dict[str, list[Tensor]] = {}
        self._keep: dict[str, Tensor | None] = {}  # of words and objects, as their own layers say

    def look(
        self, name: str, attention: AdaptiveAttention, inputs: tuple[Tensor, Tensor, Tensor, Keys]
    ) -> None:
        """See the weights that ``attention`` is about to compute."""
        q, k, _, keys = inputs
        real = torch.ones(len(q), 1, q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        queries = self._of_queries(name, keys.keep)
        if keys.keep is not None:
            real = real & keys.keep
        if queries is not None:
            real = real & queries.mT
        zeros = (attention.probabilities(q, k, keys) == 0) & real
        share = zeros.sum((2, 3)) / real.sum((2, 3))
        self.shares.setdefault(name, []).append(share.mean(0))

    def _of_queries(self, name: str, keep: Tensor | None) -> Tensor | None:
        """Which queries are real, (b, 1, 1, n), where ``keep`` says it of the keys."""
        for stack in ("language", "object"):
            if stack in name:  # attention to itself
                self._keep[stack] = keep
                return keep
        return self._keep["object" if keep is self._keep["language"] else "language"]


def _known(rows: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: row for name, row in rows.items() if row is not None}
