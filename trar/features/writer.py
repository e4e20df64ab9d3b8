"""Writes a dataset folder so that it becomes a store at one instant, or not at all.

Every shard is finished (temporary name, fsync, rename) before a receipt says so, with the digests
of the file and of what it was made from; receipts let a stopped ``prepare`` go on where it was.
``store.json`` comes last. A folder without it is no store, whatever else it holds.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.backend import Sides, Table
from trar.features.chunk_table import write_chunk_table
from trar.features.containers import open_backend
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
from trar.features.vectors import VectorsEntry, write_vectors
from trar.fileio import atomic_write, disk_errors, sha256_file, sync_folder, write_json


@dataclass(frozen=True)
class PreparedImage:
    """One image as it is stored: ``values`` (n, width) in the store's dtype, ``cells`` (n,) True
    where the raw features are not all zero, and what the cast did to it; ``boxes`` (n, 4) float32
    and ``size`` (height, width) in pixels, where known. ``skipped`` says why an image that could
    not be read was left out: its values are zeros, and no question may be about it."""

    values: NDArray[Any]
    cells: NDArray[np.bool_]
    largest_value: float = 0.0
    cast_error: float = 0.0
    boxes: NDArray[np.float32] | None = None
    size: tuple[int, int] = (0, 0)
    skipped: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """Proof that one shard is finished, and what it was made from. ``sizes`` and ``skipped`` (by
    position) are of the images that begin in it."""

    sources: str
    files: dict[str, FileEntry]
    masked_cells: int
    largest_value: float
    largest_cast_error: float
    sizes: list[tuple[int, int]] = []
    skipped: dict[int, str] = {}


@dataclass(frozen=True)
class ShardPlace:
    """Where one shard goes: everything a writing process needs to know about the store.

    Where images are ragged, the shard holds ``flat_rows`` regions of the images it is made from,
    from region ``skip_rows`` of the first; if that is not 0, that image began in an earlier shard.
    """

    folder: Path
    split: str
    shard: int
    shard_images: int
    spec: FeatureSpec
    container: Container = "zarr"
    skip_rows: int = 0
    flat_rows: int = 0

    @property
    def receipt(self) -> Path:
        """The file that says this shard is finished."""
        return self.folder / WORK_FOLDER / f"{self.split}-{self.shard:05}.json"


def write_image_shard(place: ShardPlace, images: Iterable[PreparedImage], sources: str) -> Receipt:
    """Write one shard of features and its chunks of cells and boxes; the only writer of them.

    ``sources`` is the digest of what the images are made from, kept in the receipt.

    Raises:
        DiskError: no space or no permission; nothing half-written is left.
    """
    seen = _Seen(images)
    chunks = _ragged_chunks(place, seen) if place.spec.ragged else (one.values for one in seen)
    files = write_shard_files(place, chunks, lambda: seen.sides(place))
    receipt = seen.receipt(place, sources, files)
    keep_receipt(place, receipt)
    return receipt


def write_shard_files(
    place: ShardPlace, chunks: Iterable[NDArray[Any]], sides: Sides
) -> dict[str, FileEntry]:
    """Write the files of one shard under temporary names, then rename them.

    ``chunks`` are (chunk_rows, width) each; ``sides``, asked when all are taken, are its cells and
    boxes.

    Raises:
        DiskError: as ``write_image_shard``.
    """
    backend, spec = open_backend(place.folder, place.container), place.spec
    names = backend.shard_files(place.split, place.shard, spec)
    work = place.folder / WORK_FOLDER
    partial = {kind: work / f"{uuid.uuid4().hex}.partial" for kind in names}
    try:
        entries = {
            "features": backend.write_shard(
                partial["features"], spec, chunks, place.shard_images, sides
            )
        }
        side_rows = place.shard_images * (spec.chunk_rows if spec.ragged else 1)
        for kind, values in sides().items():
            if kind in names:
                entries[kind] = backend.write_side(partial[kind], values, side_rows)
        with disk_errors(place.folder):
            for kind, name in names.items():
                target = place.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                partial[kind].replace(target)
                sync_folder(target.parent)
    finally:
        for source in partial.values():
            source.unlink(missing_ok=True)
    return {names[kind]: entries[kind] for kind in names}


def keep_receipt(place: ShardPlace, receipt: Receipt) -> None:
    """Note durably that a shard is finished."""
    with atomic_write(place.receipt) as file:
        file.write(msgspec.json.encode(receipt))


class _Seen:
    """Passes a shard's images on and keeps what is written beside their features."""

    def __init__(self, images: Iterable[PreparedImage]) -> None:
        self._images = images
        self._kept: list[PreparedImage] = []

    def __iter__(self) -> Iterator[PreparedImage]:
        nothing = np.empty(0)
        for image in self._images:
            self._kept.append(dataclasses.replace(image, values=nothing))
            yield image

    def sides(self, place: ShardPlace) -> Table:
        """What stands beside the features: cells unless ragged, boxes where the spec has them."""
        sides: dict[str, NDArray[Any]] = {}
        if not place.spec.ragged:
            sides["cells"] = np.array([image.cells for image in self._kept])
        if place.spec.boxes:
            sides["boxes"] = self._boxes(place)
        return sides

    def _boxes(self, place: ShardPlace) -> NDArray[np.float32]:
        boxes = [
            np.zeros((len(image.cells), 4), np.float32) if image.boxes is None else image.boxes
            for image in self._kept
        ]
        if not place.spec.ragged:
            return np.stack(boxes)
        return np.concatenate(boxes)[place.skip_rows :][: place.flat_rows]

    def receipt(self, place: ShardPlace, sources: str, files: dict[str, FileEntry]) -> Receipt:
        own = self._kept[1 if place.skip_rows else 0 :]
        return Receipt(
            sources=sources,
            files=files,
            masked_cells=sum(int((~image.cells).sum()) for image in own),
            largest_value=max((image.largest_value for image in self._kept), default=0.0),
            largest_cast_error=max((image.cast_error for image in self._kept), default=0.0),
            sizes=[image.size for image in own] if place.spec.boxes else [],
            skipped={
                row: image.skipped for row, image in enumerate(own) if image.skipped is not None
            },
        )


