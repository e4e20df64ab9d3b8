"""Results come in the order of steps, in no more slots than there are; an error comes at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trar.trainer.ring import Ring


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "trar-loader"]


@settings(max_examples=30, deadline=None)
@given(
    begin=st.integers(0, 5),
    steps=st.integers(0, 30),
    slots=st.integers(1, 6),
    threads=st.integers(0, 6),
    slow=st.sets(st.integers(0, 30)),
)
def test_every_step_comes_once_in_order_whatever_the_threads_do(
    begin: int, steps: int, slots: int, threads: int, slow: set[int]
) -> None:
    in_use: set[int] = set()

    def fill(step: int, slot: int) -> tuple[int, int]:
        assert slot not in in_use, "a slot is filled while it is filled or held"
        in_use.add(slot)
        if step in slow:
            threading.Event().wait(0.001)
        return step, slot

    with Ring(fill, range(begin, begin + steps), list(range(slots)), threads) as ring:
        seen = []
        for step, slot in ring:
            seen.append(step)
            in_use.remove(slot)
    assert seen == list(range(begin, begin + steps))
    assert not loader_threads()


def test_an_error_is_raised_before_the_steps_that_come_first() -> None:
    go_on = threading.Event()

    def fill(step: int, slot: int) -> int:
        if step == 3:
            go_on.wait(30)
            raise OSError("the disk is gone")
        return step

    with Ring(fill, range(100), list(range(8)), 1) as ring:
        assert next(ring) == 0
        go_on.set()
        while loader_threads():  # it ends with its error
            threading.Event().wait(0.001)
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                next(ring)
    assert not loader_threads()


def test_an_error_wakes_a_caller_who_waits_for_another_step() -> None:
    go_on = threading.Event()

    def fill(step: int, slot: int) -> int:
        if step == 0:
            go_on.wait(30)
        else:
            raise OSError("the disk is gone")
        return step

    with Ring(fill, range(2), [0, 1], 2) as ring:
        with pytest.raises(OSError, match="the disk is gone"):
            next(ring)
        go_on.set()


def test_ctrl_c_ends_the_wait_of_the_caller() -> None:
    go_on = threading.Event()

    def fill(step: int, slot: int) -> int:
        go_on.wait(30)
        return step

    def stopped() -> None:
        with Ring(fill, range(9), [0, 1], 2) as ring:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                next(ring)
            finally:
                go_on.set()

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not loader_threads()
