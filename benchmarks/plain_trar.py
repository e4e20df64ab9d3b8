"""TRAR as its equations read: the formulation that the benchmarks compare with.

One masked softmax, dropout and map per window, window masks made anew in every forward pass by a
loop over the cells, a product for each projection, LayerNorm from mean and deviation, the LSTM over
all steps. Names of parameters are those of the original checkpoints, so that ``to_original`` of our
weights fills it. Source: Zhou et al., TRAR, ICCV 2021.

b = batch, h = heads, n = cells, t = words, d = width, o = orders. Masks: True = not to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trar.trainer.importers import to_original
from trar.trainer.models import Trar, TrarConfig

HIDDEN = -1e9


def plain_copy(model: Trar) -> nn.Module:
    """The plain formulation with the weights of ``model``."""
    plain = PlainTrar(model.config)
    plain.load_state_dict(to_original(model.state_dict(), model.config))
    return plain.to(next(model.parameters())).train(model.training)


def window_masks(side: int, orders: Sequence[int], device: torch.device) -> list[Tensor]:
    """For each order, which cells each cell does not see, (n, n) bool: cell by cell on the host."""
    masks = []
    for order in orders:
        hidden = torch.full((side, side, side, side), fill_value=order > 0)
        for y in range(side if order else 0):
            for x in range(side):
                rows = slice(max(0, y - order), y + order + 1)
                hidden[y, x, rows, max(0, x - order) : x + order + 1] = False
        masks.append(hidden.view(side * side, side * side).to(device))
    return masks


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, route: Tensor, hidden: Sequence[Tensor], rate: float
) -> Tensor:
    """sum_o route_o dropout(softmax(Q K^T / sqrt(c), window o)) V for q, k, v (b, h, n, c).

    ``hidden``: a mask for each order that broadcasts to (b, h, n, n). All maps are kept at once, so
    that one contraction weighs them.
    """
    scores = q @ k.mT / q.shape[-1] ** 0.5
    maps = [F.dropout(scores.masked_fill(one, HIDDEN).softmax(-1), rate) for one in hidden]
    return torch.einsum("bo,obhnm->bhnm", route.to(scores.dtype), torch.stack(maps)) @ v


class PlainTrar(nn.Module):
    """The whole model; ``forward`` as that of ``Trar``."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(config.vocabulary_size, config.word_width)
        self.lstm = nn.LSTM(config.word_width, width, batch_first=True)
        self.adapter = nn.Module()
        self.adapter.frcn_linear = nn.Linear(config.feature_dim, width)
        self.backbone = nn.Module()
        self.backbone.enc_list = nn.ModuleList(_Encoder(config) for _ in range(config.layers))
        self.backbone.dec_list = nn.ModuleList(_Decoder(config) for _ in range(config.layers))
        flat = (width, config.flat_hidden, config.flat_width, config.dropout)
        self.attflat_lang, self.attflat_img = _Flatten(*flat), _Flatten(*flat)
        self.proj_norm = _Norm(config.flat_width)
        self.proj = nn.Linear(config.flat_width, config.answer_count)

    def forward(self, image: Tensor, question: Tensor, cells: Tensor | None = None) -> Tensor:
        """Answer logits (b, answers) of image (b, n, f) and question (b, t)."""
        config = self.config
        no_cell = (image.abs().sum(-1) == 0)[:, None, None]
        no_word = (question == 0)[:, None, None]
        windows = window_masks(config.grid_side, config.orders, image.device)
        y, _ = self.lstm(self.embedding(question))
        x = self.adapter.frcn_linear(image)
        for encoder in self.backbone.enc_list:
            y = encoder(y, no_word)
        for decoder in self.backbone.dec_list:
            x = decoder(x, y, [no_cell | window for window in windows], no_word)
        joined = self.attflat_lang(y, no_word) + self.attflat_img(x, no_cell)
        return cast(Tensor, self.proj(self.proj_norm(joined)))


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        deviation = x.std(-1, keepdim=True)
        return self.a_2 * (x - x.mean(-1, keepdim=True)) / (deviation + 1e-6) + self.b_2


class _Mlp(nn.Module):
    """Two layers, under the names of the original's two modules."""

    def __init__(self, width: int, hidden: int, out: int, rate: float) -> None:
        super().__init__()
        self.fc = nn.Module()
        self.fc.linear = nn.Linear(width, hidden)
        self.linear = nn.Linear(hidden, out)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(self.fc.linear(x).relu(), self.rate, self.training)
        return cast(Tensor, self.linear(hidden))


