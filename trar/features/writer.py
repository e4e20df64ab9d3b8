"""Writes a dataset folder so that it becomes a store at one instant, or not at all.

Every shard is finished (temporary name, fsync, rename; on S3 one PUT) before a receipt says so,
with the digests of the file and of what it was made from; receipts let a stopped ``prepare`` go on
where it was. ``store.json`` comes last. A folder without it is no store, whatever else it holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.features.backend import Sides, Table
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
from trar.features.vectors import VectorsEntry, write_vectors
from trar.fileio import atomic_write, disk_errors, sha256_file, write_json


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
    def size_bytes(self) -> int:
        """An upper bound of the bytes of its files."""
        return self.shard_images * self.spec.stored_chunk_bytes + 4096

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
    """Write the files of one shard aside, then put them into their places.

    ``chunks`` are (chunk_rows, width) each; ``sides``, asked when all are taken, are its cells and
    boxes.

    Raises:
        DiskError: as ``write_image_shard``.
    """
    backend, spec = open_backend(place.folder, place.container), place.spec
    names = backend.shard_files(place.split, place.shard, spec)
    where = place_of(place.folder)
    with where.workshop(place.size_bytes) as work:
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
            where.put({name: partial[kind] for kind, name in names.items()})
        finally:
            for made in partial.values():
                made.unlink(missing_ok=True)
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
