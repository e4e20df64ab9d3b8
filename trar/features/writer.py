"""Writes a dataset folder so that it becomes a store at one instant, or not at all.

Shards come from ``shard_writer``, whose receipts let a stopped ``prepare`` go on where it was. Each
file is finished (temporary name, fsync, rename; on S3 one PUT), and ``store.json`` comes last. A
folder without it is no store, whatever else it holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.features.backend import Table
from trar.features.chunk_table import write_chunk_table
from trar.features.containers import open_backend
from trar.features.place import place_of
from trar.features.remake import drop_unlisted, move_in, remake_folder
from trar.features.schema import (
    LOG_FILE,
    WORK_FOLDER,
    Container,
    FeatureSpec,
    FileEntry,
    StoreMeta,
    fingerprint,
    write_meta,
)
from trar.features.shard_writer import Receipt
from trar.features.vectors import VectorsEntry, write_vectors
from trar.fileio import atomic_write, disk_errors, sha256_file, write_json


class StoreWriter:
    """Holds a dataset folder for writing; a second writer on the same folder is refused.

    Files are made in ``stage``, laid out like the store: the folder itself, or where that is not
    local a temporary one. With ``remake`` parts of a finished store are made anew below ``root``
    and moved in at the end: see ``features.remake``.

    Raises:
        StoreError: another process holds the folder.
        DiskError: the folder cannot be made or written.
    """

    def __init__(
        self, folder: Path, container: Container = "zarr", *, remake: bool = False
    ) -> None:
        self.folder = folder
        self.root = remake_folder(folder) if remake else folder
        self._stored = open_backend(self.root, container)
        self._place = place_of(self.root)
        self._files: dict[str, FileEntry] = {}
        self._kept: set[str] = set()
        self._made: set[str] = set()
        with contextlib.ExitStack() as stack:
            self._hold = stack.enter_context(place_of(folder).hold())
            self.stage = stack.enter_context(self._place.stage())
            self._stack = stack.pop_all()
        self.backend = open_backend(self.stage, container)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """After an error finished shards stay for the next run; without any, nothing stays."""
        self._stack.__exit__(kind, error, trace)

    def keep(self, files: dict[str, FileEntry]) -> None:
        """Count the files of an earlier, finished store as part of this one."""
        self._files.update(files)
        self._kept.update(files)

    def adopt(self, names: Iterable[str]) -> None:
        """Take files of the finished store into the parts that are made anew, without a copy where
        the place can."""
        aside = self.root.relative_to(self.folder).as_posix()
        place_of(self.folder).link({name: f"{aside}/{name}" for name in names})

    def create_images(
        self,
        split: str,
        spec: FeatureSpec,
        ids: NDArray[np.int64],
        shard_images: int,
        offsets: NDArray[np.int64] | None = None,
    ) -> None:
        """Describe an image split before its shards are written; ragged images need ``offsets``."""
        self._note(self.backend.create_images(split, spec, ids, shard_images, offsets))

    def finish_images(self, split: str, spec: FeatureSpec, receipts: Sequence[Receipt]) -> None:
        """Count a split's shards in, once all are written, and resolve its chunk table."""
        for receipt in receipts:
            self._files.update(receipt.files)
            self._made.update(receipt.files)
        if spec.boxes:
            sizes = [size for receipt in receipts for size in receipt.sizes]
            self._note(self.backend.write_sizes(split, np.array(sizes, np.int32).reshape(-1, 2)))
        table = self._stored.resolve_chunks(split)
        self._note([write_chunk_table(self.stage, split, table)])

    def write_table(self, name: str, table: Table) -> None:
        """Write a group of columns."""
        self._note(self.backend.write_table(name, table))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the store, for example the vocabulary."""
        write_json(self.stage / name, value)
        self._note([name])

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file of another store as it is."""
        with disk_errors(self.folder):
            (self.stage / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.stage / name) as file:
            file.write(data)
        self._note([name])

    def write_vectors(
        self, name: str, table: NDArray[np.float32], covered: int, made_from: str
    ) -> VectorsEntry:
        """Write word vectors of the vocabulary, (tokens, width)."""
        entry = write_vectors(self.stage, name, table, covered, made_from)
        self._note([entry.file])
        return entry

    def finish(self, meta: StoreMeta, log: dict[str, Any]) -> StoreMeta:
        """Make the folder a store; ``meta``'s files and fingerprint are filled in here."""
        view = self.backend.write_view(meta, list(self._files))
        self._kept.difference_update(view)
        self._note(view)
        meta = msgspec.structs.replace(meta, files=dict(sorted(self._files.items())))
        meta = msgspec.structs.replace(meta, fingerprint=fingerprint(meta))
        self._hold.check()
        write_json(self.root / LOG_FILE, log)
        if self.root == self.folder:
            drop_unlisted(self.folder, self._files)
            write_meta(self.folder, meta)
            self._place.remove_folder(WORK_FOLDER)
        else:
            drop_unlisted(self.root, self._made)  # of an earlier try, made from something else
            write_meta(self.root, meta)
            move_in(self.folder)
        return meta

    def _note(self, names: Iterable[str]) -> None:
        """Make files durable in their places; their size and digest go into ``store.json``. The
        description of a group stays as it was when it was first made."""
        groups = {name for name in self._made if name.endswith("/zarr.json")} | self._kept
        made = {name: self.stage / name for name in names if name not in groups}
        with disk_errors(self.folder):
            for name, path in made.items():
                self._files[name] = FileEntry(path.stat().st_size, sha256_file(path))
        self._place.put(made)
        self._made.update(made)
