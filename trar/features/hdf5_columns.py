"""Columns in HDF5 files, made in memory and read with every claim checked against the file.

HDF5 writes into memory and the finished bytes go to disk as ordinary file writes: a full disk is
then an ``OSError``, where the library writing to it itself ends the process. A file depends on its
contents alone: fixed format version, no times, no names of places. A column is a dataset with
HDF5's own fletcher32 and the attribute ``crc32c``, that of its little-endian bytes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from trar.errors import REMAKE, StoreError
from trar.features.mapped import map_array

FORM = {
    "libver": ("v110", "v110"),
    "alignment_threshold": 1 << 16,
    "alignment_interval": 1 << 12,
    "rdcc_nbytes": 0,  # every chunk is written when it comes: chunks lie in order
}
CHECKSUM = "crc32c"
_FLETCHER_BYTES = 4  # HDF5 appends them to a chunk
_LARGEST_CHUNK = (1 << 32) - 1  # bytes that HDF5 can have in one


class MemoryFile:
    """An HDF5 file in the making: write to ``file`` inside the context, then take ``data``."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self.file = h5py.File(self._buffer, "w", **FORM)

    def __enter__(self) -> MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def data(self) -> memoryview:
        """The bytes of the finished file."""
        return self._buffer.getbuffer()


def columns_file(columns: dict[str, NDArray[Any]]) -> memoryview:
    """The bytes of a file of columns, by name; the order in which they come does not matter."""
    with MemoryFile() as made:
        for name in sorted(columns):
            write_column(made.file, name, columns[name])
    return made.data


def write_column(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    """Add one column with its checksums."""
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    rows = max(1, (_LARGEST_CHUNK - _FLETCHER_BYTES) // max(1, plain[:1].nbytes))
    chunk = (min(len(plain), rows), *plain.shape[1:])
    checked: dict[str, Any] = {"chunks": chunk, "fletcher32": True} if plain.size else {}
    dataset = file.create_dataset(name, data=plain, track_times=False, **checked)
    dataset.attrs[CHECKSUM] = np.uint32(crc32c(_bytes_of(plain)))


def read_columns(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Columns of a file, all of them or ``names``; each whole and checked, and not writeable where
    it is mapped.

    Raises:
        StoreError: missing, damaged, or not a file of columns.
    """
    with damage(path), open_file(path) as file:
        size_bytes = path.stat().st_size
        found = sorted(file) if names is None else names
        return {name: _read_column(own_dataset(file, name, size_bytes), path) for name in found}


def open_file(path: Path) -> h5py.File:
    """Open for reading; no lock, so that read-only and network disks do."""
    return h5py.File(path, "r", locking=False)


def own_dataset(file: h5py.File, name: str, size_bytes: int) -> h5py.Dataset:
    """A dataset whose values lie in this very file of ``size_bytes``, numbers as they are."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise StoreError(f"{name} is missing or a link to elsewhere")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
        raise StoreError(f"{name} does not hold numbers")
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if dataset.is_virtual or dataset.external or set(filters) - {h5py.h5z.FILTER_FLETCHER32}:
        raise StoreError(f"{name} is virtual, external or compressed")
    held = dataset.id.get_storage_size()
    if dataset.nbytes > held or held > size_bytes:
        raise StoreError(
            f"{name} claims {dataset.nbytes} bytes, {held} are stored in a file of {size_bytes}"
        )
    return dataset


def _read_column(dataset: h5py.Dataset, path: Path) -> NDArray[Any]:
    """A read-only map of the file where the column is one chunk of it, else in memory."""
    if dataset.dtype.newbyteorder("<") != dataset.dtype:
        raise StoreError(f"{dataset.name} is not little-endian")
    if dataset.chunks == dataset.shape and dataset.dtype != bool:
        chunk = dataset.id.get_chunk_info(0)
        if chunk.size != dataset.nbytes + _FLETCHER_BYTES or chunk.filter_mask:
            raise StoreError(f"{dataset.name} has a chunk of {chunk.size} bytes")
        values = map_array(path, dataset.dtype, dataset.shape, chunk.byte_offset)
    else:
        values = np.ascontiguousarray(dataset[...])
    if int(dataset.attrs[CHECKSUM]) != crc32c(_bytes_of(values)):
        raise StoreError(f"{dataset.name} does not match its crc32c")
    return values


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Whatever HDF5 makes of damaged bytes becomes one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{path}: missing; {REMAKE}") from None
    except Exception as error:  # a flipped bit can end in any exception of the library
        what = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"{path}: damaged ({what}); {REMAKE}") from error
