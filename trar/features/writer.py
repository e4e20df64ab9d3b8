"""Writes a dataset folder so that it becomes a store at one instant, or not at all.

Every shard is finished (temporary name, fsync, rename) before a receipt says so, with the digests
of the file and of what it was made from; receipts let a stopped ``prepare`` go on where it was.
``store.json`` comes last. A folder without it is no store, whatever else it holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.backend import Table
from trar.features.chunk_table import FOLDER as CHUNK_TABLES
from trar.features.chunk_table import write_chunk_table
from trar.features.containers import open_backend
from trar.features.schema import (
    ARRAYS,
    LOG_FILE,
    WORK_FOLDER,
    Container,
    FeatureSpec,
    FileEntry,
    StoreMeta,
    fingerprint,
    write_meta,
)
from trar.fileio import atomic_write, disk_errors, sha256_file, sync_folder, write_json


@dataclass(frozen=True)
class PreparedImage:
    """One image as it is stored: ``values`` (rows, width) in the store's dtype, ``cells`` (rows,)
    True where the raw features are not all zero, and what the cast did to it."""

    values: NDArray[Any]
    cells: NDArray[np.bool_]
    largest_value: float
    cast_error: float


class Receipt(msgspec.Struct, frozen=True):
    """Proof that one shard is finished, and what it was made from."""

    sources: str
    files: dict[str, FileEntry]
    masked_cells: int
    largest_value: float
    largest_cast_error: float


@dataclass(frozen=True)
class ShardPlace:
    """Where one shard goes: everything a writing process needs to know about the store."""

    folder: Path
    split: str
    shard: int
    shard_images: int
    spec: FeatureSpec
    container: Container = "zarr"

    @property
    def receipt(self) -> Path:
        """The file that says this shard is finished."""
        return self.folder / WORK_FOLDER / f"{self.split}-{self.shard:05}.json"


def write_image_shard(place: ShardPlace, images: Iterable[PreparedImage], sources: str) -> Receipt:
    """Write one shard of features and its chunk of cells; the only writer of both.

    ``sources`` is the digest of what the images are made from, kept in the receipt.

    Raises:
        DiskError: no space or no permission; nothing half-written is left.
    """
    backend = open_backend(place.folder, place.container)
    cells: list[NDArray[np.bool_]] = []
    largest, cast_error = 0.0, 0.0

    def values() -> Iterable[NDArray[Any]]:
        nonlocal largest, cast_error
        for image in images:
            cells.append(image.cells)
            largest = max(largest, image.largest_value)
            cast_error = max(cast_error, image.cast_error)
            yield image.values

    names = backend.shard_files(place.split, place.shard)
    work = place.folder / WORK_FOLDER
    partial = [work / f"{uuid.uuid4().hex}.partial" for _ in names]
    try:
        entries = [backend.write_shard(partial[0], place.spec, values(), place.shard_images)]
        mask = np.array(cells)
        entries.append(backend.write_cells(partial[1], mask, place.shard_images))
        with disk_errors(place.folder):
            for source, name in zip(partial, names, strict=True):
                target = place.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
                sync_folder(target.parent)
    finally:
        for source in partial:
            source.unlink(missing_ok=True)
    receipt = Receipt(
        sources=sources,
        files=dict(zip(names, entries, strict=True)),
        masked_cells=int((~mask).sum()),
        largest_value=largest,
        largest_cast_error=cast_error,
    )
    with atomic_write(place.receipt) as file:
        file.write(msgspec.json.encode(receipt))
    return receipt


def finished_shard(place: ShardPlace, sources: str) -> Receipt | None:
    """The receipt of a shard that is finished, whole, and made from these very sources."""
    try:
        receipt = msgspec.json.decode(place.receipt.read_bytes(), type=Receipt)
        sizes = {name: (place.folder / name).stat().st_size for name in receipt.files}
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    whole = all(sizes[name] == entry.bytes for name, entry in receipt.files.items())
    return receipt if whole and receipt.sources == sources else None


class StoreWriter:
    """Holds a dataset folder for writing; a second writer on the same folder is refused.

    The hold is an flock on the folder itself: it dies with its process and leaves no file behind.

    Raises:
        StoreError: another process holds the folder.
        DiskError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, container: Container = "zarr") -> None:
        self.folder = folder
        self.backend = open_backend(folder, container)
        self._files: dict[str, FileEntry] = {}
        self._new = [path for path in (folder, folder.parent) if not path.exists()]
        with disk_errors(folder):
            (folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StoreError(
                f"{folder}: another trar-data is writing this dataset; wait for it to end, "
                "or choose another --store"
            ) from None
        for partial in (folder / WORK_FOLDER).glob("*.partial"):
            partial.unlink()  # of a killed writer: the hold says that nobody else is writing

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After an error finished shards stay for the next run; without any, nothing stays."""
        os.close(self._lock)
        if kind is not None and self._new and not any((self.folder / WORK_FOLDER).iterdir()):
            shutil.rmtree(self.folder)
            for parent in self._new[1:]:
                parent.rmdir()

    def keep(self, files: dict[str, FileEntry]) -> None:
        """Count the files of an earlier, finished store as part of this one."""
        self._files.update(files)

    def create_images(
        self, split: str, spec: FeatureSpec, ids: NDArray[np.int64], shard_images: int
    ) -> None:
        """Describe an image split before its shards are written."""
        self._note(self.backend.create_images(split, spec, ids, shard_images))

    def finish_images(self, split: str, receipts: Iterable[Receipt]) -> None:
        """Count a split's shards in, once all are written, and resolve its chunk table."""
        for receipt in receipts:
            self._files.update(receipt.files)
        table = self.backend.resolve_chunks(split)
        self._note([write_chunk_table(self.folder, split, table)])

    def write_table(self, name: str, table: Table) -> None:
        """Write a group of columns."""
        self._note(self.backend.write_table(name, table))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the store, for example the vocabulary."""
        write_json(self.folder / name, value)
        self._note([name])

    def finish(self, meta: StoreMeta, log: dict[str, Any]) -> StoreMeta:
        """Make the folder a store; ``meta``'s files and fingerprint are filled in here."""
        meta = msgspec.structs.replace(meta, files=dict(sorted(self._files.items())))
        meta = msgspec.structs.replace(meta, fingerprint=fingerprint(meta))
        self._drop_leftovers()
        write_json(self.folder / LOG_FILE, log)
        write_meta(self.folder, meta)
        shutil.rmtree(self.folder / WORK_FOLDER)
        return meta

    def _drop_leftovers(self) -> None:
        """Remove what a stopped prepare of other splits left among the arrays: nothing lists it,
        and nobody else may write there."""
        for folder in (self.folder / ARRAYS, self.folder / CHUNK_TABLES):
            for path in sorted(folder.rglob("*"), reverse=True):
                if path.is_dir():
                    with contextlib.suppress(OSError):  # it still holds files of the store
                        path.rmdir()
                elif path.relative_to(self.folder).as_posix() not in self._files:
                    path.unlink()

    def _note(self, names: Iterable[str]) -> None:
        """Make files durable and remember their size and digest for ``store.json``."""
        with disk_errors(self.folder):
            for name in names:
                path = self.folder / name
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    size_bytes = os.fstat(file.fileno()).st_size
                self._files[name] = FileEntry(size_bytes, sha256_file(path))
