"""Writes one shard of image features, and the receipt that says it is finished.

The files are made aside and put into their places whole. The receipt comes after them, with the
digests of the files and of what they were made from; it lets a stopped ``prepare`` go on.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.features.backend import Sides, Table
from trar.features.containers import open_backend
from trar.features.place import place_of
from trar.features.schema import WORK_FOLDER, Container, FeatureSpec, FileEntry
from trar.fileio import atomic_write


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
