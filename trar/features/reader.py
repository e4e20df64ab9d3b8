"""Read-only access to a feature store, as fast as the disk: every image is one checked file read.

Opening compares the size of every file with ``store.json``: a Zarr reader would show a missing or
cut shard as zeros. Reading compares the crc32c of every image, so a flipped byte is an error that
names the shard and the image, never a wrong number.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
from crc32c import crc32c
from numpy.typing import ArrayLike, NDArray

from trar.errors import StoreError
from trar.features.answers import AnswerDictionary
from trar.features.chunk_table import ChunkTable, read_chunk_table
from trar.features.containers import open_backend
from trar.features.questions import AnswerTable, QuestionTable, Ragged, SparseTargets
from trar.features.schema import StoreMeta, find_dataset, read_meta
from trar.features.text import Vocabulary
from trar.fileio import disk_errors

Columns = TypeVar("Columns", AnswerTable, QuestionTable, Ragged, SparseTargets)

TOKENIZER = "openvqa"
SCHEME = "openvqa"


class ImageBatch(NamedTuple):
    """``features`` (b, rows, width) in the store's dtype, ``lengths`` (b,) int32: rows per image
    (all of a grid's rows; which of them are padding stands in ``FeatureStore.cells``)."""

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

        ``out`` is a C-contiguous (>= b, rows, width) array of the store's dtype to read into; the
        result is a view of its first b entries. Without it a new array is made.

        Raises:
            StoreError: a row outside the split, or an image whose checksum does not match.
        """
        spec = self.meta.feature
        wanted = np.asarray(rows, np.int64).reshape(-1)
        table = self._chunk_table(image_split)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(table)):
            raise StoreError(
                f"{self.path}: rows {wanted.min()}..{wanted.max()} asked of image split "
                f"{image_split}, which has rows 0..{len(table) - 1}"
            )
        shape = (len(wanted), spec.rows, spec.width)
        if out is None:
            out = np.empty(shape, spec.dtype)
        elif out.dtype != spec.dtype or out.shape[1:] != shape[1:] or len(out) < len(wanted):
            raise ValueError(f"out is {out.dtype} {out.shape}, expected {spec.dtype} {shape}")
        elif not out.flags.c_contiguous:
            raise ValueError("out is not C-contiguous")
        batch = out[: len(wanted)]
        flat = batch.reshape(len(wanted), spec.rows * spec.width).view(np.uint8)
        checksum = bytearray(4)
        places = zip(table.shard[wanted].tolist(), table.offset[wanted].tolist(), strict=True)
        for number, (shard, offset) in enumerate(places):
            values = flat[number]
            with disk_errors(self.path):
                handle = self._open_shard(image_split, shard)
                read = os.preadv(handle, [memoryview(values), checksum], offset)
            if read != spec.row_bytes + 4 or crc32c(values) != int.from_bytes(checksum, "little"):
                raise self._damaged(image_split, shard, int(wanted[number]))
        return ImageBatch(batch, np.full(len(wanted), spec.rows, np.int32))

    def image_ids(self, image_split: str) -> NDArray[np.int64]:
        """The id of each image row, (images,), ascending."""
        return self._images_table(image_split)[0]

    def cells(self, image_split: str) -> NDArray[np.bool_]:
        """True where a grid cell holds features, False where it is padding, (images, rows)."""
        return self._images_table(image_split)[1]

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
        if self.meta.question_splits[self._question_split(split)].answers_per_question == 0:
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

    def _images_table(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        key = ("images", self._image_split(split))
        if key not in self._kept:
            self._kept[key] = self._backend.read_images_table(split)
        return self._kept[key]  # type: ignore[no-any-return]

    def _chunk_table(self, split: str) -> ChunkTable:
        key = ("chunks", self._image_split(split))
        if key not in self._kept:
            images = self.meta.image_splits[split].images
            self._kept[key] = read_chunk_table(self.path, split, images)
        return self._kept[key]  # type: ignore[no-any-return]

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
            path = self.path / self._backend.shard_files(split, shard)[0]
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            first = self._files.setdefault((split, shard), handle)
            if first != handle:  # another thread opened it in the meantime
                os.close(handle)
            handle = first
        return handle

    def _damaged(self, split: str, shard: int, row: int) -> StoreError:
        path = self.path / self._backend.shard_files(split, shard)[0]
        return StoreError(
            f"{path}: image {self.image_ids(split)[row]} (row {row} of {split}) does not match its "
            f"crc32c: damaged; `trar-data verify --store {self.path}` lists all damage; delete "
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
