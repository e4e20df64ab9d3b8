"""MCAN: a transformer encoder over the question, and a decoder over the image that reads it.

b = batch, n = rows of image features (regions or grid cells), t = question tokens, d = width.
Masks are bool, True = real. Source: Yu et al., Deep Modular Co-Attention Networks, CVPR 2019, and
openvqa/models/mcan/mca.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor, nn

from trar.trainer.models.frame import Frame, FrameConfig
from trar.trainer.models.layers import (
    CrossAttention,
    FeedForward,
    LayerNormKind,
    Residual,
    SelfAttention,
    keys_and_values,
)
from trar.trainer.models.masks import of_keys


@dataclass(frozen=True, kw_only=True)
class McanConfig(FrameConfig):
    """MCAN-small, openvqa's configs/vqa/mcan_small.yml. ``layers``: of encoder and of decoder."""

    layers: int = 6


class BlockSizes(Protocol):
    """What a block of attention and feed-forward is made by."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def ff_width(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def layer_norm(self) -> LayerNormKind: ...


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward over the question."""

    def __init__(self, config: BlockSizes) -> None:
        super().__init__()
        width, rate, norm = config.width, config.dropout, config.layer_norm
        self.attention = SelfAttention(width, config.heads, rate)
        self.add_attention = Residual(width, rate, norm)
        self.feed_forward = FeedForward(width, config.ff_width, width, rate)
        self.add_feed_forward = Residual(width, rate, norm)

    def forward(self, y: Tensor, words: Tensor | None) -> Tensor:
        """y: (b, t, d), words: (b, 1, 1, t)."""
        y = self.add_attention(y, self.attention(y, words))
        out: Tensor = self.add_feed_forward(y, self.feed_forward(y))
        return out


class DecoderLayer(nn.Module):
    """Attention of the image to itself (``attention``) and to the question, and feed-forward."""

    def __init__(self, config: BlockSizes, attention: nn.Module) -> None:
        super().__init__()
        width, rate, norm = config.width, config.dropout, config.layer_norm
        self.attention = attention
        self.add_attention = Residual(width, rate, norm)
        self.cross = CrossAttention(width, config.heads, rate)
        self.add_cross = Residual(width, rate, norm)
        self.feed_forward = FeedForward(width, config.ff_width, width, rate)
        self.add_feed_forward = Residual(width, rate, norm)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None,
        key_value: tuple[Tensor, Tensor],
        words: Tensor | None,
    ) -> Tensor:
        """x: (b, n, d), keep: for ``attention``, key_value: of the question for this layer, words:
        (b, 1, 1, t)."""
        x = self.add_attention(x, self.attention(x, keep))
        x = self.add_cross(x, self.cross(x, *key_value, words))
        out: Tensor = self.add_feed_forward(x, self.feed_forward(x))
        return out


class EncoderDecoder(Frame):
    """Encoder layers over the question, and decoder layers over the image, whose attention to
    itself ``attention`` makes, one for each layer."""

    def __init__(self, config: McanConfig, attention: Callable[[], nn.Module]) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(
            DecoderLayer(config, attention()) for _ in range(config.layers)
        )

    def image_keep(self, cells: Tensor | None) -> Tensor | None:
        """Which rows may attend to which, from ``cells`` (b, n): broadcasts to (b, heads, n, n)."""
        return of_keys(cells)

    def forward(self, image: Tensor, question: Tensor, cells: Tensor | None = None) -> Tensor:
        """Answer logits (b, answers); the inputs are those of ``Frame.read``. Every decoder layer
        reads the encoder's last output."""
        x, y, cells, words = self.read(image, question, cells)
        seen, keep = of_keys(words), self.image_keep(cells)
        for encoder in self.encoder:
            y = encoder(y, seen)
        layers = cast(Sequence[DecoderLayer], list(self.decoder))
        key_values = keys_and_values([layer.cross for layer in layers], y)
        for layer, key_value in zip(layers, key_values, strict=True):
            x = layer(x, keep, key_value, seen)
        return self.answer(x, y, cells, words)


class Mcan(EncoderDecoder):
    """The whole model."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__(config, lambda: SelfAttention(config.width, config.heads, config.dropout))
