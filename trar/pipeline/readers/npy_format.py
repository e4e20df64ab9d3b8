"""One array in numpy's ``.npy`` format. Its header is matched, never evaluated or unpickled.

Source: numpy.lib.format, versions 1.0 to 3.0.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError

NPY_MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes; numpy's own bound

_DESCR = re.compile(rb"'descr' *: *'([<>|=]?[biufcmMOSUV][0-9]{0,9}(?:\[[^\]']*\])?)'")
_ORDER = re.compile(rb"'fortran_order' *: *(True|False)")
_SHAPE = re.compile(rb"'shape' *: *\(([0-9L, ]{0,400})\)")
_SIZE = re.compile(rb"([0-9]{1,18})L?")  # Python 2 wrote 64L


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What an array file says of itself; its values begin at byte ``start``."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int


def read_header(head: bytes | memoryview, held_bytes: int, where: str) -> ArrayHeader:
    """The header of an array file of ``held_bytes``, whose first bytes are ``head``.

    Raises:
        RawDataError: no such header, or it claims more bytes than the file holds.
    """
    size_bytes = 2 if head[6:7] == b"\x01" else 4
    start = 8 + size_bytes + int.from_bytes(head[8 : 8 + size_bytes], "little")
    try:
        if head[:6] != NPY_MAGIC or not 8 + size_bytes < start <= min(len(head), LONGEST_HEADER):
            raise ValueError("its first bytes are no array header")
        shape, dtype, fortran = _parse(bytes(head[8 + size_bytes : start]))
    except (ValueError, TypeError, OverflowError) as error:
        raise RawDataError(
            f"{where}: not readable as .npy ({error}); {held_bytes} bytes: cut short or damaged; "
            "copy or extract it again"
        ) from None
    claimed = dtype.itemsize * math.prod(shape)
    if claimed > held_bytes - start and not dtype.hasobject:
        raise RawDataError(
            f"{where}: its header claims {claimed} bytes of {shape} {dtype}, the file holds "
            f"{held_bytes - start}: cut short or damaged; copy or extract it again"
        )
    return ArrayHeader(shape, dtype, fortran, start)


def read_values(data: bytes | memoryview, header: ArrayHeader, where: str) -> NDArray[Any]:
    """The array in ``data``, whose header has been read; a view of it where that is possible.

    Raises:
        RawDataError: an object array, or one without values.
    """
    if header.dtype.hasobject:
        what = "a pickled object (MMF's .npy?)" if header.shape == () else "an object array"
        raise RawDataError(
            f"{where}: {what}; loading it would run code from the file, so it is refused. "
            "Save the features as a plain float array"
        )
    count = math.prod(header.shape)
    if not count or not header.dtype.itemsize:
        raise RawDataError(
            f"{where}: an empty array, {header.shape} {header.dtype}; extract this image again"
        )
    values = np.frombuffer(data, header.dtype, count, header.start)
    if not values.flags.aligned:  # within a zip an array begins at any byte
        values = values.copy()
    return values.reshape(header.shape, order="F" if header.fortran else "C")


@functools.lru_cache(maxsize=256)  # the images of a data set have few different headers
def _parse(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    descr, order, shape = (one.search(header) for one in (_DESCR, _ORDER, _SHAPE))
    if descr is None or order is None or shape is None:
        raise ValueError("its header names no plain dtype, order and shape")
    sizes = tuple(int(one) for one in _SIZE.findall(shape[1]))
    if len(sizes) > 8:
        raise ValueError(f"an array of {len(sizes)} axes")
    return sizes, np.dtype(descr[1].decode("ascii", "replace")), order[1] == b"True"
