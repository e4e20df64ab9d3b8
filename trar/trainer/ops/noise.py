"""Gumbel noise that belongs to a sample, not to the order in which numbers are drawn.

A sample's key fixes its noise, so it is the same in every batch, on every device and in every
process. The bits are splitmix64's (Steele, Lea, Flood, OOPSLA 2014): a counter, well mixed.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed number, which wraps as an unsigned one does
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def sample_keys(seed: int, samples: Tensor) -> Tensor:
    """Keys (b,) int64 of the samples numbered ``samples`` (b,) int64 under ``seed``."""
    return _mix(samples ^ _mix(torch.full_like(samples, seed)))


def gumbel_noise(keys: Tensor, layers: int, count: int) -> Tensor:
    """Gumbel(0, 1) noise (layers, b, count) float32, a function of ``keys`` (b,) int64 alone."""
    counter = torch.arange(1, layers * count + 1, device=keys.device).view(layers, 1, count)
    bits = _mix(keys[:, None] + counter * _STEP)
    uniform = (((bits >> 11) & ((1 << 53) - 1)) + 0.5).double() * 2.0**-53  # never 0 or 1
    return uniform.log().neg_().log().neg_().float()


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right, with zeros from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
