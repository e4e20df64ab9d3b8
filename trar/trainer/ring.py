"""A ring of reused slots that threads fill and one caller empties, in order.

Nothing here knows what a slot holds. There are as many results in memory as there are slots,
whatever the threads do: one in the caller's hands, the others waiting or being filled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

Slot = TypeVar("Slot")
Item = TypeVar("Item")


class Ring(Generic[Slot, Item]):
    """Iterates over ``fill(step, slot)`` for each of ``steps``, in that order.

    Up to ``threads`` of them are made at a time, each by one thread; with 0 the caller makes them,
    when it asks. A context manager: leaving it, for whatever reason, ends the threads. An error of
    ``fill`` is raised by the next call, also where earlier steps are still to come, and by every
    call after it. An item is valid until the next one is asked for. ``waited_s`` is how long the
    caller has waited so far.
    """

    def __init__(
        self,
        fill: Callable[[int, Slot], Item],
        steps: range,
        slots: Sequence[Slot],
        threads: int,
    ) -> None:
        self.waited_s = 0.0
        self._fill = fill
        self._to_fill, self._to_give = iter(steps), iter(steps)
        self._free: SimpleQueue[Slot | None] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._done: SimpleQueue[tuple[int, Slot, Item] | BaseException] = SimpleQueue()
        self._early: dict[int, tuple[Slot, Item]] = {}
        self._held: Slot | None = None
        self._error: BaseException | None = None
        self._open = False
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name="trar-loader", daemon=True)
            for _ in range(threads)
        ]

    def __enter__(self) -> Self:
        self._open = True
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        for _ in self._threads:
            self._free.put(None)
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        if self._error is not None:
            raise self._error
        if not self._open:
            raise ValueError("this stream is not open: use it inside its `with`, once")
        if self._held is not None:
            self._free.put(self._held)
            self._held = None
        step = next(self._to_give, None)
        if step is None:
            raise StopIteration
        started = time.perf_counter()
        self._held, item = self._take(step) if self._threads else self._make(step)
        self.waited_s += time.perf_counter() - started
        return item

    def _make(self, step: int) -> tuple[Slot, Item]:
        slot = self._free.get()
        assert slot is not None
        try:
            return slot, self._fill(step, slot)
        except BaseException as error:
            self._error = error
            raise

    def _take(self, step: int) -> tuple[Slot, Item]:
        """What was made of ``step``; all that is ready is looked at, as it may be an error."""
        while True:
            try:
                done = self._done.get(block=step not in self._early)
            except Empty:
                return self._early.pop(step)
            if isinstance(done, BaseException):
                self._error = done
                raise done
            number, slot, item = done
            self._early[number] = slot, item

    def _work(self) -> None:
        try:
            while (slot := self._free.get()) is not None and self._open:
                with self._lock:  # after the slot: so the step wanted first has one
                    step = next(self._to_fill, None)
                if step is None:
                    self._free.put(slot)  # it wakes the next thread, which ends as well
                    return
                self._done.put((step, slot, self._fill(step, slot)))
        except BaseException as error:  # handed over: the caller raises it
            self._done.put(error)
