"""float32 to float16, to the bit as numpy casts but several times as fast: integer arithmetic on
whole blocks, where numpy converts number by number.

A float16 has 5 bits of exponent (bias 15) and 10 of mantissa, a float32 8 (bias 127) and 23;
numbers below 2**-14 are whole multiples of 2**-24. Rounding is to nearest, ties to even.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 15  # numbers at a time: what is made on the way stays in the processor's cache
_REBIAS = np.uint32(2**32 - ((127 - 15) << 23) + 0xFFF)  # and nearly half of the last bit kept
_NORMAL = np.uint32((127 - 14) << 23)  # 2**-14
_WIDEN = np.float32(2.0 ** (127 - 15))
_HALF = np.float32(0.5)


def to_half(values: NDArray[np.float32]) -> tuple[NDArray[np.float16], float]:
    """``values`` of any shape in float16, and the largest absolute difference that this makes.

    No value may be NaN, infinite, or of a magnitude above 65504.
    """
    order: Literal["C", "F"] = "F" if values.flags.fnc else "C"  # no copy either way round
    flat = values.ravel(order)
    stored = np.empty(len(flat), np.uint16)
    error = 0.0
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        error = max(error, _cast(block.view(np.uint32), stored[start : start + len(block)]))
    return stored.view(np.float16).reshape(values.shape, order=order), error


def _cast(bits: NDArray[np.uint32], out: NDArray[np.uint16]) -> float:
    magnitude = bits & np.uint32(0x7FFFFFFF)
    half = magnitude >> np.uint32(13)
    half &= np.uint32(1)
    half += magnitude
    half += _REBIAS
    half >>= np.uint32(13)
    small = magnitude < _NORMAL
    half *= ~small
    small &= magnitude != 0
    rest = np.flatnonzero(small)
    if len(rest):  # beside 0.5 the last bit of a float32 is worth 2**-24
        fraction = magnitude[rest].view(np.float32) + _HALF
        half[rest] = fraction.view(np.uint32) - _HALF.view(np.uint32)
    bits = bits >> np.uint32(16)
    bits &= np.uint32(0x8000)
    np.bitwise_or(half, bits, out=out, casting="unsafe")
    half <<= np.uint32(13)
    widened = half.view(np.float32)
    widened *= _WIDEN
    widened -= magnitude.view(np.float32)
    return float(max(widened.max(), -widened.min()))
