"""Read-only access to a feature store, as fast as the disk: every image is one checked file read.

Opening compares the size of every file with ``store.json``: a Zarr reader would show a missing or
cut shard as zeros. Reading compares the crc32c of every image, so a flipped byte is an error that
names the shard and the image, never a wrong number.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
from crc32c import crc32c
from numpy.typing import ArrayLike, NDArray

from trar.errors import StoreError
from trar.features.answers import AnswerDictionary
from trar.features.backend import ImageTable
from trar.features.chunk_table import ChunkTable, read_chunk_table
from trar.features.containers import open_backend
from trar.features.questions import (
    AnswerTable,
    NameTable,
    QuestionTable,
    Ragged,
    SparseTargets,
)
from trar.features.schema import FeatureSpec, StoreMeta, find_dataset, read_meta
from trar.features.text import Vocabulary
from trar.features.vectors import read_vectors
from trar.fileio import disk_errors

Columns = TypeVar("Columns", AnswerTable, NameTable, QuestionTable, Ragged, SparseTargets)

TOKENIZER = "openvqa"
SCHEME = "openvqa"


class ImageBatch(NamedTuple):
    """``features`` (b, n, width) in the store's dtype, ``lengths`` (b,) int32: rows per image.

    n is the store's rows (which of them are padding stands in ``FeatureStore.cells``), or, where
    images are ragged, the longest of the batch; rows beyond an image's length are zero."""

    features: NDArray[Any]
    lengths: NDArray[np.int32]


