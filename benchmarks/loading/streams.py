"""Contenders that deliver batches through torch's DataLoader, as their documentation shows it.

torch's own is given the common batches. webdataset, mosaicml-streaming and litdata choose their own
order: shuffled within shards or a window, which is less work than random images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from loading.contender import Contender, Delivered
from loading.data import BATCH, Place, RandomBatches
from loading.files import look_npy, look_npz, mosaicml

WORKERS = 2
_AHEAD = 2 * WORKERS + 1  # torch keeps two batches a worker under way
LOADER_NPZ, LOADER_NPY = "DataLoader(2) npz float32", "DataLoader(2) npy float16"


def contenders() -> list[Contender]:
    """torch's own, then each library in this process and with worker processes."""
    given = [
        Contender(LOADER_NPZ, _torch_npz, ("npz",), ("torch",), _AHEAD, True),
        Contender(LOADER_NPY, _torch_npy, ("npy float16",), ("torch",), _AHEAD, True),
    ]
    own = [
        Contender(
            f"{name}, {f'{workers} workers' if workers else 'in process'}",
            functools.partial(_own_order, start, pick, workers),
            (name.partition("-")[0],),
            (module,),
            ahead=_AHEAD if workers else 0,
            processes=workers > 0,
            own_order=True,
        )
        for name, module, start, pick in (
            ("webdataset", "webdataset", _webdataset, _by_key),
            ("mosaicml-streaming", "streaming", _mosaicml, _by_name),
            ("litdata", "litdata", _litdata, _by_name),
        )
        for workers in (0, WORKERS)
    ]
    return [*given, *own]


class _Images(Dataset[tuple[int, NDArray[Any]]]):
    """Images by row, each with its number."""

    def __init__(self, place: Place, look: Callable[[Place, int], NDArray[Any]]) -> None:
        self.place = Place(place.folder, place.images[:0])  # what a worker may be sent
        self.look = look
        self.count = len(place.images)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[int, NDArray[Any]]:
        return row, self.look(self.place, row)


def _torch_npz(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    return _torch(_Images(place, look_npz), order)


def _torch_npy(place: Place, order: RandomBatches) -> Iterator[Delivered]:
    return _torch(_Images(place, look_npy), order)


def _torch(images: _Images, order: RandomBatches) -> Iterator[Delivered]:
    sampler = (rows.tolist() for rows in order)
    loader: Any = DataLoader(images, batch_sampler=sampler, num_workers=WORKERS)
    for rows, features in loader:
        yield rows.numpy(), features.numpy()


def _own_order(
    start: Callable[[Place, int], Iterable[Any]],
    pick: Callable[[Any], tuple[Any, Any]],
    workers: int,
    place: Place,
    order: RandomBatches,
) -> Iterator[Delivered]:
    """Epoch after epoch; short last batches do not count."""
    loader = start(place, workers)
    while True:
        for rows, features in map(pick, loader):
            if len(rows) == BATCH:
                yield np.asarray(rows, np.int64), np.asarray(features)


def _webdataset(place: Place, workers: int) -> Iterable[Any]:
    import webdataset

    shards = sorted(map(str, (place.folder / "webdataset").glob("*.tar")))
    images = webdataset.WebDataset(shards, shardshuffle=100, empty_check=False)
    batches = images.shuffle(1000).decode().to_tuple("__key__", "npy").batched(BATCH)
    return webdataset.WebLoader(
        batches, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )


def _mosaicml(place: Place, workers: int) -> Iterable[Any]:
    folder = str(place.folder / "mosaicml")
    images = mosaicml().StreamingDataset(local=folder, shuffle=True, batch_size=BATCH)
    return DataLoader(images, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)


def _litdata(place: Place, workers: int) -> Iterable[Any]:
    import litdata

    images = litdata.StreamingDataset(str(place.folder / "litdata"), shuffle=True)
    return litdata.StreamingDataLoader(
        images, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0
    )


def _by_name(batch: dict[str, Any]) -> tuple[Any, Any]:
    return batch["index"], batch["features"]


def _by_key(batch: tuple[list[str], Any]) -> tuple[Any, Any]:
    return [int(key) for key in batch[0]], batch[1]
