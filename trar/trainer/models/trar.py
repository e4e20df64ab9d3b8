"""TRAR: a transformer whose image tokens choose, per sample and layer, how far they look.

b = batch, n = image tokens (grid_side^2, raster order), t = question tokens, d = width, o = orders.
Masks are bool, True = real token. Source: Zhou et al., TRAR, ICCV 2021, and its public code,
rentainhe/TRAR-VQA openvqa/models/TRAR.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trar.errors import ConfigError
from trar.trainer.models.config import TrarConfig
from trar.trainer.models.layers import (
    AttentionFlatten,
    CrossAttention,
    FeedForward,
    Residual,
    SelfAttention,
    merge_heads,
    split_heads,
    weighted_sum,
)
from trar.trainer.ops.layer_norm import LayerNorm
from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention

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
        self.hard, self.binarize = config.routing == "hard", config.binarize
        self.pool_mask = config.pool_mask
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

    def forward(
        self,
        x: Tensor,
        cells: Tensor | None,
        temperature: Tensor | float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Routing weights (b, o) of x (b, n, d); they sum to 1.

        Hard routing is a Gumbel softmax: noise in training alone, so that evaluation is
        deterministic (the originals draw it there too).
        """
        logits: Tensor = self.mlp(self.pool(x, cells if self.pool_mask else None))
        if not self.hard:
            return logits.softmax(-1)
        if self.training:
            noise = torch.empty_like(logits).exponential_(generator=generator).log().neg()
            return ((logits.log_softmax(-1) + noise) / temperature).softmax(-1)
        if self.binarize:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        return (logits.log_softmax(-1) / temperature).softmax(-1)


class RoutedSelfAttention(nn.Module):
    """Self-attention of the image tokens with the windows that the router mixes."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.config = config
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.router = Router(config)
        self.merge = nn.Linear(config.width, config.width)

    def forward(
        self,
        x: Tensor,
        cells: Tensor | None,
        rings: Rings,
        temperature: Tensor | float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """x: (b, n, d), cells: (b, n); returns (b, n, d) and the routing weights (b, o)."""
        config = self.config
        route = self.router(x, cells, temperature, generator)
        q, k, v = split_heads(self.query_key_value(x), 3, config.heads)
        attended = routed_attention(
            q,
            k,
            v,
            route,
            rings,
            cells=cells,
            empty_window=config.empty_window,
            dropout=config.dropout if self.training else 0.0,
            attn_dropout=config.attn_dropout,
        )
        return self.merge(merge_heads(attended)), route


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward over the question."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        width, rate, norm = config.width, config.dropout, config.layer_norm
        self.attention = SelfAttention(width, config.heads, rate)
        self.add_attention = Residual(width, rate, norm)
        self.feed_forward = FeedForward(width, config.ff_width, width, rate)
        self.add_feed_forward = Residual(width, rate, norm)

    def forward(self, y: Tensor, words: Tensor) -> Tensor:
        """y: (b, t, d), words: (b, t)."""
        y = self.add_attention(y, self.attention(y, words))
        out: Tensor = self.add_feed_forward(y, self.feed_forward(y))
        return out


class DecoderLayer(nn.Module):
    """Routed self-attention, attention to the question, and feed-forward over the image."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        width, rate, norm = config.width, config.dropout, config.layer_norm
        self.routed = RoutedSelfAttention(config)
        self.add_routed = Residual(width, rate, norm)
        self.cross = CrossAttention(width, config.heads, rate)
        self.add_cross = Residual(width, rate, norm)
        self.feed_forward = FeedForward(width, config.ff_width, width, rate)
        self.add_feed_forward = Residual(width, rate, norm)

    def forward(
        self,
        x: Tensor,
        cells: Tensor | None,
        y: Tensor,
        words: Tensor,
        rings: Rings,
        temperature: Tensor | float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """x: (b, n, d), y: (b, t, d); returns (b, n, d) and the routing weights (b, o)."""
        change, route = self.routed(x, cells, rings, temperature, generator)
        x = self.add_routed(x, change)
        x = self.add_cross(x, self.cross(x, y, words))
        return self.add_feed_forward(x, self.feed_forward(x)), route


class Trar(nn.Module):
    """The whole model: image features and question ids in, answer logits out.

    ``temperature`` of hard routing is a buffer: set it with ``model.temperature.fill_(value)``, and
    it is saved with the weights.
    """

    temperature: Tensor

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.config = config
        width, flat, rate = config.width, config.flat_width, config.dropout
        self.embedding = nn.Embedding(config.vocabulary_size, config.word_width)
        self.lstm = nn.LSTM(config.word_width, width, batch_first=True)
        self.adapter = nn.Linear(config.feature_dim, width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.flatten_question = AttentionFlatten(width, config.flat_hidden, flat, rate)
        self.flatten_image = AttentionFlatten(width, config.flat_hidden, flat, rate)
        self.norm = LayerNorm(flat, config.layer_norm)
        self.classifier = nn.Linear(flat, config.answer_count)
        self.rings = Rings(config.grid_side, config.orders)
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(
        self,
        image: Tensor,
        question: Tensor,
        cells: Tensor | None = None,
        *,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """Answer logits (b, answers).

        image: (b, n, f), any float type. question: (b, t) int64, 0 = padding. cells: (b, n) bool,
        True = real cell; None finds padding as the originals do, by features that are all zero.
        temperature: instead of the buffer. generator: of the Gumbel noise of hard routing; dropout
        uses torch's own. record: gets the routing weights (b, o) of each layer appended.
        """
        count = self.config.grid_side**2
        if image.shape[1] != count:
            raise ConfigError(
                f"grid_side {self.config.grid_side} means {count} cells, the image features have "
                f"{image.shape[1]}; set grid_side to that of the features"
            )
        warmth = self.temperature if temperature is None else temperature
        cells = _real_cells(image, cells)
        words = _real_words(question)

        y, _ = self.lstm(self.embedding(question))
        x = self.adapter(image.to(self.adapter.weight.dtype))
        for encoder in self.encoder:
            y = encoder(y, words)
        for decoder in self.decoder:
            x, route = decoder(x, cells, y, words, self.rings, warmth, generator)
            if record is not None:
                record.append(route)
        joined = self.flatten_question(y, words) + self.flatten_image(x, cells)
        logits: Tensor = self.classifier(self.norm(joined))
        return logits


def _real_cells(image: Tensor, cells: Tensor | None) -> Tensor | None:
    """The mask of real cells, or None where all are, which saves the work of masking.

    The cells of an image that is nothing but padding are all alike, so attending to all of them
    gives what the originals' uniform attention gives.
    """
    if cells is None:
        cells = (image != 0).any(-1)
    cells = cells | ~cells.any(-1, keepdim=True)
    return None if bool(cells.all()) else cells


def _real_words(question: Tensor) -> Tensor:
    """The mask of real tokens. A question of padding alone is read as its first token, which
    keeps attention defined and does not depend on how far the batch is padded."""
    words = question != 0
    words[:, 0] |= ~words.any(-1)
    return words
