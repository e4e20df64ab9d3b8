"""Open shards of a store, a bounded number at a time, shared by threads and safe across fork.

No lock is taken, so none can be held by a thread that a fork left behind. What a thread still
reads from stays open until it is done, whoever drops it here: it is closed when the last reference
goes.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

Opened = TypeVar("Opened")


class ShardHandle:
    """A file descriptor to read from at any place, closed with its last reference."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if "number" in self.__dict__:
            close(self.number)  # os may be gone when the interpreter ends


class ShardMap:
    """A whole shard as mapped memory: ``values`` (bytes,) uint8, read-only."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.values = np.frombuffer(self._map, np.uint8)

    def whole(self) -> bool:
        """Whether the file is still as long as the map: touching what is cut off is a bus error."""
        return self._map.size() == len(self.values)


class OpenShards(Generic[Opened]):
    """Shards by (split, number): what ``open_path`` makes of ``path_of(split, number)`` when first
    asked for.

    At most a quarter of the files that the process may have open, and 1,024, are kept; of these
    the half that has been open the longest is dropped when there are too many, all of them when
    the process can open no more.
    """

    def __init__(
        self, path_of: Callable[[str, int], Path], open_path: Callable[[Path], Opened]
    ) -> None:
        self._path_of, self._open_path = path_of, open_path
        self._opened: dict[tuple[str, int], Opened] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def get(self, split: str, shard: int) -> Opened:
        """The shard, opened.

        Raises:
            OSError: it cannot be opened.
        """
        found = self._opened.get((split, shard))
        if found is None:
            found = self._open(self._path_of(split, shard))
            self._opened[split, shard] = found
        return found

    def _open(self, path: Path) -> Opened:
        if len(self._opened) >= _most_open():
            self._drop(len(self._opened) // 2)
        try:
            return self._open_path(path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._opened:
                raise
            self._drop(len(self._opened))
            return self._open_path(path)

    def _drop(self, count: int) -> None:
        for key in list(self._opened)[:count]:
            self._opened.pop(key, None)  # another thread may have dropped it


def _most_open() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if limit == resource.RLIM_INFINITY else max(1, min(1024, limit // 4))
