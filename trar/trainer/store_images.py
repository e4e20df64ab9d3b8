"""The features of the images of a batch, read from the store: each image once.

An image is known by its key: number of its split ``<< 32 |`` its row. b = questions of a batch, n
and f as in ``Batch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trar.features.reader import FeatureStore

Keys = NDArray[np.int64]
ROW = 0xFFFFFFFF  # the part of a key that is the row


class Images(Protocol):
    """Where the features of a batch come from: the store, or a window of it in memory."""

    def read(self, keys: Keys, out: NDArray[Any]) -> None:
        """Fill ``out`` (b, n, f) with the images ``keys`` (b,), b > 0; what is beyond an image's
        length is 0."""


class StoreImages:
    """Images straight from the store, in one call for each of the ``image_splits`` concerned."""

    def __init__(self, store: FeatureStore, image_splits: Sequence[str]) -> None:
        self._store, self._image_splits = store, image_splits

    def read(self, keys: Keys, out: NDArray[Any]) -> None:
        """See ``Images``."""
        ordered = np.sort(keys)
        if ordered[0] >> 32 == ordered[-1] >> 32 and (ordered[1:] != ordered[:-1]).all():
            self._read_split(keys, out)  # the usual case: nothing is there twice
            return
        _, first, number = np.unique(keys, return_index=True, return_inverse=True)
        by_first = np.argsort(first)
        distinct = keys[first[by_first]]  # in order of first appearance
        splits = distinct >> 32
        done = 0
        for split in np.unique(splits).tolist():
            wanted = distinct[splits == split]
            self._read_split(wanted, out[done:])
            done += len(wanted)
        _permute(out, np.argsort(np.argsort(splits, kind="stable")))
        # No question comes before the first one of its image: from the back, no image is written
        # over before it is used.
        place = np.argsort(by_first)[number]
        for question in np.flatnonzero(place != np.arange(len(keys)))[::-1].tolist():
            out[question] = out[place[question]]

    def _read_split(self, keys: Keys, out: NDArray[Any]) -> None:
        self._store.read(self._image_splits[keys[0] >> 32], keys & ROW, out)


def _permute(out: NDArray[Any], source: NDArray[np.int64]) -> None:
    """Row i of ``out`` becomes what row ``source[i]`` was, in place, cycle by cycle."""
    left = set(np.flatnonzero(source != np.arange(len(source))).tolist())
    while left:
        begin = at = left.pop()
        held = out[begin].copy()
        while (following := int(source[at])) != begin:
            out[at] = out[following]
            left.discard(following)
            at = following
        out[at] = held
