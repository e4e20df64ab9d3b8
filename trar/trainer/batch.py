"""What the model is given: one batch of questions about images, as tensors.

b = questions, n = grid cells, f = features of a cell, t = tokens, s = scored answers of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """``features`` (b, n, f); ``cells`` (b, n) True where a cell holds features; ``tokens`` (b, t)
    int64, 0 = padding, t = the longest question of the batch; the scored answers, sparse:
    ``target_row`` (s,) int64 into the batch, ascending, ``target_label`` (s,) int64 and
    ``target_score`` (s,) float32; ``question_ids`` (b,) int64.

    As it comes from a loader, ``features`` has the store's dtype and is a view of a buffer that
    the loader fills again: use it up before asking for the next batch, or copy it.
    """

    features: Tensor
    cells: Tensor
    tokens: Tensor
    target_row: Tensor
    target_label: Tensor
    target_score: Tensor
    question_ids: Tensor

    def __len__(self) -> int:
        return len(self.question_ids)

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``, features as float32."""
        return Batch(
            self.features.to(device).to(torch.float32),  # half the bytes travel, then the cast
            self.cells.to(device),
            self.tokens.to(device),
            self.target_row.to(device),
            self.target_label.to(device),
            self.target_score.to(device),
            self.question_ids,
        )

    def part(self, start: int, stop: int) -> Batch:
        """Questions ``start:stop`` as a batch of their own."""
        bounds = self.target_row.new_tensor([start, stop])
        first, last = torch.searchsorted(self.target_row, bounds).tolist()
        return Batch(
            self.features[start:stop],
            self.cells[start:stop],
            self.tokens[start:stop],
            self.target_row[first:last] - start,
            self.target_label[first:last],
            self.target_score[first:last],
            self.question_ids[start:stop],
        )
