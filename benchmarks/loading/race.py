"""One interleaved run: in every round each contender has a turn, memory copying before and after.

A turn is a number of whole batches that takes about as long for everyone. Ratios are taken within
a round, so that what else the machine does falls on both sides, and the median over rounds is told.
Ratios of processor time stand beside them: they hold on a busy machine, but leave out waiting.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loading.contender import Contender, Delivered
from loading.data import BATCH, Place, RandomBatches

_FEWEST_BATCHES = 3


class Speed(NamedTuple):
    """Images a second of time, and of this process's processor time."""

    wall: float
    cpu: float


@dataclass
class Result:
    """``rates`` of each round, ``limits``: what memory copying reached around it; or ``skipped``:
    why there are none."""

    contender: Contender
    rates: list[Speed] = field(default_factory=list)
    limits: list[Speed] = field(default_factory=list)
    skipped: str | None = None

    @property
    def images_per_s(self) -> float:
        """The median of the rounds."""
        return statistics.median(one.wall for one in self.rates)

    @property
    def of_limit(self) -> Speed:
        """The median share of what memory copying reached in the same moment."""
        return _median_ratio(self.rates, self.limits)

    def over(self, other: Result) -> Speed:
        """The median over rounds of this one's rate over the other's."""
        return _median_ratio(self.rates, other.rates)


def _median_ratio(over: Sequence[Speed], under: Sequence[Speed]) -> Speed:
    pairs = list(zip(over, under, strict=True))
    return Speed(
        statistics.median(a.wall / b.wall for a, b in pairs),
        statistics.median(a.cpu / b.cpu for a, b in pairs),
    )


def _mean(speeds: Sequence[Speed]) -> Speed:
    return Speed(*(statistics.mean(one) for one in zip(*speeds, strict=True)))


def race(
    place: Place,
    contenders: Sequence[Contender],
    left_out: Mapping[str, str | None],
    rounds: int,
    turn_s: float,
    say: Callable[[str], None],
) -> list[Result]:
    """Results of all contenders in their order; the first is the limit. ``left_out`` says by name
    why one does not take part.

    Raises:
        SystemExit: a contender delivered other values than were generated.
    """
    results = [Result(one, skipped=left_out.get(one.name)) for one in contenders]
    # worker processes are forked, so they are started while there are no threads
    runners = {
        id(result): _Runner(place, result.contender, turn_s)
        for result in sorted(results, key=lambda one: not one.contender.processes)
        if not result.skipped
    }
    limit, *others = [one for one in results if id(one) in runners]
    copy = runners[id(limit)].turn
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        copied = [copy()]
        for result in others[:: 1 if number % 2 else -1]:
            result.rates.append(runners[id(result)].turn())
            copied.append(copy())
            result.limits.append(_mean(copied[-2:]))
        limit.rates.append(_mean(copied))
        limit.limits.append(limit.rates[-1])
    for runner in runners.values():
        runner.close()
    return results


class _Runner:
    """A contender that is open and warm; its first batches are compared with the images."""

    def __init__(self, place: Place, contender: Contender, turn_s: float) -> None:
        self._contender = contender
        order = RandomBatches(len(place.images))
        self._stream = contender.open(place, order)
        for _ in range(2):
            check(place, contender, next(self._stream))
        self._batches = _FEWEST_BATCHES + contender.ahead
        self._batches = max(_FEWEST_BATCHES, int(turn_s * self.turn().wall / BATCH))

    def turn(self) -> Speed:
        """Over the next batches; those that were made beforehand do not count."""
        for _ in range(self._contender.ahead):
            next(self._stream)
        images = BATCH * self._batches
        begin, begin_cpu = time.perf_counter(), time.process_time()
        for _ in range(self._batches):
            next(self._stream)
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
        return Speed(images / wall_s, images / cpu_s)

    def close(self) -> None:
        """Stop worker processes and threads."""
        close: Any = getattr(self._stream, "close", None)
        if close is not None:
            close()


def check(place: Place, contender: Contender, delivered: Delivered) -> None:
    """Compare a batch with the images that were generated, bit for bit.

    Raises:
        SystemExit: they differ.
    """
    rows, features = delivered
    expected = place.images[rows].astype(features.dtype)
    if features.shape != expected.shape or features.tobytes() != expected.tobytes():
        raise SystemExit(f"{contender.name} delivered other values than were generated")
