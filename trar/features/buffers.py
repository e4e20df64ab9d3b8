"""Memory to read batches into, placed so that copies into it are fast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ALIGNMENT = 64  # bytes: a cache line


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Like ``np.empty``, with the first byte at the begin of a cache line.

    Chunks of features begin so too. numpy's own arrays begin 16 bytes into a line, where copying
    out of the page cache takes up to twice as long; torch's begin at a line.
    """
    size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = np.empty(size_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size_bytes].view(dtype).reshape(shape)
