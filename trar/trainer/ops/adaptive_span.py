"""How far an attention head looks: a soft mask over distance, with a reach that is learned.

h = heads, n = queries, t = keys. m(x) = min(max((r + s - x) / r, 0), 1) with the distance x of a
key, the span s of the head and the width r of the ramp, all counted in keys. Source: Sukhbaatar et
al., Adaptive Attention Span in Transformers, ACL 2019, equation 2; used on LXMERT by Bhargava,
Adaptive Transformers for Learning Multimodal Representations, ACL SRW 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-8  # parity: what the public code adds to the sum of what the mask leaves


def span_mask(span: Tensor, distance: Tensor, ramp: float) -> Tensor:
    """What each head lets through, 0 to 1: (h, t), or (h, n, t) for distances (n, t).

    span: (h,), 0 or more. distance: (t,) or (n, t).
    """
    spans = span.view(-1, *([1] * distance.dim()))
    return ((ramp + spans - distance) / ramp).clamp(0, 1)


def distance_to_last(keys: int, length: int, device: torch.device) -> Tensor:
    """How far each of the first ``keys`` of ``length`` places is from the last of them, (keys,);
    below 0 where there are more keys than places. The distance that the public code masks by."""
    return length - 1 - torch.arange(keys, device=device)


def distance_between(tokens: int, device: torch.device) -> Tensor:
    """How many tokens apart query and key are, (tokens, tokens)."""
    place = torch.arange(tokens, device=device)
    return (place[:, None] - place[None, :]).abs()


def masked_again(probabilities: Tensor, mask: Tensor) -> Tensor:
    """``probabilities`` (b, h, n, t) times ``mask``, which broadcasts, summing to one again over
    the keys; to zero where the mask leaves nothing."""
    left = probabilities * mask
    return left / (left.sum(-1, keepdim=True) + _EPSILON)
