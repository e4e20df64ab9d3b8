"""Streams batches from a feature store to the training loop, on one device, for one rank.

Threads fill a ring of reused buffers ahead of the loop. What the model sees depends on the order
alone: not on threads, on how far they are ahead, or, batch by batch over all ranks, on the number
of ranks. The threads do no arithmetic in torch: a thread has its own pool of torch threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from trar.errors import CheckpointError
from trar.features.buffers import aligned_empty
from trar.trainer.batch import Batch
from trar.trainer.block_order import Window
from trar.trainer.memory_bound import MemoryBound, memory_bound
from trar.trainer.orders import Position
from trar.trainer.question_batches import Questions
from trar.trainer.ring import Ring
from trar.trainer.sampler import Rows, rank_part
from trar.trainer.window_images import WindowImages, WindowMemory

__all__ = ["BatchStream", "Batches", "InOrder", "Loader", "Questions"]


class Batches(Protocol):
    """The global batches of every epoch; ``orders.Order``, or ``InOrder``."""

    seed: int
    steps: int
    batch_size: int
    questions: int  # of an epoch

    def rows(self, epoch: int, step: int) -> Rows: ...
    def windows(self, epoch: int) -> Sequence[Window]: ...


class InOrder:
    """Every question once, first to last, as for scoring."""

    seed = 0

    def __init__(self, questions: int, batch_size: int) -> None:
        self.questions, self.batch_size = questions, batch_size
        self.steps = -(-questions // batch_size)

    def rows(self, epoch: int, step: int) -> Rows:
        start = step * self.batch_size
        return np.arange(start, min(start + self.batch_size, self.questions))

    def windows(self, epoch: int) -> Sequence[Window]:
        return ()


@dataclass(eq=False)
class _Slot:
    """Memory for the features of a batch; ``copied`` is reached when it may be filled again."""

    memory: NDArray[np.uint8]
    copied: torch.cuda.Event | None = None


class Loader:
    """Feeds rank ``rank`` of ``ranks`` with its share of every global batch of ``order``.

    ``threads`` (0: the caller reads, when it asks) fill up to ``prefetch`` batches ahead, in
    page-locked memory where ``device`` is a GPU. Where it stands is three integers, ``position``,
    which counts a step when its batch is handed out; ``load_state_dict`` goes on there at once,
    whatever the threads or ranks were before.

        while loader.position.epoch < epochs:
            with loader.stream() as stream:     # the rest of this epoch
                for batch in stream: …
    """

    def __init__(
        self,
        questions: Questions,
        order: Batches,
        *,
        threads: int = 1,
        prefetch: int = 4,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.questions, self.order = questions, order
        self.rank, self.ranks = rank, ranks
        self.device = torch.device(device)
        self.position = Position(order.seed)
        self.buffers = 1 + (prefetch if threads else 0)
        self.threads = min(threads, self.buffers)
        self._slots: list[_Slot] = []
        self._windows = WindowMemory()

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return self.order.steps

    def state_dict(self) -> dict[str, int]:
        """The position, for a checkpoint."""
        return self.position.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was.

        Raises:
            CheckpointError: no position, or none of this order.
        """
        self.position = position_in(self.order, state)

    def rows(self, epoch: int, step: int) -> Rows:
        """This rank's questions of a step."""
        return rank_part(self.order.rows(epoch, step), self.rank, self.ranks)

    def stream(self, epoch: int | None = None, step: int = 0) -> BatchStream:
        """The batches from the position, or from ``step`` of ``epoch``, to the end of that epoch.

        One stream at a time: they fill the same buffers.
        """
        if epoch is not None:
            self.position = Position(self.position.seed, epoch, step)
        if not self._slots:
            size = self.questions.room(-(-self.order.batch_size // self.ranks))
            self._slots = [_Slot(_memory(size, self.device)) for _ in range(self.buffers)]
        return BatchStream(self, self._slots, self._windows)

    def memory_bound(self) -> MemoryBound:
        """What this loader holds at most; the same figures as before it was made."""
        largest = max(
            (len(one.images) for one in self.order.windows(self.position.epoch)), default=0
        )
        return memory_bound(
            self.questions.store.meta,
            questions=len(self.questions),
            batch_size=-(-self.order.batch_size // self.ranks),
            buffers=self.buffers,
            threads=self.threads,
            window_bytes=self.questions.room(largest),
        )


class BatchStream(Ring[_Slot, Batch]):
    """Iterates over batches, on the loader's device, features in the store's dtype.

    A context manager: leaving it, for whatever reason, ends the threads. An error of a thread is
    raised by the next call, as it is. A batch is valid until the next one is asked for: its buffer
    is filled again then. ``waited_s`` is how long the caller has waited for batches so far.
    """

    def __init__(self, loader: Loader, slots: Sequence[_Slot], memory: WindowMemory) -> None:
        self._loader, self._epoch = loader, loader.position.epoch
        order, steps = loader.order, range(loader.position.step, loader.steps)
        windows = order.windows(self._epoch)
        self._windows: WindowImages | None = None
        if windows:
            self._windows = WindowImages(
                loader.questions,
                windows,
                rows=lambda step: loader.rows(self._epoch, step),
                steps=steps,
                batch_size=order.batch_size,
                memory=memory,
            )
        super().__init__(self._cut, steps, slots, loader.threads)

    def __next__(self) -> Batch:
        batch, loader = super().__next__(), self._loader
        if loader.device.type == "cuda":
            assert self._held is not None
            batch = batch.copied_to(loader.device)
            self._held.copied = torch.cuda.current_stream(loader.device).record_event()
        loader.position = position_after(loader.position, 1, loader.steps)
        return batch

    def _cut(self, step: int, slot: _Slot) -> Batch:
        if slot.copied is not None:
            slot.copied.synchronize()
        rows, questions = self._loader.rows(self._epoch, step), self._loader.questions
        if self._windows is None:
            return questions.batch(rows, slot.memory)
        with self._windows.of(step) as images:
            return questions.batch(rows, slot.memory, images)


def position_in(order: Batches, state: Mapping[str, Any]) -> Position:
    """What a ``state_dict`` says, checked against the order that goes on from there.

    Raises:
        CheckpointError: no position, one in the order of another seed, or beyond an epoch's end.
    """
    position = Position.from_state(state)
    if position.seed != order.seed or position.step >= order.steps:
        raise CheckpointError(
            f"the position is step {position.step} in the order of seed {position.seed}, this "
            f"order has seed {order.seed} and {order.steps} steps an epoch: it would repeat and "
            "skip questions; go on with the questions and the seed that the run began with"
        )
    return position


def position_after(position: Position, batches: int, steps: int) -> Position:
    """So many batches on, in epochs of ``steps``."""
    epochs, step = divmod(position.step + batches, steps)
    return Position(position.seed, position.epoch + epochs, step)


def _memory(size: int, device: torch.device) -> NDArray[np.uint8]:
    """``size`` bytes; page-locked where a GPU is to copy from them."""
    if device.type != "cuda":
        return aligned_empty((size,), np.uint8)  # in huge pages, which torch does not ask for
    pinned: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return pinned