def _ragged_chunks(place: ShardPlace, images: Iterable[PreparedImage]) -> Iterator[NDArray[Any]]:
    """A shard's regions in chunks of equal length, the last one filled up with zeros."""
    spec = place.spec
    shape = (spec.chunk_rows, spec.width)
    chunk, filled = np.zeros(shape, spec.dtype), 0
    skip, left = place.skip_rows, place.flat_rows
    for image in images:
        values = image.values[skip:][:left]
        skip, left = max(0, skip - len(image.values)), left - len(values)
        while len(values):
            taken = values[: spec.chunk_rows - filled]
            chunk[filled : filled + len(taken)] = taken
            filled, values = filled + len(taken), values[len(taken) :]
            if filled == spec.chunk_rows:
                yield chunk
                chunk, filled = np.zeros(shape, spec.dtype), 0
    if filled:
        yield chunk


def finished_shard(place: ShardPlace, sources: str) -> Receipt | None:
    """The receipt of a shard that is finished, whole, and made from these very sources."""
    try:
        receipt = msgspec.json.decode(place.receipt.read_bytes(), type=Receipt)
        sizes = {name: (place.folder / name).stat().st_size for name in receipt.files}
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    names = open_backend(place.folder, place.container).shard_files(
        place.split, place.shard, place.spec
    )
    whole = sizes.keys() == set(names.values()) and all(
        sizes[name] == entry.bytes for name, entry in receipt.files.items()
    )
    return receipt if whole and receipt.sources == sources else None


class StoreWriter:
    """Holds a dataset folder for writing; a second writer on the same folder is refused.

    The hold is an flock on the folder itself: it dies with its process and leaves no file behind.
    With ``remake`` parts of a finished store are made anew below ``root`` and moved in at the end:
    see ``features.remake``.

    Raises:
        StoreError: another process holds the folder.
        DiskError: the folder cannot be made or written.
    """

    def __init__(
        self, folder: Path, container: Container = "zarr", *, remake: bool = False
    ) -> None:
        self.folder = folder
        self.root = remake_folder(folder) if remake else folder
        self.backend = open_backend(self.root, container)
        self._files: dict[str, FileEntry] = {}
        self._made: set[str] = set()
        self._new = [path for path in (folder, folder.parent) if not path.exists()]
        with disk_errors(folder):
            (self.root / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StoreError(
                f"{folder}: another trar-data is writing this dataset; wait for it to end, "
                "or choose another --store"
            ) from None
        # of a killed writer: the hold says that nobody else is writing
        for place, names in ((self.root / WORK_FOLDER, "*.partial"), (self.root, ".*.partial")):
            for partial in place.glob(names):
                partial.unlink()

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

    def adopt(self, names: Iterable[str]) -> None:
        """Take files of the finished store into the parts that are made anew, without a copy where
        the file system can."""
        for name in names:
            target = self.root / name
            if target.exists():
                continue
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(self.folder / name)
                except OSError:  # no links there
                    shutil.copy2(self.folder / name, target)

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
        table = self.backend.resolve_chunks(split)
        self._note([write_chunk_table(self.root, split, table)])

    def write_table(self, name: str, table: Table) -> None:
        """Write a group of columns."""
        self._note(self.backend.write_table(name, table))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the store, for example the vocabulary."""
        write_json(self.root / name, value)
        self._note([name])

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file of another store as it is."""
        with disk_errors(self.root):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.root / name) as file:
            file.write(data)
        self._note([name])

    def write_vectors(
        self, name: str, table: NDArray[np.float32], covered: int, made_from: str
    ) -> VectorsEntry:
        """Write word vectors of the vocabulary, (tokens, width)."""
        entry = write_vectors(self.root, name, table, covered, made_from)
        self._note([entry.file])
        return entry

    def finish(self, meta: StoreMeta, log: dict[str, Any]) -> StoreMeta:
        """Make the folder a store; ``meta``'s files and fingerprint are filled in here."""
        self._note(self.backend.write_view(meta, list(self._files)))
        meta = msgspec.structs.replace(meta, files=dict(sorted(self._files.items())))
        meta = msgspec.structs.replace(meta, fingerprint=fingerprint(meta))
        write_json(self.root / LOG_FILE, log)
        if self.root == self.folder:
            drop_unlisted(self.folder, self._files)
            write_meta(self.folder, meta)
            shutil.rmtree(self.folder / WORK_FOLDER)
        else:
            drop_unlisted(self.root, self._made)  # of an earlier try, made from something else
            write_meta(self.root, meta)
            move_in(self.folder)
        return meta

    def _note(self, names: Iterable[str]) -> None:
        """Make files durable and remember their size and digest for ``store.json``."""
        with disk_errors(self.folder):
            for name in names:
                path = self.root / name
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    size_bytes = os.fstat(file.fileno()).st_size
                self._files[name] = FileEntry(size_bytes, sha256_file(path))
                self._made.add(name)
