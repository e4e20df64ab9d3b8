"""Our readers and our loader, over the store that ``prepare`` made of the same images."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from loading.contender import Contender, Delivered
from loading.data import SPLIT, Place, RandomBatches, buffer
from trar.features import FeatureStore

READ: dict[str, dict[str, Any]] = {  # how a chunk is read -> settings of FeatureStore
    "preadv": {"access": "preadv", "verify_reads": "none"},
    "mmap": {"access": "mmap", "verify_reads": "none"},
    "crc-checked": {"access": "preadv", "verify_reads": "all"},
}
_PREFETCH = 4


def reader(container: str, how: str) -> str:
    """The name of a reader among the contenders."""
    return f"ours: {container} {how}"


def ring(container: str, how: str) -> str:
    """The name of a loader among the contenders."""
    return f"ours: ring, {container} {how}"


def contenders() -> list[Contender]:
    """Readers of both containers, and the loader."""
    readers = [
        Contender(
            reader(container, how),
            functools.partial(_read, container, how),
            (container,),
            quick=True,
        )
        for container in ("zarr", "hdf5")
        for how in READ
    ]
    rings = [
        Contender(
            ring(container, how),
            functools.partial(_stream, container, how),
            (container,),
            ahead=_PREFETCH + 1,
            quick=True,
        )
        for container, how in (*(("zarr", how) for how in READ), ("hdf5", "crc-checked"))
    ]
    return [*readers, *rings]


def open_store(place: Place, container: str, how: str) -> FeatureStore:
    """The store of a container, read in one of the ways of ``READ``."""
    return FeatureStore(place.folder / container, **READ[how])


def _read(container: str, how: str, place: Place, order: RandomBatches) -> Iterator[Delivered]:
    store = open_store(place, container, how)
    out = buffer()
    for rows in order:
        yield rows, store.read(SPLIT, rows, out).features


def _stream(container: str, how: str, place: Place, order: RandomBatches) -> Iterator[Delivered]:
    """Question i is about image i, so the rows of questions are those of images."""
    from trar.trainer.loader import Loader, Questions

    store = open_store(place, container, how)
    questions = Questions(store, ["train"], max_tokens=14, targets=True)
    with Loader(questions, order, threads=1, prefetch=_PREFETCH).stream() as stream:
        for batch in stream:
            yield batch.question_ids.numpy(), batch.features.numpy()
