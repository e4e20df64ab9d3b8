"""What is left to write of a plan, and how much room it takes."""

from __future__ import annotations

import os

import numpy as np

from trar.features.place import place_of
from trar.features.shard_writer import Receipt, ShardPlace, finished_shard
from trar.pipeline.changes import Changes
from trar.pipeline.engine import ShardTask
from trar.pipeline.image_plan import ImagePart, ImagePlan
from trar.pipeline.plan import Plan

_TABLE_BYTES_PER_QUESTION = 1000  # texts, tokens, ten answers and targets; VQA-v2 needs about 400


def shard_work(plan: Plan, changes: Changes) -> tuple[dict[ShardPlace, Receipt], list[ShardTask]]:
    """What an earlier, stopped run finished, and what is left to do."""
    wanted = [
        (plan.images[name], part, plan.place(name, part), sources)
        for name in changes.images
        for part, sources in zip(
            plan.images[name].parts(plan.spec), changes.sources[name], strict=True
        )
    ]

    def look(one: tuple[ImagePlan, ImagePart, ShardPlace, str]) -> Receipt | None:
        images, part, place, sources = one
        kept = changes.kept.get(images.split, {}).get(part.shard)
        return kept or finished_shard(place, sources)

    finished, tasks = {}, []
    receipts = place_of(plan.folder).each(look, wanted)
    for (images, part, place, sources), receipt in zip(wanted, receipts, strict=True):
        if receipt is None or (receipt.skipped and plan.config.on_bad_image == "error"):
            tasks.append(_task(plan, images, part, place, sources))
        else:
            finished[place] = receipt
    return finished, tasks


def needed_bytes(plan: Plan, tasks: list[ShardTask]) -> int:
    """An upper bound of what is left to write."""
    chunks = sum(_chunks(task) for task in tasks)
    questions = sum(len(one.questions) for one in plan.questions.values())
    if plan.existing is not None and plan.to_add:
        questions += sum(one.questions for one in plan.existing.question_splits.values())
    per_chunk = plan.spec.stored_chunk_bytes
    per_chunk += 4200 if plan.container == "hdf5" else 0  # chunks begin at multiples of 4096
    return chunks * per_chunk + questions * _TABLE_BYTES_PER_QUESTION + (1 << 20)


def in_flight_bytes(plan: Plan, tasks: list[ShardTask]) -> int:
    """An upper bound of what lies in this machine's temporary folder at a time, where the store is
    on another: one shard a process, and one table."""
    config, cores = plan.config, os.cpu_count() or 1
    processes = min(len(tasks), cores if config.workers is None else max(1, config.workers))
    shard = max((task.place.size_bytes for task in tasks), default=0)
    questions = max((len(one.questions) for one in plan.questions.values()), default=0)
    return (0 if config.scheduler else processes * shard) + questions * _TABLE_BYTES_PER_QUESTION


def needed_files(plan: Plan, tasks: list[ShardTask]) -> int:
    """Files and folders, receipts included: a shard has up to eight, a table about twenty."""
    return 10 * len(tasks) + 100 * (len(plan.images) + len(plan.questions)) + 20


def _task(
    plan: Plan, images: ImagePlan, part: ImagePart, place: ShardPlace, sources: str
) -> ShardTask:
    regions: tuple[int, ...] = ()
    if images.offsets is not None:
        first = int(np.searchsorted(images.images.ids, part.images.ids[0]))
        ends = images.offsets[first : first + len(part.images) + 1]
        regions = tuple(np.diff(ends).tolist())
    skip_bad = plan.config.on_bad_image == "skip"
    return ShardTask(place, part.images, plan.form, sources, regions, skip_bad)


def _chunks(task: ShardTask) -> int:
    spec = task.place.spec
    return -(-task.place.flat_rows // spec.chunk_rows) if spec.ragged else len(task.images)
