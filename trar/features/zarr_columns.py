"""Columns in a Zarr hierarchy: one chunk each, its numbers as they are and then their crc32c.

So a column can be mapped into memory as it lies in the file. What is described in another way (a
store of an earlier version has several chunks a column) is read by zarr-python, which can read
everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zarr
from crc32c import crc32c
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from trar.errors import StoreError
from trar.features.mapped import map_array
from trar.features.zarr_shard import CHECKSUM_BYTES, write_chunk

_TYPES = ("bool", "uint8", "uint16", "uint32", "int32", "int64", "float32")


def write_column(hierarchy: Path, name: str, values: NDArray[Any]) -> list[str]:
    """Write array ``name`` of a local hierarchy; returns its files, relative to the hierarchy."""
    zarr.create_array(
        hierarchy,
        name=name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=tuple(max(1, length) for length in values.shape),
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=0,
        zarr_format=3,
        overwrite=True,
    )
    if not values.size:
        return [f"{name}/zarr.json"]
    chunk = f"{name}/{_chunk_file(values.ndim)}"
    (hierarchy / chunk).parent.mkdir(parents=True, exist_ok=True)
    write_chunk(hierarchy / chunk, values)
    return [f"{name}/zarr.json", chunk]


def map_column(array: Path) -> NDArray[Any] | None:
    """A local column as a read-only map, compared with its crc32c; None where it is described in
    another way than ``write_column`` does.

    Raises:
        StoreError: its file is of another length, or does not match its crc32c.
    """
    described = msgspec.json.decode((array / "zarr.json").read_bytes())
    shape = tuple(described["shape"])
    dtype = np.dtype(described["data_type"]) if described["data_type"] in _TYPES else None
    if dtype is None or 0 in shape or not _as_written(described, dtype):
        return None
    path = array / _chunk_file(len(shape))
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize + CHECKSUM_BYTES
    found = path.stat().st_size
    if found != expected:
        raise StoreError(f"{path} has {found} bytes, expected {expected}")
    values = map_array(path, dtype, shape)
    stored = map_array(path, np.dtype("<u4"), (1,), expected - CHECKSUM_BYTES)
    if crc32c(values.reshape(-1).view(np.uint8).data) != stored[0]:
        raise StoreError(f"{path} does not match its crc32c")
    return values


def _as_written(described: dict[str, Any], dtype: np.dtype[Any]) -> bool:
    """Whether a description is of one chunk of little-endian numbers with their crc32c behind."""
    grid = {"name": "regular", "configuration": {"chunk_shape": described["shape"]}}
    keys = {"name": "default", "configuration": {"separator": "/"}}
    order = {} if dtype.itemsize == 1 else {"configuration": {"endian": "little"}}
    return bool(
        described["node_type"] == "array"
        and described["zarr_format"] == 3
        and described["chunk_grid"] == grid
        and described["chunk_key_encoding"] == keys
        and described["codecs"] == [{"name": "bytes", **order}, {"name": "crc32c"}]
        and not described.get("storage_transformers")
    )


def _chunk_file(dimensions: int) -> str:
    """The file of an array's only chunk."""
    return "c" + "/0" * dimensions
