"""Windows of images in memory, for a block order: each image is read once a pass, two windows at
most are held, and the next one is read while batches are cut from this one.

The threads that cut batches read it: with each step a share of the next window, so that it is
there when its first step comes; whatever is missing then is read at once. A window is given up
when all its steps are done, and only then is the one after the next begun, in the same memory.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.features.buffers import aligned_empty
from trar.trainer.block_order import Window
from trar.trainer.question_batches import Questions
from trar.trainer.sampler import Rows
from trar.trainer.store_images import ROW, Keys

_TASK_IMAGES = 16  # read at a time


class WindowMemory:
    """Room for the images of two windows, kept from epoch to epoch."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint8]] = []

    def reserve(self, size: int) -> None:
        """Make room for ``size`` bytes a window, while none is in use."""
        if not self._parts or len(self._parts[0]) < size:
            self._parts = []  # freed before there are new ones
            self._parts = [aligned_empty((size,), np.uint8) for _ in range(2)]

    def part(self, number: int, size: int) -> NDArray[np.uint8]:
        """``size`` bytes for window ``number``: the memory of the window two before it."""
        return self._parts[number % 2][:size]


class WindowImages:
    """The windows of one pass over ``steps`` of an epoch, for threads that cut its batches.

    ``rows(step)`` are the questions that are cut here (a rank's share), so that only their images
    are read. Every step must be asked for once, in order or nearly so.
    """

    def __init__(
        self,
        questions: Questions,
        windows: Sequence[Window],
        *,
        rows: Callable[[int], Rows],
        steps: range,
        batch_size: int,
        memory: WindowMemory,
    ) -> None:
        self._questions, self._rows, self._memory = questions, rows, memory
        memory.reserve(questions.room(max((len(window.images) for window in windows), default=0)))
        touched = [(window, _common(window.steps(batch_size), steps)) for window in windows]
        self._windows = [(window, span) for window, span in touched if span]
        self._left = [len(span) for _, span in self._windows]
        self._held: dict[int, _HeldWindow] = {}
        self._changed = threading.Condition()
        self._failed: BaseException | None = None

    @contextlib.contextmanager
    def of(self, step: int) -> Iterator[_SeveralWindows]:
        """The images of a step, all in memory while the context lasts.

        Raises:
            StoreError: an image cannot be read, whichever thread found that out.
        """
        here = [n for n, (_, span) in enumerate(self._windows) if step in span]
        try:
            for number in here:
                self._complete(number)
            yield _SeveralWindows([self._held[number] for number in here])
            with self._changed:
                for number in here:
                    self._left[number] -= 1
                    if not self._left[number]:
                        del self._held[number]
                self._changed.notify_all()
            if here:
                self._read_ahead(here[-1] + 1, step)
        except BaseException as error:
            with self._changed:
                self._failed = self._failed or error
                self._changed.notify_all()
            raise

    def _complete(self, number: int) -> None:
        """Read what is missing of a window, and wait for what other threads are reading of it."""
        self._wait(lambda: self._open(number) is not None)
        held = self._held[number]
        while self._read_task(held):
            pass
        self._wait(lambda: held.complete)

    def _read_ahead(self, number: int, step: int) -> None:
        """After ``step``: this step's share of the next window, if there is room for it yet."""
        if number == len(self._windows):
            return
        with self._changed:
            held = self._open(number)
        if held is None:
            return
        begin = self._windows[number - 2][1][-1] if number >= 2 else self._windows[0][1][0] - 1
        end = self._windows[number][1][0] - 1
        due = len(held.tasks) if step >= end else len(held.tasks) * (step - begin) // (end - begin)
        while held.begun < due and self._read_task(held):
            pass

    def _open(self, number: int) -> _HeldWindow | None:
        """The window, begun if it was not, None while its memory is in use; under the lock."""
        if number not in self._held and (number < 2 or not self._left[number - 2]):
            window, span = self._windows[number]
            rows = np.concatenate([self._rows(step) for step in span])
            keys = np.intersect1d(self._questions.image_keys(rows), window.images)
            memory = self._memory.part(number, self._questions.room(len(keys)))
            self._held[number] = _HeldWindow(self._questions, keys, memory)
        return self._held.get(number)

    def _read_task(self, held: _HeldWindow) -> bool:
        """Read the next images of a window; False where none are left."""
        with self._changed:
            if held.begun == len(held.tasks) or self._failed:
                return False
            task = held.tasks[held.begun]
            held.begun += 1
        held.read_task(task)
        with self._changed:
            held.finished += 1
            self._changed.notify_all()
        return True

    def _wait(self, until: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failed is not None or until())
            if self._failed is not None:
                raise self._failed


class _HeldWindow:
    """A window being read or in use: images ``keys`` (k,), ascending, and the tasks to read."""

    def __init__(self, questions: Questions, keys: Keys, memory: NDArray[np.uint8]) -> None:
        spec = questions.store.meta.feature
        self.keys = keys
        self.lengths = questions.image_lengths(keys) if spec.ragged else None
        self.features = memory.view(spec.dtype).reshape(len(keys), spec.rows, spec.width)
        self.begun = self.finished = 0
        bounds = np.searchsorted(keys >> 32, np.arange(len(questions.image_splits) + 1)).tolist()
        self.tasks = [
            (questions.image_splits[split], start, min(start + _TASK_IMAGES, stop))
            for split, (first, stop) in enumerate(itertools.pairwise(bounds))
            for start in range(first, stop, _TASK_IMAGES)
        ]
        self._store = questions.store

    @property
    def complete(self) -> bool:
        return self.finished == len(self.tasks)

    def read_task(self, task: tuple[str, int, int]) -> None:
        split, start, stop = task
        self._store.read(split, self.keys[start:stop] & ROW, self.features[start:stop])


class _SeveralWindows:
    """The images of the windows that a batch touches."""

    def __init__(self, held: Sequence[_HeldWindow]) -> None:
        self._held = held

    def read(self, keys: Keys, out: NDArray[Any]) -> None:
        """See ``store_images.Images``."""
        for held in self._held:
            place = np.minimum(np.searchsorted(held.keys, keys), len(held.keys) - 1)
            here = np.flatnonzero(held.keys[place] == keys) if len(held.keys) else place
            if len(here) == len(keys) and held.lengths is None:
                # the places are valid, and mode="raise" would copy through another buffer
                np.take(held.features, place, axis=0, out=out, mode="clip")
                return
            for question in here.tolist():
                length = out.shape[1] if held.lengths is None else held.lengths[place[question]]
                out[question, :length] = held.features[place[question], :length]
                out[question, length:] = 0


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))
