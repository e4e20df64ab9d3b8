"""The question side of a store as flat columns: no Python object per question.

Row i of every column of a split is the same question. Texts are UTF-8 bytes with offsets; a ragged
column has offsets (n + 1,) into its values.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.backend import Table
from trar.features.columns import BLOCK_ROWS, CodedTexts, Column, Lists

ANSWER_TYPES = ("", "yes/no", "number", "other")


@dataclass(frozen=True, eq=False)
class Texts(Column[str]):
    """Strings as one byte buffer: ``data`` (bytes,) uint8 and ``offsets`` (n + 1,) int64."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def pack(cls, texts: Iterable[str]) -> Texts:
        """Strings to columns; what is packed already stays as it is."""
        if isinstance(texts, Texts):
            return texts
        if isinstance(texts, CodedTexts):
            return cls.pack(texts.known).take(texts.codes)
        grown = GrowingTexts()
        for text in texts:
            grown.append(text)
        return grown.finish()

    def take(self, rows: NDArray[np.integer[Any]]) -> Texts:
        lengths = np.diff(self.offsets)
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths[rows], out=offsets[1:])
        data = np.empty(offsets[-1], np.uint8)
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            ends = offsets[start : start + len(block) + 1]
            place = np.arange(ends[0], ends[-1])
            place += np.repeat(self.offsets[block] - ends[:-1], lengths[block])
            data[ends[0] : ends[-1]] = self.data[place]
        return Texts(data, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        whole, ends = self.data.tobytes(), self.offsets.tolist()
        for start, end in itertools.pairwise(ends):
            yield whole[start:end].decode()


class GrowingTexts:
    """Takes strings one by one and packs them as they come."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """One more row."""
        self._data += text.encode()
        self._ends.append(len(self._data))

    def finish(self) -> Texts:
        """The rows so far; nothing can be appended any more."""
        return Texts(np.frombuffer(self._data, np.uint8), np.frombuffer(self._ends, np.int64))


@dataclass(frozen=True)
class QuestionTable:
    """``ids`` (q,) int64; ``image_split`` (q,) uint8 into the split's ``image_splits``;
    ``image_row`` (q,) int32 in that image split; ``type`` (q,) uint16 into ``type_names``."""

    ids: NDArray[np.int64]
    image_split: NDArray[np.uint8]
    image_row: NDArray[np.int32]
    type: NDArray[np.uint16]
    type_names: Texts
    texts: Texts

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self) -> Table:
        """The arrays of group ``questions/<split>``."""
        return {
            "ids": self.ids,
            "image_split": self.image_split,
            "image_row": self.image_row,
            "type": self.type,
            **_text_columns("type_name", self.type_names),
            **_text_columns("text", self.texts),
        }

    @classmethod
    def from_columns(cls, columns: Table) -> QuestionTable:
        """The reverse of ``columns``."""
        return cls(
            columns["ids"],
            columns["image_split"],
            columns["image_row"],
            columns["type"],
            _texts(columns, "type_name"),
            _texts(columns, "text"),
        )


@dataclass(frozen=True)
class AnswerTable:
    """Raw answers as annotated: ``texts`` of all questions, of question i those in
    ``offsets[i]:offsets[i + 1]``; ``type`` (q,) uint8 into ``ANSWER_TYPES``; ``majority`` is the
    answer that the dictionary is built from (VQA's ``multiple_choice_answer``). ``scores`` are
    those of ``texts`` where the raw file states them (LXMERT's labels), float32, else None."""

    offsets: NDArray[np.int64]
    texts: Texts
    type: NDArray[np.uint8]
    majority: Texts
    scores: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lists(self) -> list[list[str]]:
        """The answers of every question as Python lists."""
        return list(Lists(self.texts, self.offsets))

    def columns(self) -> Table:
        """The arrays of group ``answers/<split>``."""
        stated = {} if self.scores is None else {"scores": self.scores}
        return {
            **stated,
            "offsets": self.offsets,
            "type": self.type,
            **_text_columns("answer", self.texts),
            **_text_columns("majority", self.majority),
        }

    @classmethod
    def from_columns(cls, columns: Table) -> AnswerTable:
        """The reverse of ``columns``."""
        return cls(
            columns["offsets"],
            _texts(columns, "answer"),
            columns["type"],
            _texts(columns, "majority"),
            columns.get("scores"),
        )


@dataclass(frozen=True)
class NameTable:
    """``names`` of the images of a split, in row order, where images have names for ids."""

    names: Texts

    def columns(self) -> Table:
        """The arrays of group ``names/<image split>``."""
        return _text_columns("name", self.names)

    @classmethod
    def from_columns(cls, columns: Table) -> NameTable:
        """The reverse of ``columns``."""
        return cls(_texts(columns, "name"))


@dataclass(frozen=True)
class Ragged:
    """Token ids of every question: ``ids`` (total,) int32, ``offsets`` (q + 1,) int64, uncut."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def columns(self) -> Table:
        """The arrays of group ``tokens/<tokenizer>/<split>``."""
        return {"ids": self.ids, "offsets": self.offsets}

    @classmethod
    def from_columns(cls, columns: Table) -> Ragged:
        """The reverse of ``columns``."""
        return cls(columns["ids"], columns["offsets"])


@dataclass(frozen=True)
class SparseTargets:
    """Soft scores: question i has ``label`` and ``score`` in ``offsets[i]:offsets[i + 1]``."""

    offsets: NDArray[np.int64]
    label: NDArray[np.int32]
    score: NDArray[np.float32]

    def columns(self) -> Table:
        """The arrays of group ``targets/<scheme>/<split>``."""
        return {"offsets": self.offsets, "label": self.label, "score": self.score}

    @classmethod
    def from_columns(cls, columns: Table) -> SparseTargets:
        """The reverse of ``columns``."""
        return cls(columns["offsets"], columns["label"], columns["score"])


def _text_columns(name: str, texts: Texts) -> dict[str, NDArray[Any]]:
    return {f"{name}_bytes": texts.data, f"{name}_offsets": texts.offsets}


def _texts(columns: Table, name: str) -> Texts:
    data, offsets = columns[f"{name}_bytes"], columns[f"{name}_offsets"]
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data):
        raise StoreError(f"the column {name} does not end where its offsets say: damaged")
    return Texts(data, offsets)
