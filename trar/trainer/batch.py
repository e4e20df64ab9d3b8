"""What the model is given: one batch of questions about images, as tensors.

b = questions, n = rows of features of an image (grid cells or regions), f = numbers in a row,
t = tokens, s = scored answers of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trar.trainer.ops.noise import sample_keys


@dataclass(frozen=True)
class Batch:
    """``features`` (b, n, f); ``cells`` (b, n) True where a row holds features and False where it
    is padding; ``lengths`` (b,) int64: rows stored of each image, where images are ragged n is the
    longest of the batch; ``tokens`` (b, t) int64, 0 = padding, t = the longest question of the
    batch; the scored answers, sparse: ``target_row`` (s,) int64 into the batch, ascending,
    ``target_label`` (s,) int64 and ``target_score`` (s,) float32; ``question_ids`` (b,) int64,
    which stay on the host. ``boxes`` (b, n, 4) float32 x1 y1 x2 y2 and ``sizes`` (b, 2) int32
    height and width of the image, in pixels, None in a store without boxes.

    As it comes from a loader, ``features`` has the store's dtype and may be a view of a buffer that
    the loader fills again: use it up before asking for the next batch, or copy it.
    """

    features: Tensor
    cells: Tensor
    lengths: Tensor
    tokens: Tensor
    target_row: Tensor
    target_label: Tensor
    target_score: Tensor
    question_ids: Tensor
    boxes: Tensor | None = None
    sizes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.question_ids)

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``, features as float32."""
        moved = self.copied_to(device)  # half the bytes travel, then the cast
        return replace(moved, features=moved.features.to(torch.float32))

    def copied_to(self, device: torch.device) -> Batch:
        """The batch on ``device``, in its own types. From pinned memory the copies are only begun
        when this returns."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory; torch's ``DataLoader(pin_memory=True)`` calls this."""
        return self._each(torch.Tensor.pin_memory)

    def part(self, start: int, stop: int) -> Batch:
        """Questions ``start:stop`` as a batch of their own."""
        bounds = self.target_row.new_tensor([start, stop])
        first, last = torch.searchsorted(self.target_row, bounds).tolist()
        return Batch(
            self.features[start:stop],
            self.cells[start:stop],
            self.lengths[start:stop],
            self.tokens[start:stop],
            self.target_row[first:last] - start,
            self.target_label[first:last],
            self.target_score[first:last],
            self.question_ids[start:stop],
            None if self.boxes is None else self.boxes[start:stop],
            None if self.sizes is None else self.sizes[start:stop],
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            change(self.features),
            change(self.cells),
            change(self.lengths),
            change(self.tokens),
            change(self.target_row),
            change(self.target_label),
            change(self.target_score),
            self.question_ids,
            None if self.boxes is None else change(self.boxes),
            None if self.sizes is None else change(self.sizes),
        )


def model_inputs(model: nn.Module, batch: Batch) -> tuple[Tensor | None, ...]:
    """What ``model``, not wrapped, is called with for ``batch``: features, tokens and cells, and
    where it says ``takes_boxes`` boxes and sizes."""
    always = (batch.features, batch.tokens, batch.cells)
    return (*always, batch.boxes, batch.sizes) if getattr(model, "takes_boxes", False) else always


def noise_keys(model: nn.Module, batch: Batch, seed: int) -> dict[str, Tensor]:
    """What a model that ``takes_keys`` is called with besides: keys that fix the routing noise of
    each question under ``seed``, whatever batch or rank it is in."""
    if not getattr(model, "takes_keys", False):
        return {}
    return {"keys": sample_keys(seed, batch.question_ids)}
