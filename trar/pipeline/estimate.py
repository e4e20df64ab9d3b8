"""What a prepare would do, without doing it: files, bytes, space and time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from trar.errors import RawDataError
from trar.features.place import is_remote
from trar.fileio import free_bytes
from trar.pipeline.changes import Changes, find_changes
from trar.pipeline.config import PrepareConfig
from trar.pipeline.engine import ShardTask
from trar.pipeline.plan import Plan, make_plan
from trar.pipeline.shard_work import needed_bytes, shard_work
from trar.pipeline.transforms import prepare_image

_TIMED_IMAGES = 24
_QUESTIONS_PER_S = 40_000  # parsing, tokens and targets; measured on one 2020s core


@dataclass(frozen=True)
class Estimate:
    """``questions`` and ``images`` per split that would be made; ``reads`` are question files
    with their bytes; ``free_bytes`` None: a place without a limit; ``seconds`` is extrapolated from
    a few images read now, None if none; ``added`` are word pieces and targets that all splits of a
    finished store would get."""

    folder: Path
    features: str
    questions: dict[str, int]
    images: dict[str, int]
    kept: list[str]
    reads: dict[str, int]
    finished_shards: int
    shards: int
    write_bytes: int
    free_bytes: int | None
    seconds: float | None
    warnings: list[str]
    added: list[str]


def estimate(config: PrepareConfig) -> Estimate:
    """Plan a prepare, join its questions with its images, and time a few of them.

    Nothing is written.

    Raises:
        TrarError: whatever ``prepare`` would refuse before its first byte.
    """
    plan = make_plan(config)
    changes = find_changes(plan)
    finished, tasks = shard_work(plan, changes)
    processes = min(len(tasks), os.cpu_count() or 1 if config.workers is None else config.workers)
    seconds = _seconds(plan, tasks, max(1, processes))
    questions = {split: len(plan.questions[split].questions) for split in changes.splits}
    if seconds is not None:
        seconds += sum(questions.values()) / _QUESTIONS_PER_S
    return Estimate(
        plan.folder,
        plan.spec.describe(),
        questions,
        {name: len(plan.images[name].images) for name in changes.images},
        [split for split in plan.splits if split not in changes.splits],
        _reads(plan, changes),
        len(finished),
        len(finished) + len(tasks),
        needed_bytes(plan, tasks) if changes.splits or plan.to_add else 0,
        None if is_remote(plan.folder) else free_bytes(plan.folder),
        seconds,
        [note for one in plan.questions.values() for note in one.questions.notes],
        plan.to_add.names(),
    )


def _reads(plan: Plan, changes: Changes) -> dict[str, int]:
    return {
        str(path): path.stat().st_size
        for split in changes.splits
        for path in plan.source.files(split).values()
    }


def _seconds(plan: Plan, tasks: list[ShardTask], processes: int) -> float | None:
    """From images spread over all shards, read as ``prepare`` reads them."""
    images = sum(len(task.images) for task in tasks)
    timed, spent = 0, 0.0
    for task in tasks[:: max(1, len(tasks) // _TIMED_IMAGES)]:
        begin = time.perf_counter()
        try:
            prepare_image(task.images.read(0), plan.form, plan.spec, task.images.name(0))
        except RawDataError:
            continue
        spent += time.perf_counter() - begin
        timed += 1
    return spent / timed * images / processes if timed else None
