"""Read-only access to a feature store: image features by row, and the questions about them.

Features are read by ``row_reader``, tables by ``image_tables`` and ``question_tables``;
``file_sizes`` is checked at opening.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trar.errors import StoreError
from trar.features.answers import AnswerDictionary
from trar.features.containers import open_backend
from trar.features.file_sizes import check_sizes
from trar.features.place import open_place
from trar.features.question_tables import QuestionTables
from trar.features.questions import (
    AnswerTable,
    NameTable,
    QuestionTable,
    Ragged,
    SparseTargets,
)
from trar.features.row_reader import ImageBatch, RowReader, VerifyReads
from trar.features.schema import StoreMeta, find_dataset, read_meta
from trar.features.source_choice import Access
from trar.features.text import Vocabulary
from trar.features.vectors import read_vectors
from trar.features.word_pieces import vocabulary_from_json

TOKENIZER = "openvqa"
SCHEME = "openvqa"
WORD_PIECES = "wordpiece"
LXMERT_SCHEME = "lxmert"
_MADE_BY = {
    WORD_PIECES: "--tokenizer wordpiece --wordpiece-vocab vocab.txt",
    LXMERT_SCHEME: "--targets lxmert",
}


class FeatureStore:
    """One dataset of a store: image features by row, and the questions about them.

    ``path`` is a store root with one dataset in it, or a dataset folder; ``dataset`` chooses among
    several. Opening reads ``store.json`` and the size of each file; everything else is read on
    first use. Safe to share between threads, and across fork and pickling (open files are dropped
    and opened again).

    ``verify_reads`` says which chunks of features are compared with their crc32c when they are
    read: "all"; "sample", each when a process first reads it and then every 64th time; or "none",
    which returns damaged bytes as numbers. ``access`` says how they come from a local disk:
    "preadv", "mmap", "library" (zarr-python or h5py), or "auto", which takes memory maps where
    nothing is verified and the images fit into memory, and else ``preadv``. Features that another
    tool has written in a layout of its own are read through the library, and the log says why.

    The arrays of tables are read-only memory maps of the store's files where that can be, so that
    they take no memory of the process: do not write into them.

    Raises:
        StoreError: no finished store, another format version, or a file that is missing or of
            another size.
    """

    tokenizer = TOKENIZER
    scheme = SCHEME

    def __init__(
        self,
        path: str | os.PathLike[str],
        dataset: str | None = None,
        *,
        verify_reads: VerifyReads = "all",
        access: Access = "auto",
    ) -> None:
        for name, value, known in (
            ("verify_reads", verify_reads, get_args(VerifyReads)),
            ("access", access, get_args(Access)),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        self.path = find_dataset(open_place(path), dataset)
        self.meta: StoreMeta = read_meta(self.path)
        backend = open_backend(self.path, self.meta.container)
        self._rows = RowReader(
            self.path,
            self.meta,
            backend,
            verify_reads=verify_reads,
            access=access,
            other_layouts=check_sizes(self.path, self.meta, backend),
        )
        self._images = self._rows.tables
        self._questions = QuestionTables(self._rows.places)

    @property
    def dataset(self) -> str:
        """The dataset's name, for example ``vqa``."""
        return self.meta.dataset

    def using(self, tokenizer: str, scheme: str) -> FeatureStore:
        """This store with the tokens and the vocabulary of ``tokenizer``, and the targets and the
        answers of ``scheme``.

        Raises:
            StoreError: it has none of these; the message says what makes them.
        """
        for what, name, known in (
            ("tokens", tokenizer, self.meta.vocabularies),
            ("targets", scheme, self.meta.answer_schemes),
        ):
            if name not in known:
                by = _MADE_BY.get(name)
                way = f"; `trar-data prepare {by}` adds them" if by else ""
                raise StoreError(
                    f"{self.path}: no {what} of {name!r}, only of {', '.join(known)}{way}"
                )
        other = copy.copy(self)
        other.tokenizer, other.scheme = tokenizer, scheme
        return other

    @property
    def longest_question(self) -> int:
        """Tokens of the longest question of all splits."""
        if self.tokenizer == TOKENIZER:
            return self.meta.longest_question
        splits = self.meta.question_splits
        return max(int(np.diff(self.tokens(split).offsets).max(initial=0)) for split in splits)

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
        return self._rows.read(image_split, rows, out)

    def chunks(self, image_split: str, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """The stored chunks ``start`` to ``stop`` of a split, each (chunk rows, width) and checked:
        images, or where ragged 64 regions. The same array is filled anew for each.

        Raises:
            StoreError: a chunk does not match its checksum.
        """
        return self._rows.chunks(image_split, start, stop)

    def image_ids(self, image_split: str) -> NDArray[np.int64]:
        """The id of each image row, (images,), ascending."""
        return self._images.table(image_split).ids

    def image_names(self, image_split: str) -> Sequence[str] | None:
        """The name of each image row where images have names and not numbers, else None."""
        self._images.table(image_split)
        if not self.meta.image_splits[image_split].named:
            return None
        return self._questions.table(f"names/{image_split}", NameTable).names

    def cells(self, image_split: str) -> NDArray[np.bool_]:
        """True where a row of an image's features holds a cell or region, False where it is
        padding, (images, rows)."""
        return self._images.cells(image_split)

    def lengths(self, image_split: str) -> NDArray[np.int32]:
        """Rows of features of each image, (images,)."""
        return self._images.lengths(image_split, np.arange(len(self.image_ids(image_split))))

    def sizes(self, image_split: str) -> NDArray[np.int32]:
        """Height and width of each image in pixels, (images, 2); zeros where unknown.

        Raises:
            StoreError: this store has no boxes and sizes.
        """
        return self._images.sizes(image_split)

    def boxes(self, image_split: str, rows: ArrayLike) -> NDArray[np.float32]:
        """Boxes of images ``rows`` (b,): (b, n, 4) x1 y1 x2 y2 in pixels, n as in ``read``.

        Raises:
            StoreError: this store has no boxes.
        """
        return self._images.boxes(image_split, rows)

    def skipped(self, image_split: str) -> dict[int, str]:
        """Images that could not be read when the store was made: id -> why."""
        return self._images.skipped(image_split)

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
        return self._questions.table(f"questions/{self._questions.known(split)}", QuestionTable)

    def tokens(self, split: str) -> Ragged:
        """Token ids of each question, never cut."""
        return self._questions.table(
            f"tokens/{self.tokenizer}/{self._questions.known(split)}", Ragged
        )

    def targets(self, split: str) -> SparseTargets:
        """Soft scores over the answer dictionary.

        Raises:
            StoreError: the split has no answers (a test split).
        """
        name = f"targets/{self.scheme}/{self._questions.answered(split)}"
        return self._questions.table(name, SparseTargets)

    def answers_of(self, split: str) -> AnswerTable:
        """The raw answers of a split, as annotated.

        Raises:
            StoreError: the split has no answers (a test split).
        """
        return self._questions.table(f"answers/{self._questions.answered(split)}", AnswerTable)

    @property
    def vocabulary(self) -> Vocabulary:
        """The token table that made ``tokens``."""
        entry = self.meta.vocabularies[self.tokenizer]
        return self._questions.dictionary(entry.file, vocabulary_from_json, entry.digest)

    @property
    def answers(self) -> AnswerDictionary:
        """The answers that ``targets`` are labels of."""
        entry = self.meta.answer_schemes[self.scheme]
        return self._questions.dictionary(entry.file, AnswerDictionary.from_json, entry.digest)
