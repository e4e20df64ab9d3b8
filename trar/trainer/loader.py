"""Streams batches from a feature store: one thread reads ahead into a small ring of buffers.

The order is given, not chosen here, so what the model sees does not depend on how far ahead the
thread is. The thread does no arithmetic in torch: a thread has its own pool of torch threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trar.features.questions import Ragged, SparseTargets
from trar.features.reader import FeatureStore
from trar.trainer.batch import Batch

Rows = NDArray[np.int64]


class Questions:
    """Several question splits as one numbered list, with what is needed to cut batches from it.

    A question's row counts through ``splits`` in the order given. ``targets=False`` leaves the
    scored answers out, as test splits have none.

    Raises:
        StoreError: a split that the store does not have, or one without answers.
    """

    def __init__(
        self, store: FeatureStore, splits: Sequence[str], *, max_tokens: int, targets: bool
    ) -> None:
        self._store = store
        self._max_tokens = max_tokens
        tables = [store.questions(split) for split in splits]
        self.ids = np.concatenate([table.ids for table in tables])
        self._image_row = np.concatenate([table.image_row for table in tables])
        self._image_splits: list[str] = []
        numbers = []
        for split, table in zip(splits, tables, strict=True):
            names = store.meta.question_splits[split].image_splits
            self._image_splits += [name for name in names if name not in self._image_splits]
            place = np.array([self._image_splits.index(name) for name in names], np.int64)
            numbers.append(place[table.image_split])
        self._image_split = np.concatenate(numbers)
        self._cells = [store.cells(name) for name in self._image_splits]
        self._tokens = _join_tokens([store.tokens(split) for split in splits])
        self._targets = _join_targets([store.targets(split) for split in splits if targets])
        self._distinct: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def scored_answers(self) -> int:
        """How many (question, answer) pairs have a score."""
        return len(self._targets.label) if self._targets is not None else 0

    def buffer(self, questions: int) -> NDArray[Any]:
        """Room for the features of a batch, (questions, n, f) in the store's dtype."""
        spec = self._store.meta.feature
        return np.empty((questions, spec.rows, spec.width), spec.dtype)

    def batch(self, rows: Rows, out: NDArray[Any]) -> Batch:
        """The questions ``rows`` (b,) with their features in ``out`` (>= b, n, f).

        One call at a time: a buffer for repeated images is shared between calls.

        Raises:
            StoreError: an image that does not match its checksum.
        """
        cells = np.empty((len(rows), out.shape[1]), np.bool_)
        for number, known in enumerate(self._cells):
            here = self._image_split[rows] == number
            cells[here] = known[self._image_row[rows[here]]]
        target_row, label, score = self._cut_targets(rows)
        return Batch(
            torch.from_numpy(self._read_features(rows, out)),
            torch.from_numpy(cells),
            torch.from_numpy(self._cut_tokens(rows)),
            torch.from_numpy(target_row),
            torch.from_numpy(label),
            torch.from_numpy(score),
            torch.from_numpy(self.ids[rows]),
        )

    def _read_features(self, rows: Rows, out: NDArray[Any]) -> NDArray[Any]:
        """Each image is read once, however many questions of the batch are about it."""
        image = self._image_split[rows] << 32 | self._image_row[rows]
        distinct, place = np.unique(image, return_inverse=True)
        first, last = int(distinct[0] >> 32), int(distinct[-1] >> 32)
        if len(distinct) == len(rows) and first == last:
            name = self._image_splits[first]
            return self._store.read(name, self._image_row[rows], out).features
        if self._distinct is None or len(self._distinct) < len(distinct):
            self._distinct = self.buffer(len(out))
        done = 0
        for number, name in enumerate(self._image_splits):
            wanted = distinct[distinct >> 32 == number] & 0xFFFFFFFF
            self._store.read(name, wanted, self._distinct[done:])
            done += len(wanted)
        # the places are valid, and mode="raise" would copy through another buffer
        return np.take(self._distinct, place, axis=0, out=out[: len(rows)], mode="clip")

    def _cut_tokens(self, rows: Rows) -> NDArray[np.int64]:
        """Token ids padded with 0, (b, t); t is at least 1, at most ``max_tokens``."""
        start = self._tokens.offsets[rows]
        length = np.minimum(self._tokens.offsets[rows + 1] - start, self._max_tokens)
        column = np.arange(max(1, int(length.max())))
        inside = column < length[:, None]
        tokens = np.zeros(inside.shape, np.int64)
        tokens[inside] = self._tokens.ids[(start[:, None] + column)[inside]]
        return tokens

    def _cut_targets(self, rows: Rows) -> tuple[Rows, Rows, NDArray[np.float32]]:
        if self._targets is None:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        start = self._targets.offsets[rows]
        count = self._targets.offsets[rows + 1] - start
        row = np.repeat(np.arange(len(rows)), count)
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        place = np.repeat(start, count) + within
        return row, self._targets.label[place].astype(np.int64), self._targets.score[place]


class BatchStream:
    """Iterates over the batches of ``order``, read ahead by at most ``prefetch``.

    A context manager: leaving it, for whatever reason, stops the thread. An error of the thread
    is raised here, as it is, in place of the batch that it concerns. ``waited_s`` is how long the
    caller has waited for batches so far. A batch is valid until the next one is asked for.
    """

    def __init__(self, questions: Questions, order: Iterable[Rows], *, prefetch: int) -> None:
        self.waited_s = 0.0
        self._questions = questions
        self._order = order
        self._prefetch = prefetch
        self._free: SimpleQueue[NDArray[Any] | None] = SimpleQueue()
        self._ready: SimpleQueue[tuple[Batch, NDArray[Any]] | BaseException] = SimpleQueue()
        self._held: NDArray[Any] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_ahead, name="trar-loader", daemon=True)

    def __enter__(self) -> BatchStream:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._free.put(None)
        self._thread.join()

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        if self._stopped.is_set():
            raise StopIteration
        if self._held is not None:
            self._free.put(self._held)
            self._held = None
        started = time.perf_counter()
        item = self._ready.get()
        self.waited_s += time.perf_counter() - started
        if isinstance(item, BaseException):
            self._stopped.set()
            raise item
        batch, self._held = item
        return batch

    def _read_ahead(self) -> None:
        made = 0
        try:
            for rows in self._order:
                # prefetch buffers wait or are being filled, one more is in the caller's hands
                if made <= self._prefetch:
                    buffer = self._questions.buffer(len(rows))
                    made += 1
                else:
                    taken = self._free.get()
                    if taken is None:
                        return
                    buffer = taken
                if self._stopped.is_set():
                    return
                if len(buffer) < len(rows):
                    buffer = self._questions.buffer(len(rows))
                self._ready.put((self._questions.batch(rows, buffer), buffer))
            self._ready.put(StopIteration())
        except BaseException as error:  # handed over: the caller's thread raises it
            self._ready.put(error)


def _join_tokens(parts: Sequence[Ragged]) -> Ragged:
    return Ragged(
        np.concatenate([part.ids for part in parts]),
        _join_offsets([part.offsets for part in parts]),
    )


def _join_targets(parts: Sequence[SparseTargets]) -> SparseTargets | None:
    if not parts:
        return None
    return SparseTargets(
        _join_offsets([part.offsets for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


def _join_offsets(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([[0], np.cumsum(lengths)])
