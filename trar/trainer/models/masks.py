"""Which rows of an image and which words of a question are real, and what padding need not cost.

b = batch, n = rows of image features, f = numbers in a row, t = question tokens. True = real.
"""

from __future__ import annotations

import torch
from torch import Tensor


def real_cells(image: Tensor, cells: Tensor | None) -> Tensor | None:
    """The mask (b, n) of real rows of ``image`` (b, n, f), or None where all are, which saves the
    work of masking. Without ``cells`` padding is found as the originals do: rows of zeros alone.

    The rows of an image that is nothing but padding are all alike, so attending to all of them
    gives what the originals' uniform attention gives.
    """
    if cells is None:
        cells = (image != 0).any(-1)
    cells = cells | ~cells.any(-1, keepdim=True)
    return None if _may_look(cells) and bool(cells.all()) else cells


def without_padded_steps(question: Tensor) -> Tensor:
    """``question`` (b, t) without the last steps that are padding everywhere: nothing reads what
    the LSTM makes of them."""
    if not _may_look(question):
        return question
    longest = int((question != 0).any(0).nonzero().max()) + 1 if bool(question.any()) else 1
    return question[:, :longest]


def real_words(question: Tensor) -> Tensor:
    """The mask of real tokens (b, t).

    A question of padding alone is read as its first token, which keeps attention defined and does
    not depend on how far the batch is padded."""
    words = question != 0
    words[:, 0] |= ~words.any(-1)
    return words


def of_keys(keep: Tensor | None) -> Tensor | None:
    """A mask (b, n) of keys as attention wants it, (b, 1, 1, n)."""
    return None if keep is None else keep[:, None, None, :]


def _may_look(mask: Tensor) -> bool:
    """Whether looking at values is free: other devices would have to finish their queue first, and
    a compiled graph would end here."""
    return mask.device.type == "cpu" and not torch.compiler.is_compiling()
