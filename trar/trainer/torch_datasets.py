"""The store as data sets for torch's own ``DataLoader``, for loops that are built around it.

    batches = StoreBatches("features", "train", batch_size=64, seed=1)
    for epoch in range(13):
        batches.set_epoch(epoch)
        for batch in DataLoader(batches, batch_size=None, num_workers=4): …

    samples = StoreDataset("features", "train")
    DataLoader(samples, batch_size=64, shuffle=True, num_workers=4, collate_fn=samples.collate)

Both work in worker processes however those are started, also where the parent has read from the
store before. They cost a copy of every batch between processes: ``loader.Loader`` does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.batch import Batch
from trar.trainer.config import DEFAULT_SEED, split_names
from trar.trainer.loader import position_after, position_in
from trar.trainer.orders import OrderSettings, Position, make_order
from trar.trainer.question_batches import Questions
from trar.trainer.question_index import QuestionIndex
from trar.trainer.sampler import rank_part


class StoreDataset(Dataset[Batch]):
    """Every question of ``split`` (a sum such as ``train+vg``), by its number; a sample is a batch
    of one question. Many are asked for at once, which reads each image once: pass ``collate`` to
    the ``DataLoader``, as what it gets is a batch already.

    Raises:
        StoreError: a split that the store does not have.
    """

    def __init__(
        self, store: FeatureStore | Path | str, split: str, *, max_tokens: int | None = None
    ) -> None:
        self._questions = _questions(store, split, max_tokens)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these questions, in memory of its own; torch's ``DataLoader`` asks so.

        Raises:
            IndexError: no such question.
            StoreError: an image that does not match its checksum, or cannot be read.
        """
        rows = np.asarray(indices, np.int64)
        if len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"question {rows.min()}..{rows.max()} of {len(self)}")
        return self._questions.batch(rows % len(self))

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """What ``__getitems__`` gave, for ``DataLoader(collate_fn=…)``."""
        return batch


class StoreBatches(IterableDataset[Batch]):
    """The batches of rank ``rank`` of ``ranks``, in the order of ``settings``: the same ones in the
    same order for any number of worker processes, and over all ranks for any number of those.

    A pass gives what is left of the epoch: all of it after ``set_epoch``, the rest of it after
    ``load_state_dict``. Workers must not outlive a pass (``persistent_workers=False``).

    Raises:
        StoreError: a split that the store does not have.
        ConfigError: settings that do not fit the store.
    """

    def __init__(
        self,
        store: FeatureStore | Path | str,
        split: str,
        *,
        batch_size: int,
        seed: int = DEFAULT_SEED,
        settings: OrderSettings | None = None,
        max_tokens: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        settings = settings or OrderSettings()
        self._questions = _questions(store, split, max_tokens)
        index = QuestionIndex.from_store(
            self._questions.store, split_names(split), settings.selection.columns
        )
        self._order = make_order(settings, seed=seed, batch_size=batch_size, questions=index)
        self._rank, self._ranks = rank, ranks
        self._position = Position(seed)
        self._passed_in = 0  # the process of the last pass

    def __len__(self) -> int:
        return self._order.steps - self._position.step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is not None and self._passed_in == os.getpid():
            raise ConfigError(
                "a worker process was kept for a second pass, where set_epoch does not reach it; "
                "make the DataLoader with persistent_workers=False"
            )
        self._passed_in = os.getpid()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch = self._position.epoch
        # the DataLoader takes a batch of each worker in turn
        for step in range(self._position.step + number, self._order.steps, workers):
            rows = rank_part(self._order.rows(epoch, step), self._rank, self._ranks)
            yield self._questions.batch(rows)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its first step."""
        self._position = Position(self._position.seed, epoch)

    def state_dict(self, batches: int = 0) -> dict[str, int]:
        """The position after ``batches`` batches of this pass: seed, epoch and step."""
        return position_after(self._position, batches, self._order.steps).state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass begin where another one was; the number of workers and ranks may
        differ from then.

        Raises:
            CheckpointError: no position, or none of this order.
        """
        self._position = position_in(self._order, state)


def _questions(store: FeatureStore | Path | str, split: str, max_tokens: int | None) -> Questions:
    opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
    names = split_names(split)
    known = opened.meta.question_splits
    return Questions(
        opened,
        names,
        max_tokens=max_tokens or opened.longest_question,
        targets=all(name in known and known[name].answered for name in names),
    )
