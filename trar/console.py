"""How the command line shows long work and tables: a live bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from trar.trainer.progress import Progress as Told

_LINE_EVERY_S = 60.0


class WorkProgress:
    """Shows ``(stage, done, total)`` calls with rate and time left.

    On a terminal a bar that redraws itself; elsewhere one line a minute, so that a log stays short.
    """

    def __init__(self, unit: str = "", check: Callable[[], None] = lambda: None) -> None:
        self.unit = unit
        self._check = check  # called each time, to end the work
        self._bar: Progress | None = None
        self._tasks: dict[str, int] = {}
        self._begin: dict[str, float] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> WorkProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._check()
        now = time.monotonic()
        begin = self._begin.setdefault(stage, now)
        rate = done / (now - begin) if now > begin else 0.0
        text = f"{rate:,.0f} {self.unit}/s" if rate and self.unit else ""
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total, rate="")
            self._bar.update(self._tasks[stage], completed=done, total=total, rate=text)  # type: ignore[arg-type]
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            left = f", {duration((total - done) / rate)} left" if rate else ""
            click.echo(f"{stage}: {done:,} of {total:,} {text}{left}", err=True)


class TrainingProgress:
    """Shows a run's ``Progress``: a live line on a terminal, a line a minute elsewhere, and one
    line that stays for every epoch."""

    def __init__(self, quiet: bool = False, check: Callable[[], None] = lambda: None) -> None:
        self.quiet = quiet
        self._check = check  # called each time, to end the work
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = time.monotonic()
        self._epoch: Told | None = None

    def __enter__(self) -> TrainingProgress:
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.progress import MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(  # no bar: the counts say it, and all fits in 80 columns
                TextColumn("{task.description}"),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task("", facts="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, told: Told) -> None:
        self._check()
        if self.quiet:
            return
        if told.stage == "note":
            self._say(f"Note: {told.note}")
        elif told.stage == "epoch":
            self._say(_epoch_line(told, self._epoch))
        else:
            if told.stage == "train":
                self._epoch = told
            self._live(told)

    def _live(self, told: Told) -> None:
        facts = _facts(told)
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=f"{told.stage} {told.epoch}/{told.epochs}",
                completed=told.step,
                total=told.steps,
                facts=facts,
            )
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            click.echo(
                f"epoch {told.epoch}/{told.epochs} {told.stage} {told.step}/{told.steps} {facts}",
                err=True,
            )

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=True)


def _facts(told: Told) -> str:
    if told.stage != "train":
        return ""
    loss = "" if told.loss is None else f"loss {told.loss:.2f} "
    tau = f"tau {told.temperature:.3g} " if told.temperature else ""
    return (
        f"{loss}lr {told.learning_rate:.0e} {tau}"
        f"{told.samples_per_s:,.0f}/s wait {100 * told.data_wait_share:.0f} % "
        f"left {duration(told.eta_s)}"
    )


def _epoch_line(told: Told, last: Told | None) -> str:
    parts = [f"epoch {told.epoch}/{told.epochs}: loss {told.loss or 0:.4f}"]
    if last is not None:
        parts.append(f"{last.samples_per_s:,.0f} samples/s")
        parts.append(f"data wait {100 * last.data_wait_share:.1f} %")
    if told.scores is not None:
        parts.append(told.scores.summary())
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: ``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> str:
    """Columns aligned by blanks; every column after the first is right-aligned if numeric."""
    everything = [header, *rows] if header else rows
    widths = [max(len(row[column]) for row in everything) for column in range(len(rows[0]))]
    numeric = [
        all(row[column][:1].isdigit() or not row[column] for row in rows)
        for column in range(len(rows[0]))
    ]
    lines = []
    for row in everything:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
