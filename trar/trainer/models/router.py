"""The path controller of TRAR: which windows each sample's image tokens attend to, in which shares.

b = batch, n = image tokens, d = width, o = orders. Source: Zhou et al., TRAR, ICCV 2021, and
rentainhe/TRAR-VQA openvqa/models/TRAR/trar.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trar.trainer.models.config import TrarConfig
from trar.trainer.models.layers import AttentionFlatten, weighted_sum
from trar.trainer.ops.layer_norm import LayerNorm

_ROUTER_POOL_DROPOUT = 0.1  # parity: a constant there, not the model's dropout


class AveragePooling(nn.Module):
    """The mean of the tokens."""

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x: (b, n, d), keep: (b, n); returns (b, d)."""
        if keep is None:
            return x.mean(1)
        weights = keep.to(x.dtype).unsqueeze(1)  # (b, 1, n)
        return (weights @ x).squeeze(1) / weights.sum(-1).clamp(min=1)


class ScorePooling(nn.Module):
    """The tokens weighted by the softmax of one linear score (``fc``)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x: (b, n, d), keep: (b, n); returns (b, d)."""
        return weighted_sum(x, self.score(x), keep)


class AttentionPooling(nn.Module):
    """The tokens weighted by a two-layer score, projected and normalised (``attention``)."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        width = config.width
        self.flatten = AttentionFlatten(width, width, width, _ROUTER_POOL_DROPOUT)
        self.norm = LayerNorm(width, config.layer_norm)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x: (b, n, d), keep: (b, n); returns (b, d)."""
        out: Tensor = self.norm(self.flatten(x, keep))
        return out


class Router(nn.Module):
    """The path controller: from the image tokens to a weight per order."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.config = config
        self.pool: nn.Module
        if config.pooling == "avg":
            self.pool = AveragePooling()
        elif config.pooling == "fc":
            self.pool = ScorePooling(config.width)
        else:
            self.pool = AttentionPooling(config)
        hidden = config.width // 2
        self.mlp = nn.Sequential(
            nn.Linear(config.width, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, len(config.orders)),
        )

    @property
    def chooses_one(self) -> bool:
        """Whether each sample goes by one order alone, its weight being 1."""
        return not self.training and (self.config.binarize or self.config.eval_alpha == "argmax")

    def forward(
        self, x: Tensor, cells: Tensor | None, temperature: Tensor | float, noise: Tensor | None
    ) -> Tensor:
        """Routing weights (b, o) of x (b, n, d), in float32 or wider; they sum to 1.

        Hard routing is a softmax of log-probabilities plus Gumbel ``noise`` (b, o), divided by
        ``temperature``; None = no noise.
        """
        pooled = self.pool(x, cells if self.config.pool_mask else None)
        logits: Tensor = self.mlp(pooled)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.config.routing == "soft":
            return logits.softmax(-1)
        scores = logits.log_softmax(-1)
        if noise is not None:
            scores = scores + noise
        if self.chooses_one:
            return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
        return (scores / temperature).softmax(-1)
