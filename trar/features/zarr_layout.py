"""How a Zarr array of features is laid out: as docs/format.md says, so that plain file reads do?

Byte order, codecs, chunk shape and the place of the shard's index come from the array's own
description, never from what trar would have written.
"""

from __future__ import annotations

from typing import Any

import zarr

from trar.features.schema import RAGGED_CHUNK_ROWS, Compression

_PLAIN = ({"name": "bytes", "configuration": {"endian": "little"}},)
_CHECKSUM = ({"name": "crc32c"},)


def other_layout(array: zarr.Array[Any], compression: Compression | None) -> str | None:
    """How the array is laid out where that is not as trar writes it with ``compression``, else
    None."""
    if compression is None and _inner_codecs(array) == _PLAIN + _CHECKSUM:
        return None
    if compression == "zstd" and is_zstd(array) and ends_with_checksum(array):
        return None
    codecs: Any = array.metadata.to_dict()["codecs"]
    shards = codecs[0].get("configuration", {})
    named = ", ".join(map(_named, shards.get("codecs", codecs)))
    index = f", index at the {shards['index_location']}" if "index_location" in shards else ""
    return f"chunks {array.chunks} of {array.shape}, codecs {named}{index}"


def is_zstd(array: zarr.Array[Any]) -> bool:
    """Whether it is as plain file reads need it but for zstd, with a crc32c behind it or none."""
    inner = _inner_codecs(array) or ()
    return inner[:1] == _PLAIN and [codec["name"] for codec in inner[1:]] in (
        ["zstd"],
        ["zstd", "crc32c"],
    )


def ends_with_checksum(array: zarr.Array[Any]) -> bool:
    """Whether a crc32c of all its other bytes ends each inner chunk."""
    return (_inner_codecs(array) or ())[-1:] == _CHECKSUM


def _inner_codecs(array: zarr.Array[Any]) -> tuple[dict[str, Any], ...] | None:
    """Codecs of an inner chunk where that is one image (or 64 regions) in shards with the index at
    the end, else None."""
    codecs: Any = array.metadata.to_dict()["codecs"]
    shards = codecs[0].get("configuration", {}) if len(codecs) == 1 else {}
    first = 1 if array.ndim == 3 else RAGGED_CHUNK_ROWS
    if array.shards is None or shards.get("index_location") != "end":
        return None
    if array.chunks != (first, *array.shape[1:]) or array.shards[1:] != array.shape[1:]:
        return None
    return tuple(shards["codecs"])


def _named(codec: dict[str, Any]) -> str:
    endian = codec.get("configuration", {}).get("endian")
    return f"{codec['name']} {endian}-endian" if endian else str(codec["name"])
