"""Contenders that look images up one by one: files, containers, and memory itself as the limit."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from loading.contender import Contender, Delivered
from loading.data import BATCH, IMAGE_BYTES, SHAPE, Place, RandomBatches, buffer, npy_file

LIMIT, PREADV = "memory copy (limit)", "os.preadv alone"
NPZ = "np.load npz float32"
NPY32, NPY16 = "np.load npy float32", "np.load npy float16"

Look = Callable[[int], Any]


def contenders() -> list[Contender]:
    """The limit first."""
    return [
        Contender(LIMIT, _copy, quick=True),
        Contender(PREADV, _preadv, ("plain hdf5",), ("h5py",), quick=True),
        Contender(NPZ, _npz, ("npz",), quick=True),
        Contender(NPY32, _npy_float32, ("npy float32",), quick=True),
        Contender(NPY16, _npy_float16, ("npy float16",), quick=True),
        Contender("zarr-python z[i]", _zarr, ("plain zarr",), ("zarr",)),
        Contender("tensorstore batch", _tensorstore, ("plain zarr",), ("tensorstore",)),
        Contender("h5py d[rows]", _h5py, ("plain hdf5",), ("h5py",), quick=True),
        Contender("LMDB into a reused buffer", _lmdb, ("lmdb",), ("lmdb",), quick=True),
        Contender("mosaicml-streaming ds[i]", _mosaicml, ("mosaicml",), ("streaming",)),
        Contender("litdata ds[i]", _litdata, ("litdata",), ("litdata",)),
    ]


def _copy(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    """The same rows of an array in memory, gathered into one reused buffer."""
    out = buffer()
    for rows in order:
        # mode="raise" would copy through another buffer
        yield rows, np.take(place.images, rows, axis=0, out=out, mode="clip")


def _preadv(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    """System calls and nothing else: what a reader by ``preadv`` cannot do better than."""
    import h5py

    path = place.folder / "plain hdf5/features.h5"
    with h5py.File(path) as file:
        start = file["features"].id.get_offset()
    out = buffer()
    places = [image.reshape(-1).view(np.uint8).data for image in out]
    with path.open("rb", buffering=0) as file:
        for rows in order:
            for row, into in zip(rows.tolist(), places, strict=True):
                os.preadv(file.fileno(), (into,), start + row * IMAGE_BYTES)
            yield rows, out


def _one_by_one(
    order: RandomBatches, look: Look, dtype: DTypeLike = np.float16
) -> Iterator[Delivered]:
    """Each image of a batch copied into one reused buffer."""
    out = buffer(dtype)
    for rows in order:
        for number, row in enumerate(rows.tolist()):
            out[number] = look(row)
        yield rows, out


def look_npz(place: Place, row: int) -> NDArray[np.float32]:
    """An image as bottom-up features are published."""
    with np.load(place.folder / f"npz/{row}.npz") as arrays:
        values: NDArray[np.float32] = arrays["x"]
        return values


def look_npy(place: Place, row: int) -> NDArray[np.float16]:
    """An image in a file of its own, uncompressed."""
    values: NDArray[np.float16] = np.load(npy_file(place.folder, row))
    return values


def _npz(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    return _one_by_one(order, functools.partial(look_npz, place), np.float32)


def _npy_float32(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    folder = place.folder / "npy float32"
    return _one_by_one(order, lambda row: np.load(folder / f"{row}.npy"), np.float32)


def _npy_float16(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    return _one_by_one(order, functools.partial(look_npy, place))


def _zarr(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    """One by one: of zarr-python's ways this is the fastest here, several times."""
    import zarr

    array = zarr.open_array(place.folder / "plain zarr/features", mode="r")
    return _one_by_one(order, lambda row: array[row])


def _tensorstore(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    import tensorstore

    path = str(place.folder / "plain zarr/features")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
    array = tensorstore.open(spec, open=True).result()
    for rows in order:
        yield rows, array[rows].read().result()


def _h5py(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    """A batch in one call, which is faster than image by image; h5py wants ascending rows."""
    import h5py

    with h5py.File(place.folder / "plain hdf5/features.h5") as file:
        dataset = file["features"]
        for rows in order:
            ascending = np.sort(rows)
            yield ascending, dataset[ascending]


def _lmdb(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    import lmdb

    with (
        lmdb.open(str(place.folder / "lmdb"), readonly=True, lock=False) as opened,
        opened.begin(buffers=True) as transaction,
    ):

        def look(row: int) -> NDArray[np.float16]:
            return np.frombuffer(transaction.get(row.to_bytes(4, "big")), np.float16).reshape(SHAPE)

        yield from _one_by_one(order, look)


@functools.cache
def mosaicml() -> Any:
    """The package, once the shared memory of runs that were killed is gone."""
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    return streaming


def _mosaicml(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    dataset = mosaicml().StreamingDataset(local=str(place.folder / "mosaicml"), batch_size=BATCH)
    return _one_by_one(order, lambda row: dataset[row]["features"])


def _litdata(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    import litdata

    dataset = litdata.StreamingDataset(str(place.folder / "litdata"))
    return _one_by_one(order, lambda row: dataset[row]["features"].numpy())
