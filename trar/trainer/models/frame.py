"""What TRAR, MCAN, LSAT and RWSAN have around their own layers: the reading of words and image rows
before, and the answer after.

b = batch, n = rows of image features, f = numbers in a row, t = question tokens, d = width.
Masks are bool, True = real. Source: openvqa/models/mcan/net.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trar.trainer.models.field_checks import check_fields
from trar.trainer.models.layers import AttentionFlatten, LayerNormKind
from trar.trainer.models.masks import real_cells, real_words, without_padded_steps
from trar.trainer.ops.layer_norm import LayerNorm


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """Sizes that every model of this frame has; those of openvqa's MCAN-small.

    ``layer_norm``: ``exact`` = the originals' form, ``fast`` = torch's.
    """

    vocabulary_size: int
    answer_count: int
    feature_dim: int = 2048
    width: int = 512
    heads: int = 8
    ff_width: int = 2048
    word_width: int = 300
    flat_hidden: int = 512
    flat_width: int = 1024
    dropout: float = 0.1
    layer_norm: LayerNormKind = "exact"

    def __post_init__(self) -> None:
        check_fields(self)


class Frame(nn.Module):
    """Image rows and question ids in (``read``), answer logits out (``answer``); what happens
    between is the model's own."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        width, flat, rate = config.width, config.flat_width, config.dropout
        self.embedding = nn.Embedding(config.vocabulary_size, config.word_width)
        self.lstm = nn.LSTM(config.word_width, width, batch_first=True)
        self.adapter = nn.Linear(config.feature_dim, width)
        self.flatten_question = AttentionFlatten(width, config.flat_hidden, flat, rate)
        self.flatten_image = AttentionFlatten(width, config.flat_hidden, flat, rate)
        self.norm = LayerNorm(flat, config.layer_norm)
        self.classifier = nn.Linear(flat, config.answer_count)

    def read(
        self, image: Tensor, question: Tensor, cells: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Image x (b, n, d) and question y (b, t, d), and what is real of them: cells (b, n), None
        where all rows are, and words (b, t).

        image: (b, n, f), any float type. question: (b, t) int64, 0 = padding. cells: (b, n) bool,
        True = real row; None finds padding as the originals do, by features that are all zero.
        """
        cells = real_cells(image, cells)
        question = without_padded_steps(question)
        y = _read_words(self.lstm, self.embedding(question))
        x = self.adapter(image.to(self.adapter.weight.dtype))
        return x, y, cells, real_words(question)

    def answer(self, x: Tensor, y: Tensor, cells: Tensor | None, words: Tensor) -> Tensor:
        """Answer logits (b, answers) from what ``read`` gives, after the model's layers."""
        joined = self.flatten_question(y, words) + self.flatten_image(x, cells)
        logits: Tensor = self.classifier(self.norm(joined))
        return logits


def _read_words(lstm: nn.LSTM, words: Tensor) -> Tensor:
    """The LSTM's output at every step; on a CPU always in single precision, as oneDNN has no LSTM
    in half precision for most of them."""
    half = torch.is_autocast_enabled(words.device.type) and words.device.type != "cpu"
    with torch.autocast(words.device.type, enabled=half):
        states: Tensor = lstm(words)[0]
    return states