class FeatureStore:
    """One dataset of a store: image features by row, and the questions about them.

    ``path`` is a store root with one dataset in it, or a dataset folder; ``dataset`` chooses among
    several. Opening reads ``store.json`` and the size of each file; everything else is read on
    first use. Safe to share between threads, and across fork and pickling (open files are dropped
    and opened again).

    Raises:
        StoreError: no finished store, another format version, or a file that is missing or of
            another size.
    """

    def __init__(self, path: str | os.PathLike[str], dataset: str | None = None) -> None:
        self.path = find_dataset(Path(path), dataset)
        self.meta: StoreMeta = read_meta(self.path)
        self._backend = open_backend(self.path, self.meta.container)
        self._check_sizes()
        self._kept: dict[tuple[str, ...], Any] = {}
        self._files: dict[tuple[str, int], int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_kept": {}}

    def __del__(self) -> None:
        for handle in self.__dict__.get("_files", {}).values():
            os.close(handle)

    @property
    def dataset(self) -> str:
        """The dataset's name, for example ``vqa``."""
        return self.meta.dataset

    def read(
        self, image_split: str, rows: ArrayLike, out: NDArray[Any] | None = None
    ) -> ImageBatch:
        """Features of images ``rows`` (b,) of a split, in that order, each checked.

        ``out`` is a C-contiguous (>= b, >= n, width) array of the store's dtype to read into (its
        second axis exactly n unless ragged); the result is a view of it. Without it a new array is
        made.

        Raises:
            StoreError: a row outside the split, an image that was left out when the store was
                made, or one whose checksum does not match.
        """
        spec = self.meta.feature
        wanted = np.asarray(rows, np.int64).reshape(-1)
        self._check_rows(image_split, wanted)
        lengths = self._lengths_of(image_split, wanted)
        shape = (len(wanted), int(lengths.max(initial=0)) if spec.ragged else spec.rows, spec.width)
        if out is None:
            out = np.empty(shape, spec.dtype)
        elif not _fits(out, shape, spec):
            raise ValueError(f"out is {out.dtype} {out.shape}, expected {spec.dtype} {shape}")
        elif not out.flags.c_contiguous:
            raise ValueError("out is not C-contiguous")
        batch = out[: shape[0], : shape[1]]
        table = self._chunk_table(image_split)
        if spec.ragged:
            self._read_ragged(image_split, table, wanted, batch)
        else:
            flat = batch.reshape(len(wanted), spec.rows * spec.width).view(np.uint8)
            for number, chunk in enumerate(wanted.tolist()):
                self._read_chunk(image_split, table, chunk, flat[number].data)
        return ImageBatch(batch, lengths)

    def _read_ragged(
        self, split: str, table: ChunkTable, rows: NDArray[np.int64], batch: NDArray[Any]
    ) -> None:
        """Each image from the chunks that its regions lie in; what is beyond its length is 0."""
        spec = self.meta.feature
        offsets = self._offsets(split)
        chunk = np.empty((spec.chunk_rows, spec.width), spec.dtype)
        data = chunk.reshape(-1).view(np.uint8).data
        held = -1
        for number, row in enumerate(rows.tolist()):
            begin, end = int(offsets[row]), int(offsets[row + 1])
            done = begin
            while done < end:
                place, inside = divmod(done, spec.chunk_rows)
                if place != held:  # the next image of a batch often begins where this one ends
                    held = -1
                    self._read_chunk(split, table, place, data)
                    held = place
                taken = min(end - done, spec.chunk_rows - inside)
                batch[number, done - begin : done - begin + taken] = chunk[inside : inside + taken]
                done += taken
            batch[number, end - begin :] = 0

    def _read_chunk(self, split: str, table: ChunkTable, chunk: int, values: memoryview) -> None:
        checksum = bytearray(4)
        shard = int(table.shard[chunk])
        with disk_errors(self.path):
            handle = self._open_shard(split, shard)
            read = os.preadv(handle, [values, checksum], int(table.offset[chunk]))
        if read != len(values) + 4 or crc32c(values) != int.from_bytes(checksum, "little"):
            raise self._damaged(split, shard, chunk)

    def image_ids(self, image_split: str) -> NDArray[np.int64]:
        """The id of each image row, (images,), ascending."""
        return self._images_table(image_split).ids

    def image_names(self, image_split: str) -> Sequence[str] | None:
        """The name of each image row where images have names and not numbers, else None."""
        if not self.meta.image_splits[self._image_split(image_split)].named:
            return None
        return self._table(f"names/{image_split}", NameTable).names

    def cells(self, image_split: str) -> NDArray[np.bool_]:
        """True where a row of an image's features holds a cell or region, False where it is
        padding, (images, rows)."""
        cells = self._images_table(image_split).cells
        if cells is not None:
            return cells
        return np.arange(self.meta.feature.rows) < self.lengths(image_split)[:, None]

    def lengths(self, image_split: str) -> NDArray[np.int32]:
        """Rows of features of each image, (images,)."""
        return self._lengths_of(image_split, np.arange(len(self.image_ids(image_split))))

    def sizes(self, image_split: str) -> NDArray[np.int32]:
        """Height and width of each image in pixels, (images, 2); zeros where unknown.

        Raises:
            StoreError: this store has no boxes and sizes.
        """
        sizes = self._images_table(image_split).sizes
        if sizes is None:
            raise self._no_boxes()
        return sizes

    def boxes(self, image_split: str, rows: ArrayLike) -> NDArray[np.float32]:
        """Boxes of images ``rows`` (b,): (b, n, 4) x1 y1 x2 y2 in pixels, n as in ``read``.

        Raises:
            StoreError: this store has no boxes.
        """
        if not self.meta.feature.boxes:
            raise self._no_boxes()
        wanted = np.asarray(rows, np.int64).reshape(-1)
        self._check_rows(image_split, wanted)
        key = ("boxes", image_split)
        if key not in self._kept:
            self._kept[key] = self._backend.read_boxes(image_split)
        every: NDArray[np.float32] = self._kept[key]
        if not self.meta.feature.ragged:
            return every[wanted]
        begin, count = self._offsets(image_split)[wanted], self._lengths_of(image_split, wanted)
        out = np.zeros((len(wanted), int(count.max(initial=0)), 4), np.float32)
        inside = np.arange(out.shape[1]) < count[:, None]
        out[inside] = every[(begin[:, None] + np.arange(out.shape[1]))[inside]]
        return out

    def skipped(self, image_split: str) -> dict[int, str]:
        """Images that could not be read when the store was made: id -> why."""
        found = self.meta.provenance.get("skipped", {}).get(image_split, {})
        return {int(image_id): why for image_id, why in found.items()}

    def vectors(self, name: str | None = None) -> NDArray[np.float32] | None:
        """Word vectors of the vocabulary, (tokens, width); the only ones where ``name`` is None.

        None where the store has none.

        Raises:
            StoreError: no vectors of that name, or several and no name; damaged.
        """
        have = self.meta.vectors
        if name is None and len(have) < 2:
            name = next(iter(have), None)
            if name is None:
                return None
        if name not in have:
            raise StoreError(
                f"{self.path}: no word vectors {name!r}; it has {', '.join(have) or 'none'}. "
                "Add them: trar-data prepare --vectors SOURCE"
            )
        return read_vectors(self.path, have[name])

    def questions(self, split: str) -> QuestionTable:
        """The questions of a split, in the order of their file."""
        return self._table(f"questions/{self._question_split(split)}", QuestionTable)

    def tokens(self, split: str, tokenizer: str = TOKENIZER) -> Ragged:
        """Token ids of each question, never cut."""
        return self._table(f"tokens/{tokenizer}/{self._question_split(split)}", Ragged)

    def targets(self, split: str, scheme: str = SCHEME) -> SparseTargets:
        """Soft scores over the answer dictionary.

        Raises:
            StoreError: the split has no answers (a test split).
        """
        self._need_answers(split)
        return self._table(f"targets/{scheme}/{split}", SparseTargets)

    def answers_of(self, split: str) -> AnswerTable:
        """The raw answers of a split, as annotated.

        Raises:
            StoreError: the split has no answers (a test split).
        """
        self._need_answers(split)
        return self._table(f"answers/{split}", AnswerTable)

    @property
    def vocabulary(self) -> Vocabulary:
        """The token table that made ``tokens``."""
        entry = self.meta.vocabularies[TOKENIZER]
        return cast(Vocabulary, self._json(entry.file, Vocabulary.from_json, entry.digest))

    @property
    def answers(self) -> AnswerDictionary:
        """The answers that ``targets`` are labels of."""
        entry = self.meta.answer_schemes[SCHEME]
        return cast(
            AnswerDictionary, self._json(entry.file, AnswerDictionary.from_json, entry.digest)
        )

    def _question_split(self, split: str) -> str:
        if split not in self.meta.question_splits:
            raise StoreError(
                f"{self.path}: no question split {split!r}; it has "
                f"{', '.join(self.meta.question_splits)}. Add it: trar-data prepare "
                f"--split {split}"
            )
        return split

    def _need_answers(self, split: str) -> None:
        if not self.meta.question_splits[self._question_split(split)].answered:
            raise StoreError(f"{self.path}: the questions of split {split!r} have no answers")

    def _image_split(self, split: str) -> str:
        if split not in self.meta.image_splits:
            raise StoreError(
                f"{self.path}: no image split {split!r}; it has {', '.join(self.meta.image_splits)}"
            )
        return split

    def _table(self, name: str, kind: type[Columns]) -> Columns:
        if (name,) not in self._kept:
            try:
                self._kept[name,] = kind.from_columns(self._backend.read_table(name))
            except KeyError as missing:
                raise StoreError(f"{self.path}: table {name} has no column {missing}") from None
        return cast(Columns, self._kept[name,])

    def _images_table(self, split: str) -> ImageTable:
        key = ("images", self._image_split(split))
        if key not in self._kept:
            self._kept[key] = self._backend.read_images_table(split, self.meta.feature)
        return cast(ImageTable, self._kept[key])

    def _lengths_of(self, split: str, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        if not self.meta.feature.ragged:
            return np.full(len(rows), self.meta.feature.rows, np.int32)
        offsets = self._offsets(split)
        return (offsets[rows + 1] - offsets[rows]).astype(np.int32)

    def _offsets(self, split: str) -> NDArray[np.int64]:
        offsets = self._images_table(split).offsets
        assert offsets is not None
        return offsets

    def _chunk_table(self, split: str) -> ChunkTable:
        key = ("chunks", self._image_split(split))
        if key not in self._kept:
            chunks = self.meta.image_splits[split].chunks(self.meta.feature)
            self._kept[key] = read_chunk_table(self.path, split, chunks)
        return cast(ChunkTable, self._kept[key])

    def _check_rows(self, split: str, rows: NDArray[np.int64]) -> None:
        images = self.meta.image_splits[self._image_split(split)].images
        if len(rows) and (rows.min() < 0 or rows.max() >= images):
            raise StoreError(
                f"{self.path}: rows {rows.min()}..{rows.max()} asked of image split {split}, "
                f"which has rows 0..{images - 1}"
            )
        key = ("skipped", split)
        if key not in self._kept:
            left_out = np.array(list(self.skipped(split)), np.int64)
            self._kept[key] = np.flatnonzero(np.isin(self.image_ids(split), left_out))
        if len(self._kept[key]) and (bad := np.isin(rows, self._kept[key])).any():
            image_id = int(self.image_ids(split)[rows[bad][0]])
            raise StoreError(
                f"{self.path}: image {image_id} of {split} was left out when this store was made: "
                f"{self.skipped(split)[image_id]}"
            )

    def _no_boxes(self) -> StoreError:
        return StoreError(
            f"{self.path}: this store has no boxes; prepare it from features that have them "
            "(bottom-up .npz, LXMERT .tsv, HDF5 with image_bb)"
        )

    def _json(self, name: str, parse: Any, digest: str) -> Any:
        if (name,) not in self._kept:
            try:
                data = msgspec.json.decode((self.path / name).read_bytes())
                parsed = parse(data, where=str(self.path / name))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StoreError(f"{self.path / name}: not readable as JSON ({error})") from None
            if parsed.digest != digest:
                raise StoreError(
                    f"{self.path / name}: its digest is {parsed.digest[:12]}…, store.json says "
                    f"{digest[:12]}…: not the file of this store; prepare this dataset again"
                )
            self._kept[name,] = parsed
        return self._kept[name,]

    def _open_shard(self, split: str, shard: int) -> int:
        handle = self._files.get((split, shard))
        if handle is None:
            path = self._shard_path(split, shard)
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            first = self._files.setdefault((split, shard), handle)
            if first != handle:  # another thread opened it in the meantime
                os.close(handle)
            handle = first
        return handle

    def _shard_path(self, split: str, shard: int) -> Path:
        return self.path / self._backend.shard_files(split, shard, self.meta.feature)["features"]

    def _damaged(self, split: str, shard: int, chunk: int) -> StoreError:
        spec, ids = self.meta.feature, self.image_ids(split)
        if spec.ragged:
            flat = np.array([chunk, chunk + 1]) * spec.chunk_rows
            first, last = np.searchsorted(self._offsets(split)[1:], [flat[0], flat[1] - 1], "right")
            last = min(int(last), len(ids) - 1)
            what = f"a chunk of images {ids[first]} to {ids[last]} of {split}"
        else:
            what = f"image {ids[chunk]} (row {chunk} of {split})"
        return StoreError(
            f"{self._shard_path(split, shard)}: {what} does not match its crc32c: damaged; "
            f"`trar-data verify --store {self.path}` lists all damage; delete "
            f"{self.path} and prepare it again"
        )

    def _check_sizes(self) -> None:
        for name, entry in self.meta.files.items():
            path = self.path / name
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                raise StoreError(
                    f"{path}: missing; the store cannot be read without it (a Zarr reader would "
                    f"show zeros). Delete {self.path} and prepare it again"
                ) from None
            if found != entry.bytes:
                raise StoreError(
                    f"{path}: {found} bytes, expected {entry.bytes}: cut short or overwritten. "
                    f"Delete {self.path} and prepare it again"
                )


def _fits(out: NDArray[Any], shape: tuple[int, int, int], spec: FeatureSpec) -> bool:
    rows = out.shape[1] >= shape[1] if spec.ragged else out.shape[1:2] == shape[1:2]
    return out.dtype == spec.dtype and len(out) >= shape[0] and rows and out.shape[2] == shape[2]
