"""Where the rows of an image lie, for models that read it: ``takes_boxes``.

b = batch, n = rows: regions of a detector, or the cells of a square grid in raster order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def box_shares(image: Tensor, boxes: Tensor | None, sizes: Tensor | None) -> Tensor:
    """Left, top, right and bottom of each row of ``image`` (b, n, f) as shares, 0 to 1, of the
    image's width and height: (b, n, 4), or (1, n, 4) where all images have the same.

    boxes: (b, n, 4) x1 y1 x2 y2 and sizes: (b, 2) height and width, both in pixels, as a store of
    regions has them. None: the rows are the cells of a square grid, whose corners these are.
    """
    if boxes is not None and sizes is not None:
        height_width = sizes.to(boxes.dtype).unsqueeze(1)
        return boxes / height_width[..., [1, 0, 1, 0]].clamp_min(1)
    side = math.isqrt(image.shape[1])
    assert side**2 == image.shape[1], "check_readable lets no other store through"
    cell = torch.arange(image.shape[1], device=image.device)
    left_top = torch.stack([cell % side, cell // side], dim=-1)
    return torch.cat([left_top, left_top + 1], dim=-1).unsqueeze(0) / side