class _FeedForward(nn.Module):
    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.mlp = _Mlp(config.width, config.ff_width, config.width, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.mlp(x))


class _Flatten(nn.Module):
    def __init__(self, width: int, hidden: int, out: int, rate: float) -> None:
        super().__init__()
        self.mlp = _Mlp(width, hidden, 1, rate)
        self.linear_merge = nn.Linear(width, out)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        scores = self.mlp(x)
        if hidden is not None:
            scores = scores.masked_fill(hidden.flatten(1).unsqueeze(-1), HIDDEN)
        return cast(Tensor, self.linear_merge((scores.softmax(1) * x).sum(1)))


class _Attention(nn.Module):
    """Attention of x to y, for plain masks a softmax and for several the routed mixture."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.heads, self.rate = config.heads, config.dropout
        for name in ("linear_v", "linear_k", "linear_q", "linear_merge"):
            setattr(self, name, nn.Linear(config.width, config.width))

    def forward(
        self, x: Tensor, y: Tensor, hidden: Sequence[Tensor], route: Tensor | None = None
    ) -> Tensor:
        q, k, v = (
            layer(z).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, z in ((self.linear_q, x), (self.linear_k, y), (self.linear_v, y))
        )
        rate = self.rate if self.training else 0.0
        if route is None:
            scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden[0], HIDDEN)
            out = F.dropout(scores.softmax(-1), rate) @ v
        else:
            out = plain_attention(q, k, v, route, hidden, rate)
        return cast(Tensor, self.linear_merge(out.transpose(1, 2).flatten(2)))


class PlainRoutedAttention(_Attention):
    """The routed self-attention block: router, projections, attention."""

    def __init__(self, config: TrarConfig) -> None:
        super().__init__(config)
        self.routing_block = _Router(config)

    def forward(  # type: ignore[override]
        self, x: Tensor, hidden: Sequence[Tensor]
    ) -> Tensor:
        return super().forward(x, x, hidden, self.routing_block(x))


class _Router(nn.Module):
    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.config = config
        if config.pooling == "fc":
            self.pool = nn.Linear(config.width, 1)
        hidden = config.width // 2
        self.mlp = nn.Sequential(
            nn.Linear(config.width, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, len(config.orders)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Routing weights (b, o); hard ones at temperature 1, with noise in training."""
        weights = self.pool(x).softmax(1) if self.config.pooling == "fc" else 1 / x.shape[1]
        pooled = (weights * x).sum(1)
        scores = cast(Tensor, self.mlp(pooled)).log_softmax(-1)
        if self.config.routing == "hard" and self.training:
            scores = scores - torch.empty_like(scores).exponential_().log()
        return scores.softmax(-1)


class _Encoder(nn.Module):
    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.rate = config.dropout
        self.mhatt, self.ffn = _Attention(config), _FeedForward(config)
        self.norm1, self.norm2 = _Norm(config.width), _Norm(config.width)

    def forward(self, y: Tensor, no_word: Tensor) -> Tensor:
        y = self.norm1(y + F.dropout(self.mhatt(y, y, [no_word]), self.rate, self.training))
        return cast(Tensor, self.norm2(y + F.dropout(self.ffn(y), self.rate, self.training)))


class _Decoder(nn.Module):
    def __init__(self, config: TrarConfig) -> None:
        super().__init__()
        self.rate = config.dropout
        self.mhatt1, self.mhatt2 = PlainRoutedAttention(config), _Attention(config)
        self.ffn = _FeedForward(config)
        self.norm1, self.norm2, self.norm3 = (_Norm(config.width) for _ in range(3))

    def forward(self, x: Tensor, y: Tensor, hidden: Sequence[Tensor], no_word: Tensor) -> Tensor:
        x = self.norm1(x + F.dropout(self.mhatt1(x, hidden), self.rate, self.training))
        x = self.norm2(x + F.dropout(self.mhatt2(x, y, [no_word]), self.rate, self.training))
        return cast(Tensor, self.norm3(x + F.dropout(self.ffn(x), self.rate, self.training)))


def block_state(state: Mapping[str, Tensor], layer: int) -> dict[str, Tensor]:
    """The weights of one routed block out of the original names."""
    prefix = f"backbone.dec_list.{layer}.mhatt1."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
