"""Writes image shards, in this process or in dask workers: a shard has exactly one writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trar.errors import RawDataError, TrarError
from trar.features.progress import Progress
from trar.features.shard_writer import PreparedImage, Receipt, ShardPlace, write_image_shard
from trar.pipeline.cluster import cluster_at, local_workers
from trar.pipeline.readers.image import Form, Images
from trar.pipeline.transforms import prepare_image


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: where, from which images, and the digest of these sources. ``regions``
    are the counted regions of each image where images are ragged. ``skip_bad``: an image that
    cannot be read is left out instead of ending the work."""

    place: ShardPlace
    images: Images
    form: Form
    sources: str
    regions: tuple[int, ...] = ()
    skip_bad: bool = False


def write_shard(task: ShardTask, done: Callable[[], None] = lambda: None) -> Receipt:
    """Read, check, cast and write one shard; ``done`` is called after each image."""

    def prepared() -> Iterator[PreparedImage]:
        for row in range(len(task.images)):
            yield _prepare(task, row)
            done()

    return write_image_shard(task.place, prepared(), task.sources)


def _prepare(task: ShardTask, row: int) -> PreparedImage:
    spec, where = task.place.spec, task.images.name(row)
    try:
        image = prepare_image(task.images.read(row), task.form, spec, where)
        if spec.ragged and len(image.values) != task.regions[row]:
            raise RawDataError(
                f"{where}: {len(image.values)} regions, {task.regions[row]} when this run began: "
                "the file changed meanwhile, or contradicts itself; run the same command again"
            )
    except RawDataError as error:
        if not task.skip_bad:
            raise
        rows = task.regions[row] if spec.ragged else spec.rows
        # a store says nothing of the place that it was made at
        reason = str(error).replace(where, Path(where).name)
        return PreparedImage(
            np.zeros((rows, spec.width), spec.dtype), np.zeros(rows, np.bool_), skipped=reason
        )
    return image


def write_shards(
    tasks: list[ShardTask], workers: int | None, progress: Progress, scheduler: str | None = None
) -> dict[ShardPlace, Receipt]:
    """Write every task's shard; finished ones stay whatever happens to the rest.

    ``workers`` None means one process a core; one task or one worker needs no other process.
    ``scheduler`` is the address of a dask cluster that does the work instead.

    Raises:
        TrarError: the first that any shard raised, or what is wrong with the cluster.
    """
    total = sum(len(task.images) for task in tasks)
    processes = min(len(tasks), os.cpu_count() or 1 if workers is None else workers)
    if scheduler is not None and tasks:
        with cluster_at(scheduler, tasks[0].place.folder) as client:
            return _write_in_workers(client, tasks, total, progress)
    if processes > 1:
        with local_workers(processes) as client:
            return _write_in_workers(client, tasks, total, progress)
    receipts, seen = {}, 0
    for task in tasks:

        def step() -> None:
            nonlocal seen
            seen += 1
            progress("features", seen, total)

        receipts[task.place] = write_shard(task, step)
    return receipts


def _write_in_workers(
    client: Any, tasks: list[ShardTask], total: int, progress: Progress
) -> dict[ShardPlace, Receipt]:
    from distributed import CancelledError, KilledWorker, as_completed

    receipts, seen = {}, 0
    futures = {client.submit(write_shard, task, pure=False): task for task in tasks}
    try:
        for future in as_completed(list(futures)):  # type: ignore[no-untyped-call]
            task = futures[future]
            receipts[task.place] = future.result()
            seen += len(task.images)
            progress("features", seen, total)
    except KilledWorker:
        raise TrarError(
            "a worker process died several times (out of memory?): run the same command again "
            "with fewer --workers; finished shards are kept"
        ) from None
    except (CancelledError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TrarError(
            "the connection to the dask scheduler was lost; finished shards are kept: run the same "
            "command again when it is back"
        ) from None
    return receipts
