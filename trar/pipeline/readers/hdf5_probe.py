"""Lists what an HDF5 file holds and where its bytes lie; run by path, in a process of its own.

libhdf5 may crash, hang or ask for any amount of memory on a damaged file. So the process that
prepares a store never opens one: `hdf5_layout` starts this file, which sets its own limits, and
judges the answer. Nothing of trar is imported here, so that it starts at once.

Answer on standard output: a line of JSON, {"datasets": [...]} as `hdf5_layout.Dataset` has them or
{"error": text}; then, for each dataset that has ``chunks``, an array (chunks, 3) int64 of offset,
stored bytes and skipped filters, in the raster order of the chunks.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

MEMORY_BYTES = 4 << 30
OUTPUT_BYTES = 1 << 30
MAX_DATASETS = 1000
MAX_CHUNKS = 8 << 20
"""Of all datasets together; one chunk per COCO image and array makes a few hundred thousand."""

_TYPES = {
    "f2": (h5py.h5t.IEEE_F16LE, h5py.h5t.IEEE_F16BE),
    "f4": (h5py.h5t.IEEE_F32LE, h5py.h5t.IEEE_F32BE),
    "f8": (h5py.h5t.IEEE_F64LE, h5py.h5t.IEEE_F64BE),
    "i1": (h5py.h5t.STD_I8LE, h5py.h5t.STD_I8BE),
    "i2": (h5py.h5t.STD_I16LE, h5py.h5t.STD_I16BE),
    "i4": (h5py.h5t.STD_I32LE, h5py.h5t.STD_I32BE),
    "i8": (h5py.h5t.STD_I64LE, h5py.h5t.STD_I64BE),
    "u1": (h5py.h5t.STD_U8LE, h5py.h5t.STD_U8BE),
    "u2": (h5py.h5t.STD_U16LE, h5py.h5t.STD_U16BE),
    "u4": (h5py.h5t.STD_U32LE, h5py.h5t.STD_U32BE),
    "u8": (h5py.h5t.STD_U64LE, h5py.h5t.STD_U64BE),
}


class _Probe:
    """Collects the datasets of one file."""

    def __init__(self) -> None:
        self.datasets: list[dict[str, Any]] = []
        self.tables: list[NDArray[np.int64]] = []
        self.chunks = 0

    def visit(self, name: str, item: Any) -> bool | None:
        """Called by libhdf5 for each group and dataset; True ends the walk."""
        if not isinstance(item, h5py.Dataset):
            return None
        name = name.encode("ascii", "backslashreplace").decode()[:80]
        entry: dict[str, Any] = {"name": name, "type": "unreadable", "shape": []}
        self.datasets.append(entry)
        try:
            self._describe(entry, item.id)
        except Exception as error:  # whatever libhdf5 says about this one, as text
            entry["problem"] = f"{_first_line(error)}: damaged; copy or download it again"
        return True if len(self.datasets) >= MAX_DATASETS else None

    def _describe(self, entry: dict[str, Any], dataset: Any) -> None:
        kind, plist = dataset.get_type(), dataset.get_create_plist()
        shape = dataset.shape
        entry["shape"] = list(shape or ())
        entry["type"] = _spell(kind)
        layout = plist.get_layout()
        if shape is None or not shape:
            entry["problem"] = "a single value, not an array"
        elif entry["type"][0] not in "<>":
            entry["problem"] = (
                f"its type is {entry['type']}, not a plain number; make it again as float32"
            )
        elif layout == h5py.h5d.VIRTUAL or plist.get_external_count():
            entry["problem"] = "its values lie in other files; gather them with h5repack OLD NEW"
        elif layout == h5py.h5d.CONTIGUOUS:
            entry["offset"] = dataset.get_offset()
            if entry["offset"] is None:
                entry["problem"] = "its values were never written; make the file again"
        elif layout == h5py.h5d.CHUNKED:
            self._list_chunks(entry, dataset, plist)
        else:
            entry["problem"] = "its values lie in a header; repack it (h5repack -l CONTI OLD NEW)"

    def _list_chunks(self, entry: dict[str, Any], dataset: Any, plist: Any) -> None:
        chunk = plist.get_chunk()
        filters = [plist.get_filter(number) for number in range(plist.get_nfilters())]
        entry["chunk"] = list(chunk)
        entry["filters"] = [[code, name.decode("ascii", "replace")] for code, _, _, name in filters]
        grid = [-(-size // step) for size, step in zip(dataset.shape, chunk, strict=True)]
        count, there = 1, dataset.get_num_chunks()
        for size in grid:
            count *= size
        if there != count:
            entry["problem"] = (
                f"{there} of its {count} chunks are there, the rest was never "
                "written; make the file again"
            )
            return
        if self.chunks + count > MAX_CHUNKS:
            entry["problem"] = f"{count} chunks are too many; repack it (h5repack -l CONTI OLD NEW)"
            return
        self.chunks += count
        table = np.full((count, 3), -1, np.int64)

        def note(chunk_info: Any) -> None:
            index = 0
            for place, step, size in zip(chunk_info.chunk_offset, chunk, grid, strict=True):
                index = index * size + min(place // step, size - 1)
            table[index] = chunk_info.byte_offset, chunk_info.size, chunk_info.filter_mask

        dataset.chunk_iter(note)
        entry["chunks"] = count
        self.tables.append(table)


def _spell(kind: Any) -> str:
    """``<f4`` only where the file's type is bit for bit numpy's, else the name of its class."""
    for name, types in _TYPES.items():
        for order, one in zip("<>", types, strict=True):
            if kind.equal(one):
                return order + name
    names = {"ENUM": "enum", "COMPOUND": "compound", "STRING": "text", "FLOAT": "float"}
    for name, text in names.items():
        if kind.get_class() == getattr(h5py.h5t, name):
            return f"{text}{8 * kind.get_size()}" if text == "float" else text
    return "other"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def probe(path: str) -> tuple[dict[str, Any], list[NDArray[np.int64]]]:
    """The answer about one file: what the line of JSON holds, and the tables after it."""
    found = _Probe()
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.userblock_size:
                return {"error": f"it begins with a user block of {file.userblock_size} bytes"}, []
            file.visititems(found.visit)
    except Exception as error:  # whatever libhdf5 says, as text
        return {"error": _first_line(error)}, []
    if len(found.datasets) >= MAX_DATASETS:
        return {"error": f"it holds {MAX_DATASETS} datasets or more"}, []
    return {"datasets": found.datasets}, found.tables


def main() -> None:
    """Probe the file named by the first argument within limits of memory, output and time."""
    seconds = int(sys.argv[2])
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, hard))
    answer, tables = probe(sys.argv[1])
    output = sys.stdout.buffer
    output.write(json.dumps(answer).encode() + b"\n")
    for table in tables:
        output.write(table.tobytes())
    output.flush()


if __name__ == "__main__":
    main()
