"""The order of questions: which rows each global step trains on, and what of it is kept in memory.

For those who read batches:

    index = QuestionIndex.from_store(store, splits, columns=settings.selection.columns)
    order = make_order(settings, seed=seed, batch_size=64, questions=index)
    rows = order.rows(epoch, step)            # the global batch, the same for any number of ranks
    mine = rank_part(rows, rank, ranks)       # trar.trainer.sampler
    for window in order.windows(epoch): …     # block order: images to hold while its steps run

``rows`` are rows of the index: questions numbered through the splits. An order holds one epoch at
a time, 4 bytes a question (and, in block order, 8 bytes an image); another epoch is worked out
when it is asked for, in a fraction of a second for a million questions, so a run goes on at any
(seed, epoch, step) without replaying anything.

In block order question positions ``window.start`` to ``window.stop`` of the epoch are about the
images of that window and no others. Windows follow each other and a batch touches two of them at
most, so two windows of features in memory are enough to cut every batch from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from trar.errors import CheckpointError, ConfigError
from trar.trainer.block_order import Window, gather_in_windows
from trar.trainer.length_buckets import sort_pools
from trar.trainer.question_index import QuestionIndex
from trar.trainer.sampler import (
    Rows,
    StoredRows,
    Stream,
    generator,
    rows_of_step,
    steps_per_epoch,
)
from trar.trainer.subsets import Selection, Subset, select

MIB = 1 << 20


@dataclass(frozen=True)
class OrderSettings:
    """``order``: "global" mixes all questions; "block" reads each image once an epoch and mixes
    inside windows of at most ``window_bytes`` of features, filled by blocks of ``block_images``
    images that stand together in the store. ``length_pool``: 0, or batches of questions of
    similar length, sorted within so many batches. ``selection``: which questions are used at all.
    """

    order: Literal["global", "block"] = "global"
    window_bytes: int = 1024 * MIB
    block_images: int = 32
    length_pool: int = 0
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True)
class Position:
    """Where a run is: ``step`` steps of ``epoch`` are done. All that an order needs to go on."""

    seed: int
    epoch: int = 0
    step: int = 0

    def state_dict(self) -> dict[str, int]:
        """Three integers, for a checkpoint."""
        return {"seed": self.seed, "epoch": self.epoch, "step": self.step}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """The reverse of ``state_dict``.

        Raises:
            CheckpointError: not three integers of these names, none of them negative.
        """
        names = ("seed", "epoch", "step")
        if state.keys() != set(names) or not all(
            type(state[name]) is int and state[name] >= 0 for name in names
        ):
            raise CheckpointError(
                f"the position of the run is {dict(state)!r}, expected seed, epoch and step as "
                "whole numbers: the checkpoint is damaged; go on from an earlier one"
            )
        return cls(*(state[name] for name in names))


class Order:
    """The global batches of every epoch: ``steps`` batches of ``batch_size`` (the last one may be
    short) with ``questions`` questions in all. Made by ``make_order``.

    Safe to call from several threads and to pickle; every answer is a function of (seed, epoch,
    step) alone.
    """

    def __init__(
        self,
        settings: OrderSettings,
        subset: Subset,
        index: QuestionIndex,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self.seed, self.batch_size = seed, batch_size
        self.questions = subset.questions
        self.steps = steps_per_epoch(subset.questions, batch_size)
        self._settings, self._subset, self._index = settings, subset, index
        self._held: _Epoch | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}

    def rows(self, epoch: int, step: int) -> Rows:
        """The global batch of a step, (<= batch_size,) int64 rows of the index."""
        assert 0 <= step < self.steps, (step, self.steps)
        return rows_of_step(self._epoch(epoch).rows, step, self.batch_size)

    def windows(self, epoch: int) -> tuple[Window, ...]:
        """The windows of an epoch in the order of use; none in global order."""
        return self._epoch(epoch).windows

    def _epoch(self, number: int) -> _Epoch:
        held = self._held  # another thread may set it at any time
        if held is None or held.number != number:
            held = self._held = self._build(number)
        return held

    def _build(self, epoch: int) -> _Epoch:
        settings, index = self._settings, self._index
        rows = self._subset.of_epoch(epoch)
        generator(Stream.ORDER, self.seed, epoch).shuffle(rows)
        windows: tuple[Window, ...] = ()
        if settings.order == "block":
            rows, windows = gather_in_windows(
                rows,
                index,
                window_images=settings.window_bytes // index.image_bytes,
                block_images=settings.block_images,
                random=generator(Stream.BLOCKS, self.seed, epoch),
            )
        if settings.length_pool:
            sort_pools(
                rows,
                index.token_length,
                batch_size=self.batch_size,
                pool_batches=settings.length_pool,
                bounds=[window.start for window in windows[1:]],
                random=generator(Stream.BUCKETS, self.seed, epoch),
            )
        return _Epoch(epoch, rows, windows)


@dataclass(frozen=True, eq=False)
class _Epoch:
    number: int
    rows: StoredRows
    windows: tuple[Window, ...]


def make_order(
    settings: OrderSettings, *, seed: int, batch_size: int, questions: QuestionIndex
) -> Order:
    """The order that ``settings`` describe over ``questions``.

    Raises:
        ConfigError: no question is left, an unknown value or split in the selection, or a window
            that is too small for two batches of images.
    """
    subset = select(questions, settings.selection, seed=seed)
    need = 2 * batch_size * questions.image_bytes  # with less a batch could touch three windows
    if settings.order == "block" and settings.window_bytes < need:
        raise ConfigError(
            f"data.window: a window of {settings.window_bytes / MIB:,.1f} MiB holds "
            f"{settings.window_bytes // questions.image_bytes:,} images of "
            f"{questions.image_bytes / 1024:,.1f} KiB, expected at least two batches of "
            f"{batch_size}; give {need / MIB:,.1f} MiB or more, or use data.order=global"
        )
    columns_done = replace(questions, labels={})  # they take memory, and have been used
    return Order(settings, subset, columns_done, seed=seed, batch_size=batch_size)
