"""RWSAN: one block for the question and one for the image, each used again and again, with
attention whose queries and keys have only a few channels.

b = batch, n = image regions, t = question tokens, d = width, h = heads, m = rank: the channels of a
query or key. Masks are bool, True = real. Source: Zheng et al., RWSAN, IEEE Transactions on
Multimedia 25, 2022, and its public code, whose names are in brackets.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trar.trainer.models.frame import Frame, FrameConfig
from trar.trainer.models.layers import FeedForward, Residual, merge_heads, split_heads
from trar.trainer.models.masks import of_keys
from trar.trainer.ops.attention import attention
from trar.trainer.ops.layer_norm import LayerNorm


@dataclass(frozen=True, kw_only=True)
class RwsanConfig(FrameConfig):
    """``question_rank``, ``image_rank``, ``guided_rank``: channels a head of the queries and keys
    of the question's attention to itself, the image's to itself, and the image's to the question.
    ``question_repeats``, ``image_repeats``: how often the block of each, which itself uses its
    layer three times, is gone through (SRWSA_LAYER, SGRWSA_LAYER)."""

    heads: int = 4
    flat_hidden: int = 256
    question_rank: int = 4
    image_rank: int = 16
    guided_rank: int = 64
    question_repeats: int = 3
    image_repeats: int = 3


class LowRankSelfAttention(nn.Module):
    """Attention of a sequence to itself with queries and keys of ``rank`` channels a head (LRA)."""

    def __init__(self, config: RwsanConfig, rank: int) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query_key = nn.Linear(config.width, 2 * rank * config.heads)
        self.value = nn.Linear(config.width, config.width)
        self.merge = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x: (b, n, d); keep: (b, 1, 1, n) keys."""
        q, k = split_heads(self.query_key(x), 2, self.heads)
        (v,) = split_heads(self.value(x), 1, self.heads)
        rate = self.dropout if self.training else 0.0
        out: Tensor = self.merge(merge_heads(attention(q, k, v, keep, rate)))
        return out


class LowRankCrossAttention(nn.Module):
    """The same from one sequence to another, whose keys and values are computed once."""

    def __init__(self, config: RwsanConfig, rank: int) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query = nn.Linear(config.width, rank * config.heads)
        self.key = nn.Linear(config.width, rank * config.heads)
        self.value = nn.Linear(config.width, config.width)
        self.merge = nn.Linear(config.width, config.width)

    def keys_and_values(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of y (b, t, d): (b, h, t, m) and (b, h, t, d / h)."""
        (k,) = split_heads(self.key(y), 1, self.heads)
        (v,) = split_heads(self.value(y), 1, self.heads)
        return k, v

    def forward(self, x: Tensor, key_value: tuple[Tensor, Tensor], keep: Tensor | None) -> Tensor:
        """x: (b, n, d); key_value: of ``keys_and_values``; keep: (b, 1, 1, t) keys."""
        (q,) = split_heads(self.query(x), 1, self.heads)
        rate = self.dropout if self.training else 0.0
        out: Tensor = self.merge(merge_heads(attention(q, *key_value, keep, rate)))
        return out


class QuestionBlock(nn.Module):
    """One layer over the question, used three times with residuals between (SRWSA)."""

    def __init__(self, config: RwsanConfig) -> None:
        super().__init__()
        width, rate, norm = config.width, config.dropout, config.layer_norm
        self.attention = LowRankSelfAttention(config, config.question_rank)
        self.add_attention = Residual(width, rate, norm)
        self.feed_forward = FeedForward(width, config.ff_width, width, rate)
        self.add_feed_forward = Residual(width, rate, norm)
        self.first_norm = LayerNorm(width, norm)
        self.second_norm = LayerNorm(width, norm)

    def layer(self, y: Tensor, words: Tensor | None) -> Tensor:
        """y: (b, t, d), words: (b, 1, 1, t)."""
        y = self.add_attention(y, self.attention(y, words))
        out: Tensor = self.add_feed_forward(y, self.feed_forward(y))
        return out

    def forward(self, y: Tensor, words: Tensor | None) -> Tensor:
        """As ``layer``."""
        first = self.layer(y, words)
        second = self.layer(self.first_norm(first + y), words)
        return self.layer(self.second_norm(second + y), words)


class ImageBlock(nn.Module):
    """One layer over the image, which reads the question, used three times (SGRWSA)."""

    def __init__(self, config: RwsanConfig) -> None:
        super().__init__()
        width, rate, norm = config.width, config.dropout, config.layer_norm
        self.attention = LowRankSelfAttention(config, config.image_rank)
        self.add_attention = Residual(width, rate, norm)
        self.guided = LowRankCrossAttention(config, config.guided_rank)
        self.add_guided = Residual(width, rate, norm)
        self.feed_forward = FeedForward(width, config.ff_width, width, rate)
        self.add_feed_forward = Residual(width, rate, norm)
        self.first_norm = LayerNorm(width, norm)
        self.last_norm = LayerNorm(width, norm)

    def layer(
        self,
        x: Tensor,
        cells: Tensor | None,
        key_value: tuple[Tensor, Tensor],
        words: Tensor | None,
    ) -> Tensor:
        """x: (b, n, d), cells: (b, 1, 1, n), key_value: of the question, words: (b, 1, 1, t)."""
        x = self.add_attention(x, self.attention(x, cells))
        x = self.add_guided(x, self.guided(x, key_value, words))
        out: Tensor = self.add_feed_forward(x, self.feed_forward(x))
        return out

    def forward(
        self,
        x: Tensor,
        cells: Tensor | None,
        key_value: tuple[Tensor, Tensor],
        words: Tensor | None,
    ) -> Tensor:
        """As ``layer``."""
        rest = (cells, key_value, words)
        first = self.layer(x, *rest)
        second = self.layer(self.first_norm(first + x), *rest)
        out: Tensor = self.last_norm(self.layer(second, *rest) + x)
        return out


class Rwsan(Frame):
    """The whole model."""

    def __init__(self, config: RwsanConfig) -> None:
        super().__init__(config)
        self.config = config
        self.question_block = QuestionBlock(config)
        self.image_block = ImageBlock(config)

    def forward(self, image: Tensor, question: Tensor, cells: Tensor | None = None) -> Tensor:
        """Answer logits (b, answers); the inputs are those of ``Frame.read``.

        The question's keys and values are the same for all nine uses of the guided attention, and
        nothing random is in them."""
        x, y, cells, words = self.read(image, question, cells)
        seen, rows = of_keys(words), of_keys(cells)
        for _ in range(self.config.question_repeats):
            y = self.question_block(y, seen)
        key_value = self.image_block.guided.keys_and_values(y)
        for _ in range(self.config.image_repeats):
            x = self.image_block(x, rows, key_value, seen)
        return self.answer(x, y, cells, words)
