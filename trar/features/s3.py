"""Stores at ``s3://bucket/prefix``: their paths, and what replaces renames and disks there.

A PUT is the commit: an object is there as a whole or not at all, so a file is made in a local
temporary folder, finished and digested, and then sent. Names below are keys relative to the
store's prefix. Requests go through s3fs; what a server refuses becomes one line (``s3_client``).
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from upath.implementations.cloud import S3Path
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from trar.errors import TrarError
from trar.features.place import Hold
from trar.features.s3_client import Client, client
from trar.features.s3_lock import LOCK, hold
from trar.features.schema import WORK_FOLDER
from trar.fileio import need_space

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 8
"""Requests of one ``each``."""
PART_BYTES, PARTS_AT_ONCE = 16 << 20, 4
"""An upload holds at most this many parts of a file in memory."""


class S3Folder(S3Path):
    """A path in a bucket. Every process has its own connections, made on first use, so that paths
    survive fork and pickling; nothing that was listed is remembered."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> S3Folder:  # universal_pathlib would choose its own
        return object.__new__(cls)

    @property
    def fs(self) -> Client:
        return client()

    def mkdir(self, *_: Any, **__: Any) -> None:
        """A bucket has no folders; universal_pathlib would make a bucket."""

    def rmdir(self, *_: Any, **__: Any) -> None:
        """A bucket has no folders; universal_pathlib would remove what is below."""


class S3Place:
    """A prefix of a bucket; see ``place.Place``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def hold(self) -> Iterator[Hold]:
        """A lock object with a heartbeat; see ``s3_lock``."""
        with hold(self.folder) as lock:
            new = not self.sizes()
            try:
                yield lock
            except BaseException:
                with contextlib.suppress(OSError, TrarError):
                    lock.check()  # else all of it is another's now
                    if new:
                        self._leave_nothing()
                raise

    def need_room(self, size_bytes: int, files: int, in_flight_bytes: int) -> None:
        """A bucket has room; the local folder that files pass through may not."""
        need_space(Path(tempfile.gettempdir()), in_flight_bytes, f"what is sent to {self.folder}")

    def need_write(self) -> None:
        probe = self._key(f"{WORK_FOLDER}/{uuid.uuid4().hex}.probe")
        client().pipe_file(probe, b"")
        client().rm_file(probe)

    @contextlib.contextmanager
    def workshop(self, size_bytes: int) -> Iterator[Path]:
        self.need_room(size_bytes, 0, size_bytes)
        with self.stage() as folder:
            yield folder

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="trar-") as folder:
            yield Path(folder)

    def aside(self, name: str) -> contextlib.AbstractContextManager[Path]:
        return self.stage()

    def put(self, made: Mapping[str, Path]) -> None:
        list(self.each(self._put, made.items()))

    def _put(self, one: tuple[str, Path]) -> None:
        name, path = one
        client().put_file(
            str(path), self._key(name), chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )
        if path.name != "zarr.json":  # zarr looks at those when it adds to a group
            path.unlink()

    def rename(self, names: Mapping[str, str]) -> None:
        self.link(names)
        self.remove(names)

    def link(self, names: Mapping[str, str]) -> None:
        def copy(one: tuple[str, str]) -> None:
            client().cp_file(self._key(one[0]), self._key(one[1]))

        list(self.each(copy, names.items()))

    def tail(self, name: str, size_bytes: int) -> bytes:
        data: bytes = client().cat_file(self._key(name), start=-size_bytes)
        return data

    def arrays(self, name: str) -> MemoryStore:
        """All of it, fetched: tables are read as a whole."""
        names = list(self._listing(name))
        keys = [self._key(one) for one in names]
        values = client().cat_ranges(keys, 0, None, on_error="raise")
        return MemoryStore(dict(zip(names, map(Buffer.from_bytes, values), strict=True)))

    def sha256(self, name: str, size_bytes: int) -> str:
        digest, key = hashlib.sha256(), self._key(name)
        for start in range(0, size_bytes, PART_BYTES):
            stop = min(size_bytes, start + PART_BYTES)
            digest.update(client().cat_file(key, start=start, end=stop))
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        """One listing; the lock of a writer is not part of it."""
        found = self._listing("")
        return {name: found[name] for name in sorted(found) if not self._is_lock(name)}

    def _listing(self, name: str) -> dict[str, int]:
        """The object of that name, or every one below it, and its bytes."""
        start = len(self._key(""))
        found = client().find(self._key(name), detail=True)
        return {key[start:]: int(entry["size"]) for key, entry in found.items()}

    def remove(self, names: Iterable[str]) -> None:
        keys = [self._key(name) for name in names]
        if keys:
            client().rm(keys)

    def remove_folder(self, name: str) -> None:
        self.remove(one for one in self.sizes() if one.startswith(f"{name}/"))

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)

    def _leave_nothing(self) -> None:
        """Remove what is there, unless shards were finished."""
        left = self.sizes()
        if not any(name.startswith(f"{WORK_FOLDER}/") for name in left):
            self.remove(left)

    def _is_lock(self, name: str) -> bool:
        return self._key(name).endswith(f"/{LOCK}")

    def _key(self, name: str) -> str:
        return f"{str(self.folder).removeprefix('s3://')}/{name}"
