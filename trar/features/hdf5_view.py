"""``<dataset>.h5``: one HDF5 file that shows a whole store to other tools.

Virtual datasets join the shards' features, checksums, cells and boxes; external links lead to the
tables. Names are relative, so a folder can be moved. HDF5 fills what it cannot find with zeros and
says nothing, so nothing in trar reads through this file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import h5py
import numpy as np

from trar.features.hdf5_columns import MemoryFile
from trar.features.hdf5_shard import CHECKSUMS, FEATURES
from trar.features.schema import SHARDS, TABLES, FeatureSpec, ImageSplit, StoreMeta


def shard_file(split: str, shard: int) -> str:
    """A shard's name in the dataset folder."""
    return f"{SHARDS}/{split}-{shard:05}.h5"


def table_file(name: str) -> str:
    """The name of a table's file in the dataset folder."""
    return f"{TABLES}/{name}.h5"


def view_bytes(meta: StoreMeta, files: Iterable[str]) -> memoryview:
    """The file's bytes, from the splits of ``meta`` and the names of the store's ``files``."""
    tables = sorted(
        str(PurePosixPath(name).relative_to(TABLES).with_suffix(""))
        for name in files
        if name.startswith(f"{TABLES}/")
    )
    with MemoryFile() as made:
        for split in sorted(meta.image_splits):
            _add_images(made.file, split, meta.feature, meta.image_splits[split])
        for name in tables:
            if not name.startswith("images/"):
                parent, _, last = name.rpartition("/")
                _group(made.file, parent)[last] = h5py.ExternalLink(table_file(name), "/")
    return made.data


def _add_images(file: h5py.File, split: str, spec: FeatureSpec, images: ImageSplit) -> None:
    """The group ``images/<split>``."""
    group = _group(file, f"images/{split}")
    side = () if spec.ragged else (spec.rows,)
    length, shard_rows = images.images, images.shard_images
    if spec.ragged:
        length, shard_rows = images.flat_rows, images.shard_images * spec.chunk_rows
    _join(group, FEATURES, (length, *side, spec.width), spec.dtype, split, shard_rows)
    _join(group, CHECKSUMS, (images.chunks(spec),), "uint32", split, images.shard_images)
    if not spec.ragged:
        _join(group, "cells", (length, *side), "bool", split, shard_rows)
    if spec.boxes:
        _join(group, "boxes", (length, *side, 4), "float32", split, shard_rows)
    columns = ["ids", *(["offsets"] if spec.ragged else []), *(["sizes"] if spec.boxes else [])]
    for column in columns:
        group[column] = h5py.ExternalLink(table_file(f"images/{split}"), column)


def _group(file: h5py.File, name: str) -> h5py.Group:
    """A group and all above it, without the times that HDF5 would note."""
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if path not in file:
            h5py.h5g.create(file.id, path.encode(), gcpl=properties)
    return file[name]


def _join(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    split: str,
    shard_rows: int,
) -> None:
    """One dataset over all shards of a split, ``shard_rows`` of it in each.

    Made with HDF5's own calls: h5py's would note the time."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    whole = h5py.h5s.create_simple(shape)
    for shard, start in enumerate(range(0, shape[0], shard_rows)):
        part = (min(shard_rows, shape[0] - start), *shape[1:])
        whole.select_hyperslab((start, *(0 for _ in shape[1:])), part)
        properties.set_virtual(
            whole, shard_file(split, shard).encode(), name.encode(), h5py.h5s.create_simple(part)
        )
    little = h5py.h5t.py_create(np.dtype(dtype).newbyteorder("<"), logical=True)
    h5py.h5d.create(group.id, name.encode(), little, h5py.h5s.create_simple(shape), properties)
