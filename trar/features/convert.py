"""``convert``: a finished store in another container, equal to the bit.

Chunks and columns are copied as they are stored, each checked against its checksum and each source
file against its digest, so that damage is never sealed anew. A stopped conversion goes on with the
shards that it had not finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.backend import Backend, ImageTable, Table
from trar.features.containers import open_backend, refuse_compression
from trar.features.progress import Progress
from trar.features.reader import FeatureStore
from trar.features.row_reader import way_out
from trar.features.schema import (
    STORE_FILE,
    Compress,
    Container,
    FeatureSpec,
    ImageSplit,
    StoreMeta,
    view_file,
)
from trar.features.shard_writer import (
    Receipt,
    ShardPlace,
    finished_shard,
    keep_receipt,
    write_shard_files,
)
from trar.features.writer import StoreWriter
from trar.fileio import need_space, sha256_file, sha256_json

_PAGE, _ALIGNED = 4096, 1 << 16  # HDF5 begins chunks of this many bytes at pages
_PER_FILE = 16384  # bytes that a container adds at most: descriptions, indexes


def convert_store(
    source: Path,
    target: Path,
    container: Container,
    dataset: str | None = None,
    shard_images: int | None = None,
    progress: Progress = lambda *_: None,
    *,
    compress: Compress | None = None,
) -> tuple[Path, StoreMeta]:
    """Write the store at ``source`` into the root ``target`` in ``container``.

    ``shard_images`` None keeps the shards as they are cut; ``compress`` None the compression, which
    HDF5 does not have. ``progress(stage, done, total)`` counts
    chunks: images, or 64 regions where images are ragged. Returns the new dataset folder and what
    its ``store.json`` says.

    Raises:
        StoreError: no finished source, damage in it, or a dataset that is there already.
        DiskError: no space or no permission; finished shards stay for the same call again.
    """
    store = FeatureStore(source, dataset)
    folder = target / store.dataset
    _check_place(store, folder)
    meta, compression = store.meta, store.meta.feature.compression
    if compress is not None:
        compression = None if compress == "none" else compress
    elif container == "hdf5":
        compression = None
    if compression is not None:
        refuse_compression(folder, container)
    meta = msgspec.structs.replace(
        meta, feature=msgspec.structs.replace(meta.feature, compression=compression)
    )
    splits = {
        name: msgspec.structs.replace(images, shard_images=shard_images or images.shard_images)
        for name, images in meta.image_splits.items()
    }
    shards = [
        shard
        for name, images in splits.items()
        for shard in _shards(folder, container, meta, name, images)
    ]
    checked = _Checked(store)
    need_space(folder, _needed_bytes(meta, shards, checked), "the converted store")
    checked.all_but_shards()
    with StoreWriter(folder, container) as writer:
        tables = open_backend(store.path, meta.container)
        done, total = 0, sum(shard.stop - shard.start for shard in shards)
        for name in splits:
            copy = _SplitCopy(store, tables, checked, writer, name)
            for chunks in copy.write([shard for shard in shards if shard.place.split == name]):
                done += chunks
                progress("features", done, total)
        for name in _table_names(meta):
            writer.write_table(name, tables.read_table(name))
        for name in _plain_files(meta):
            writer.write_bytes(name, (store.path / name).read_bytes())
        made_from = {"container": store.meta.container, "fingerprint": meta.fingerprint}
        new = msgspec.structs.replace(
            meta,
            container=container,
            image_splits=splits,
            provenance={**meta.provenance, "converted_from": made_from},
        )
        log = {"converted_from": {**made_from, "store": str(store.path.absolute())}}
        return folder, writer.finish(new, log)


def _check_place(store: FeatureStore, folder: Path) -> None:
    if (folder / STORE_FILE).exists():
        raise StoreError(
            f"{folder}: there is a store already; convert into another place, or delete it first"
        )
    if store.path.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise StoreError(
            f"{folder}: lies inside the store that is converted; choose a place outside of it"
        )


@dataclass(frozen=True)
class _Shard:
    """Chunks ``start`` to ``stop`` of a split as one shard; ``receipt`` if that is finished."""

    place: ShardPlace
    start: int
    stop: int
    sources: str
    receipt: Receipt | None


def _shards(
    folder: Path, container: Container, meta: StoreMeta, split: str, images: ImageSplit
) -> Iterator[_Shard]:
    """How a split is cut, and what of it an earlier, stopped call finished."""
    chunks, step = images.chunks(meta.feature), images.shard_images
    for number, start in enumerate(range(0, max(1, chunks), step)):
        stop = min(chunks, start + step)
        place = ShardPlace(folder, split, number, step, meta.feature, container)
        cut = [start, stop, step]
        sources = sha256_json([meta.fingerprint, split, *cut, meta.feature.compression])
        yield _Shard(place, start, stop, sources, finished_shard(place, sources))


def _needed_bytes(meta: StoreMeta, shards: list[_Shard], checked: _Checked) -> int:
    """An upper bound of what is left to write."""
    spec = meta.feature
    per_chunk = spec.stored_chunk_bytes + _PAGE * (spec.chunk_bytes >= _ALIGNED)
    left = [shard for shard in shards if shard.receipt is None]
    whole = sum(meta.files[name].bytes for name in checked.beside_shards())
    files = len(left) + len(list(_table_names(meta))) + len(meta.image_splits)
    return sum(one.stop - one.start for one in left) * per_chunk + whole + files * _PER_FILE


def _table_names(meta: StoreMeta) -> Iterator[str]:
    """Every group of columns."""
    yield from (f"names/{name}" for name, images in meta.image_splits.items() if images.named)
    for split, questions in meta.question_splits.items():
        yield f"questions/{split}"
        yield from (f"tokens/{tokenizer}/{split}" for tokenizer in meta.vocabularies)
        if questions.answered:
            yield f"answers/{split}"
            yield from (f"targets/{scheme}/{split}" for scheme in meta.answer_schemes)


def _plain_files(meta: StoreMeta) -> list[str]:
    """Files that are the same in every container."""
    return [
        *(entry.file for entry in meta.vocabularies.values()),
        *(entry.file for entry in meta.answer_schemes.values()),
        *(entry.file for entry in meta.vectors.values()),
    ]


class _Checked:
    """Compares files of the source with their digests, each once."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._left = set(store.meta.files) - {view_file(store.dataset)}

    def beside_shards(self) -> list[str]:
        """Files that are not written by a shard's writer."""
        meta = self._store.meta
        shards = {
            name
            for split, images in meta.image_splits.items()
            for shard in range(images.shards(meta.feature))
            for name in self._files(split, shard)
        }
        return sorted(self._left - shards)

    def all_but_shards(self) -> None:
        """Check every file that is not written by a shard's writer."""
        self._check(self.beside_shards())

    def shards(self, split: str, start: int, stop: int) -> None:
        """The files of the shards that hold chunks ``start`` to ``stop``."""
        step = self._store.meta.image_splits[split].shard_images
        for shard in range(start // step, -(-stop // step)):
            self._check(sorted(self._left & set(self._files(split, shard))))

    def _files(self, split: str, shard: int) -> list[str]:
        meta = self._store.meta
        backend = open_backend(self._store.path, meta.container)
        return list(backend.shard_files(split, shard, meta.feature).values())

    def _check(self, names: list[str]) -> None:
        for name in names:
            path, expected = self._store.path / name, self._store.meta.files[name].sha256
            found = sha256_file(path)
            if found != expected:
                raise StoreError(
                    f"{path}: sha256 is {found[:12]}…, expected {expected[:12]}…: damaged; "
                    f"{way_out(self._store.path)}"
                )
            self._left.discard(name)


@dataclass(frozen=True)
class _SplitCopy:
    """One image split on its way from ``store``, its columns through ``tables``, to ``writer``."""

    store: FeatureStore
    tables: Backend
    checked: _Checked
    writer: StoreWriter
    name: str

    def write(self, shards: Sequence[_Shard]) -> Iterator[int]:
        """Write the split; yields the number of chunks after each shard."""
        spec, step = shards[0].place.spec, shards[0].place.shard_images
        table = self.tables.read_images_table(self.name, spec)
        boxes = self.tables.read_boxes(self.name) if spec.boxes else None
        self.writer.create_images(self.name, spec, table.ids, step, table.offsets)
        receipts = []
        for shard in shards:
            receipt = shard.receipt
            if receipt is None:
                self.checked.shards(self.name, shard.start, shard.stop)
                stored = self.store.chunks(self.name, shard.start, shard.stop)
                sides = partial(_sides, spec, table, boxes, shard.start, shard.stop)
                files = write_shard_files(shard.place, stored, sides)
                sizes = _sizes(table, shard.place.shard)
                receipt = Receipt(shard.sources, files, 0, 0.0, 0.0, sizes)
                keep_receipt(shard.place, receipt)
            receipts.append(receipt)
            yield shard.stop - shard.start
        self.writer.finish_images(self.name, spec, receipts)


def _sides(
    spec: FeatureSpec, table: ImageTable, boxes: NDArray[np.float32] | None, start: int, stop: int
) -> Table:
    """The cells and boxes of chunks ``start`` to ``stop``."""
    rows = spec.chunk_rows if spec.ragged else 1
    sides: dict[str, NDArray[Any]] = {}
    if table.cells is not None:
        sides["cells"] = table.cells[start:stop]
    if boxes is not None:
        sides["boxes"] = boxes[start * rows : stop * rows]
    return sides


def _sizes(table: ImageTable, shard: int) -> list[tuple[int, int]]:
    """Sizes are one column of a split: the first shard's receipt carries all of them."""
    if table.sizes is None or shard:
        return []
    return [(height, width) for height, width in table.sizes.tolist()]
