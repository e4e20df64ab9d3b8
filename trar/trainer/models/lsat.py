"""LSAT: MCAN whose image cells attend to their own window of the grid and to those beside it.

b = batch, n = cells (grid_side^2, raster order), h = heads, c = channels of a head, d = width.
A window is a run of cells in raster order; cell i is in window i // window. Positions are rotary.
Source: Shen et al., Local self-attention in transformer for visual question answering, Applied
Intelligence 53, 2023: intra-window and inter-window attention; its public code never calls its
local attention (docs/fidelity.md), so what the abstract leaves open is chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trar.errors import ConfigError
from trar.trainer.models.layers import merge_heads, split_heads
from trar.trainer.models.mcan import EncoderDecoder, McanConfig
from trar.trainer.ops.attention import attention

_ROTARY_BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class LsatConfig(McanConfig):
    """``window``: cells of a window; the last one is shorter where they do not fill the grid.
    ``look_back``, ``look_forward``: how many windows before and after its own a cell sees.
    ``rotary``: queries and keys carry their position; without, a cell knows its window alone."""

    grid_side: int = 8
    window: int = 16
    look_back: int = field(default=1, metadata={"least": 0})
    look_forward: int = field(default=1, metadata={"least": 0})
    rotary: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window > self.grid_side**2:
            raise ConfigError(
                f"window is {self.window} cells, the grid of {self.grid_side}x{self.grid_side} has "
                f"{self.grid_side**2}; set model.window to a part of it, such as two rows "
                f"({2 * self.grid_side}), or prepare a larger grid (`trar-data prepare --features "
                "DIR`)"
            )
        if self.rotary and self.width // self.heads % 2:
            raise ConfigError(
                f"a head of {self.width // self.heads} channels has no pairs to rotate; change "
                "width or heads, or set rotary to false"
            )


def window_mask(cells: int, window: int, look_back: int, look_forward: int) -> Tensor:
    """Which cell may look at which, (n, n) bool, queries first."""
    number = torch.arange(cells) // window
    ahead = number[None, :] - number[:, None]  # windows from the query's to the key's
    return (ahead >= -look_back) & (ahead <= look_forward)


def rotary_angles(cells: int, channels: int) -> Tensor:
    """Position times frequency, (n, c / 2): 10000^(-2 k / c) for pair k of a head's channels."""
    frequencies = _ROTARY_BASE ** -(torch.arange(0, channels, 2) / channels)
    return torch.arange(cells)[:, None] * frequencies


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x (b, h, n, c) with the pair (k, k + c / 2) of its channels turned by the angles (n, c / 2)
    of its position, so that a product of two depends on how far they are apart."""
    first, second = x.chunk(2, -1)
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class WindowAttention(nn.Module):
    """Self-attention within and between neighbouring windows: one attention under a mask."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: LsatConfig) -> None:
        super().__init__()
        self.config = config
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.merge = nn.Linear(config.width, config.width)
        angles = rotary_angles(config.grid_side**2, config.width // config.heads)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """x: (b, n, d); keep: (b or 1, 1, n, n), with a key left for every query."""
        q, k, v = split_heads(self.query_key_value(x), 3, self.config.heads)
        if self.config.rotary:
            q, k = rotate(q, self.cosine, self.sine), rotate(k, self.cosine, self.sine)
        rate = self.config.dropout if self.training else 0.0
        out: Tensor = self.merge(merge_heads(attention(q, k, v, keep, rate)))
        return out


class Lsat(EncoderDecoder):
    """The whole model."""

    windows: Tensor

    def __init__(self, config: LsatConfig) -> None:
        super().__init__(config, lambda: WindowAttention(config))
        mask = window_mask(
            config.grid_side**2, config.window, config.look_back, config.look_forward
        )
        self.register_buffer("windows", mask, persistent=False)
        self.side = config.grid_side

    def forward(self, image: Tensor, question: Tensor, cells: Tensor | None = None) -> Tensor:
        """See ``EncoderDecoder.forward``.

        Raises:
            ConfigError: another number of cells than the config's grid has.
        """
        if image.shape[1] != len(self.windows):
            raise ConfigError(
                f"grid_side {self.side} means {len(self.windows)} cells, the image features have "
                f"{image.shape[1]}; set grid_side to that of the features"
            )
        return super().forward(image, question, cells)

    def image_keep(self, cells: Tensor | None) -> Tensor:
        """See ``EncoderDecoder``. Padded cells, which nothing reads, may attend to anything, so
        that none of them is left without a key."""
        if cells is None:
            return self.windows[None, None]
        return (self.windows & cells[:, None, None, :]) | ~cells[:, None, :, None]
