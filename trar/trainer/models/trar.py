"""TRAR: a transformer whose image tokens choose, per sample and layer, how far they look.

b = batch, n = image tokens (grid_side^2, raster order), t = question tokens, d = width, o = orders.
Masks are bool, True = real token. Source: Zhou et al., TRAR, ICCV 2021, and its public code,
rentainhe/TRAR-VQA openvqa/models/TRAR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from trar.errors import ConfigError
from trar.trainer.models.config import TrarConfig
from trar.trainer.models.frame import Frame
from trar.trainer.models.layers import (
    CrossAttention,
    FeedForward,
    Residual,
    keys_and_values,
    merge_heads,
    split_heads,
)
from trar.trainer.models.masks import of_keys
from trar.trainer.models.mcan import EncoderLayer
from trar.trainer.models.router import Router
from trar.trainer.ops.chosen import chosen_attention
from trar.trainer.ops.noise import gumbel_noise, sample_keys
from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention


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
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """x: (b, n, d), cells: (b, n); returns (b, n, d) and the routing weights (b, o)."""
        config = self.config
        route = self.router(x, cells, temperature, noise)
        q, k, v = split_heads(self.query_key_value(x), 3, config.heads)
        if self.router.chooses_one and not torch.is_grad_enabled():
            attended = chosen_attention(
                q, k, v, route.argmax(-1), rings, cells=cells, empty_window=config.empty_window
            )
        else:
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
                kernel=config.kernel,
            )
        return self.merge(merge_heads(attended)), route


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
        key_value: tuple[Tensor, Tensor],
        words: Tensor | None,
        rings: Rings,
        temperature: Tensor | float,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """x: (b, n, d), key_value: of the question for this layer, words: (b, 1, 1, t); returns
        (b, n, d) and the routing weights (b, o)."""
        change, route = self.routed(x, cells, rings, temperature, noise)
        x = self.add_routed(x, change)
        x = self.add_cross(x, self.cross(x, *key_value, words))
        return self.add_feed_forward(x, self.feed_forward(x)), route


class Trar(Frame):
    """The whole model: image features and question ids in, answer logits out.

    ``temperature`` of hard routing is a buffer: set it with ``model.temperature.fill_(value)``, and
    it is saved with the weights.
    """

    takes_keys = True
    temperature: Tensor

    def __init__(self, config: TrarConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
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
        keys: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """Answer logits (b, answers).

        image, question, cells: see ``Frame.read``. temperature: instead of the buffer, and of
        ``eval_tau``. keys: (b,) int64 of ``ops.noise.sample_keys``, which fix the noise of hard
        routing sample by sample. Without them it is drawn from ``generator`` in training, and
        belongs to the place in the batch at evaluation (``eval_alpha: gumbel``). Dropout uses
        torch's own random state. record: gets the routing weights (b, o) of each layer appended.
        """
        count = self.config.grid_side**2
        if image.shape[1] != count:
            raise ConfigError(
                f"grid_side {self.config.grid_side} means {count} cells, the image features have "
                f"{image.shape[1]}; set grid_side to that of the features"
            )
        warmth, noises = self._heat(temperature), self._noise(len(image), generator, keys)
        x, y, cells, words = self.read(image, question, cells)
        keep = of_keys(words)
        for encoder in self.encoder:
            y = encoder(y, keep)
        key_values = keys_and_values([decoder.cross for decoder in self._decoders()], y)
        for decoder, key_value, noise in zip(self._decoders(), key_values, noises, strict=True):
            x, route = decoder(x, cells, key_value, keep, self.rings, warmth, noise)
            if record is not None:
                record.append(route)
        return self.answer(x, y, cells, words)

    def report(self, *inputs: Tensor, keys: Tensor | None = None) -> dict[str, dict[str, Tensor]]:
        """``routing``: the mean weight of each order, (o,), by layer; ``keys`` as ``forward``."""
        record: list[Tensor] = []
        self.forward(*inputs, keys=keys, record=record)
        return {"routing": {f"layer_{n}": route.mean(0) for n, route in enumerate(record)}}

    def _decoders(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.decoder))

    def _heat(self, temperature: float | None) -> Tensor | float:
        if temperature is not None:
            return temperature
        fixed = None if self.training else self.config.eval_tau
        return self.temperature if fixed is None else fixed

    def _noise(
        self, batch: int, generator: torch.Generator | None, keys: Tensor | None
    ) -> Sequence[Tensor | None]:
        """The Gumbel noise (b, o) of every layer, or None for each."""
        config, device = self.config, self.temperature.device
        noisy = self.training or config.eval_alpha == "gumbel"
        if config.routing == "soft" or not noisy:
            return [None] * config.layers
        if keys is None and self.training:
            shape = (config.layers, batch, len(config.orders))
            noise = torch.empty(shape, device=device).exponential_(generator=generator)
            return noise.log_().neg_().unbind()
        if keys is None:
            keys = sample_keys(0, torch.arange(batch, device=device))
        return gumbel_noise(keys.to(device), config.layers, len(config.orders)).unbind()
