"""Cuts batches of questions from the tables of a store, with the features of their images.

Questions of several splits are one numbered list; the tables stay as the store holds them (mapped
files), nothing is joined or copied. q = questions, b = questions of a batch, n, f, t as in
``Batch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trar.features.questions import QuestionTable, Ragged, SparseTargets
from trar.features.reader import WORD_PIECES, FeatureStore
from trar.features.schema import QuestionSplit
from trar.trainer.batch import Batch
from trar.trainer.sampler import Rows
from trar.trainer.store_images import ROW, Images, Keys, StoreImages

_NO_ROWS, _NO_SCORES = np.empty(0, np.int64), np.empty(0, np.float32)


@dataclass(frozen=True)
class _Split:
    """The tables of one question split, which begins at question ``start``; ``image_split`` maps
    the numbers of its own image splits to those of the whole list."""

    start: int
    table: QuestionTable
    tokens: Ragged
    targets: SparseTargets | None
    image_split: Keys


class Questions:
    """Several question splits as one numbered list, with what is needed to cut batches from it.

    A question's row counts through ``splits`` in the order given. ``targets=False`` leaves the
    scored answers out, as test splits have none. Safe to share between threads, and across fork
    and pickling (tables are opened again, not sent).

    Raises:
        StoreError: a split that the store does not have, or one without answers.
    """

    def __init__(
        self, store: FeatureStore, splits: Sequence[str], *, max_tokens: int, targets: bool
    ) -> None:
        self.store = store
        self._made_of = (store, tuple(splits), max_tokens, targets)
        self._max_tokens = max_tokens
        self._keeps_last = store.tokenizer == WORD_PIECES  # a cut question still ends with [SEP]
        self.image_splits: tuple[str, ...] = tuple(
            dict.fromkeys(
                name for split in splits for name in _question_split(store, split).image_splits
            )
        )
        self._splits: list[_Split] = []
        start = 0
        for split in splits:
            own = store.meta.question_splits[split].image_splits
            one = _Split(
                start,
                store.questions(split),
                store.tokens(split),
                store.targets(split) if targets else None,
                np.array([self.image_splits.index(name) for name in own], np.int64),
            )
            self._splits.append(one)
            start += len(one.table)
        self._count = start
        self._starts = np.array([one.start for one in self._splits])
        self._images = StoreImages(store, self.image_splits)
        spec = store.meta.feature
        self._lengths = [store.lengths(name) for name in self.image_splits if spec.ragged]
        self._cells = [store.cells(name) for name in self.image_splits if not spec.ragged]
        self._sizes = [store.sizes(name) for name in self.image_splits if spec.boxes]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, self._made_of

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of all questions, (q,)."""
        if len(self._splits) == 1:
            return self._splits[0].table.ids
        return np.concatenate([split.table.ids for split in self._splits])

    @property
    def scored_answers(self) -> int:
        """How many (question, answer) pairs have a score."""
        return sum(len(split.targets.label) for split in self._splits if split.targets)

    def room(self, questions: int) -> int:
        """Bytes of the features of so many questions, at most."""
        spec = self.store.meta.feature
        return questions * spec.rows * spec.width * np.dtype(spec.dtype).itemsize

    def image_keys(self, rows: Rows) -> Keys:
        """The image of each question of ``rows`` (b,), (b,)."""
        keys = np.empty(len(rows), np.int64)
        for split, places, own in self._by_split(rows):
            number = split.image_split[split.table.image_split[own]]
            keys[places] = number << 32 | split.table.image_row[own]
        return keys

    def image_lengths(self, keys: Keys) -> NDArray[np.int64]:
        """Rows of features that are stored of each image, (b,)."""
        lengths = np.full(len(keys), self.store.meta.feature.rows, np.int64)
        for number, known in enumerate(self._lengths):
            here = keys >> 32 == number
            lengths[here] = known[keys[here] & ROW]
        return lengths

    def batch(
        self, rows: Rows, memory: NDArray[np.uint8] | None = None, images: Images | None = None
    ) -> Batch:
        """The questions ``rows`` (b,), their features in ``memory`` (at least ``room(b)`` bytes;
        None: in memory of the batch's own) and from ``images`` (None: from the store).

        Raises:
            StoreError: an image that does not match its checksum, or cannot be read.
        """
        spec = self.store.meta.feature
        keys = self.image_keys(rows)
        lengths = self.image_lengths(keys)
        longest = max(1, int(lengths.max(initial=0))) if spec.ragged else spec.rows
        shape = (len(rows), longest, spec.width)
        if memory is None:
            features = np.empty(shape, spec.dtype)
        else:
            size = shape[0] * shape[1] * shape[2] * np.dtype(spec.dtype).itemsize
            features = memory[:size].view(spec.dtype).reshape(shape)
        if len(rows):
            (images or self._images).read(keys, features)
        cells = np.arange(longest) < lengths[:, None]
        for number, known in enumerate(self._cells):
            here = keys >> 32 == number
            cells[here] = known[keys[here] & ROW]
        question_ids = np.empty(len(rows), np.int64)
        for split, places, own in self._by_split(rows):
            question_ids[places] = split.table.ids[own]
        boxes, sizes = self._cut_boxes(keys, longest) if spec.boxes else (None, None)
        target_row, label, score = self._cut_targets(rows)
        return Batch(
            torch.from_numpy(features),
            torch.from_numpy(cells),
            torch.from_numpy(lengths),
            torch.from_numpy(self._cut_tokens(rows)),
            torch.from_numpy(target_row),
            torch.from_numpy(label),
            torch.from_numpy(score),
            torch.from_numpy(question_ids),
            boxes,
            sizes,
        )

    def _by_split(self, rows: Rows) -> list[tuple[_Split, Rows, Rows]]:
        """For each split that has any of ``rows``: their places in the batch, their own rows."""
        if len(self._splits) == 1:
            return [(self._splits[0], np.arange(len(rows)), rows)]
        source = np.searchsorted(self._starts, rows, "right") - 1
        found = []
        for number in np.unique(source).tolist():
            places = np.flatnonzero(source == number)
            split = self._splits[number]
            found.append((split, places, rows[places] - split.start))
        return found

    def _cut_tokens(self, rows: Rows) -> NDArray[np.int64]:
        """Token ids padded with 0, (b, t); t is at least 1, at most ``max_tokens``."""
        pieces = []
        for split, places, own in self._by_split(rows):
            start, end = split.tokens.offsets[own], split.tokens.offsets[own + 1]
            length = np.minimum(end - start, self._max_tokens)
            pieces.append((places, split.tokens.ids, start, length, end))
        longest = max((int(length.max(initial=0)) for *_, length, _ in pieces), default=0)
        tokens = np.zeros((len(rows), max(1, longest)), np.int64)
        for places, ids, start, length, end in pieces:
            owner, within = _spread(length)
            tokens[places[owner], within] = ids[start[owner] + within]
            if self._keeps_last:
                cut = end - start > length
                tokens[places[cut], length[cut] - 1] = ids[end[cut] - 1]
        return tokens

    def _cut_targets(self, rows: Rows) -> tuple[Rows, Rows, NDArray[np.float32]]:
        row, label, score = [_NO_ROWS], [_NO_ROWS], [_NO_SCORES]
        for split, places, own in self._by_split(rows):
            if split.targets is None:
                continue
            start = split.targets.offsets[own]
            owner, within = _spread(split.targets.offsets[own + 1] - start)
            row.append(places[owner])
            label.append(split.targets.label[start[owner] + within])
            score.append(split.targets.score[start[owner] + within])
        joined = np.concatenate(row)
        by_row = np.argsort(joined, kind="stable")  # they are, within a split
        labels, scores = np.concatenate(label)[by_row], np.concatenate(score)[by_row]
        return joined[by_row], labels.astype(np.int64), scores

    def _cut_boxes(self, keys: Keys, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = np.zeros((len(keys), longest, 4), np.float32)
        sizes = np.zeros((len(keys), 2), np.int32)
        for number, name in enumerate(self.image_splits):
            places = np.flatnonzero(keys >> 32 == number)
            if len(places):
                rows = keys[places] & ROW
                own = self.store.boxes(name, rows)
                boxes[places, : own.shape[1]] = own
                sizes[places] = self._sizes[number][rows]
        return torch.from_numpy(boxes), torch.from_numpy(sizes)


def _question_split(store: FeatureStore, split: str) -> QuestionSplit:
    store.questions(split)  # an unknown split is explained there
    return store.meta.question_splits[split]


def _spread(lengths: NDArray[np.int64]) -> tuple[Rows, Rows]:
    """For every item of lists of these ``lengths``: the list it is in, and where in it."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _again(
    store: FeatureStore, splits: tuple[str, ...], max_tokens: int, targets: bool
) -> Questions:
    return Questions(store, splits, max_tokens=max_tokens, targets=targets)
