"""Arrays that are read-only memory maps of a part of a file, so that they take no memory.

Pages of a map are the page cache's: they are dropped when memory is short and read again when they
are used. A file must not be cut while it is mapped; the store's files are replaced, never changed.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL_BYTES = 1 << 16  # less is read into memory: a map takes a file descriptor and whole pages


def map_array(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0
) -> NDArray[Any]:
    """The numbers of ``shape`` that begin at byte ``offset`` of a file; not writeable.

    Raises:
        ValueError: the file ends before they do.
    """
    count = int(np.prod(shape, dtype=np.int64))
    with path.open("rb") as file:
        if count * dtype.itemsize < SMALL_BYTES:
            file.seek(offset)
            data: bytes | mmap.mmap = file.read(count * dtype.itemsize)
            offset = 0
        else:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(data, dtype, count, offset).reshape(shape)
