"""Makes the damaged shards of a store's images anew, and the chunk tables that point into them.

Only the images of damaged shards are read. Finished shards wait aside with their receipts until
they are taken over, so that a stopped repair goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from trar.errors import DiskError, RawDataError, TrarError
from trar.features.chunk_table import table_file, write_chunk_table
from trar.features.progress import Progress
from trar.features.row_reader import RowReader
from trar.features.shard_writer import ShardPlace, finished_shard
from trar.fileio import sha256_json
from trar.pipeline.chosen_images import ChosenImages
from trar.pipeline.engine import ShardTask, write_shard, write_shards
from trar.pipeline.image_plan import ImagePart, ImagePlan
from trar.pipeline.repair_rows import Rows, RowsRepair
from trar.pipeline.replacement import Replacement, is_of
from trar.pipeline.transforms import prepare_image


class ImageRepair:
    """The image side of one repair, but for what ``rows`` makes anew."""

    def __init__(
        self, state: Replacement, rows: RowsRepair, workers: int | None, progress: Progress
    ) -> None:
        self.state, self.meta, self.proved = state, state.meta, rows
        self.workers, self.progress = workers, progress
        self.stored = rows.stored

    def run(self) -> None:
        """Repair every image split as far as it can be.

        Raises:
            DiskError: no space or no permission.
        """
        tasks: list[tuple[ShardTask, set[str]]] = []
        for split in self.meta.image_splits:
            shards = self._damaged_shards(split)
            names = set().union(*shards.values())
            try:
                self.proved.prove(split)
            except DiskError:
                raise
            except TrarError as error:
                names |= {name for name in self.state.undecided() if is_of(name, split)}
                self.state.give_up(names, str(error))
                continue
            try:
                tasks += self._tasks(split, shards) if shards else []
            except TrarError as error:  # no raw features at all
                self.state.give_up(names, str(error))
        self._write_shards(tasks)
        for split in self.meta.image_splits:

            def resolve(split: str = split) -> None:
                write_chunk_table(self.state.aside, split, self.stored.resolve_chunks(split))

            self.state.attempt(
                [table_file(split)],
                resolve,
                lambda: "the shards that it points into are not all right",
            )

    def _damaged_shards(self, split: str) -> dict[int, set[str]]:
        spec, damaged, found = self.meta.feature, self.state.undecided(), {}
        for shard in range(max(1, self.meta.image_splits[split].shards(spec))):
            names = damaged & set(self.stored.shard_files(split, shard, spec).values())
            if names:
                found[shard] = names
        return found

    def _tasks(
        self, split: str, shards: dict[int, set[str]]
    ) -> Iterator[tuple[ShardTask, set[str]]]:
        stated, rows = self.meta.image_splits[split], self.proved.rows(split)
        images = self.proved.images(split, rows)
        plan = ImagePlan(split, images, stated.shard_images, rows.offsets)
        for part in plan.parts(self.meta.feature):
            if part.shard in shards:
                yield self._task(plan, part, rows), shards[part.shard]

    def _task(self, plan: ImagePlan, part: ImagePart, rows: Rows) -> ShardTask:
        assert isinstance(part.images, ChosenImages)
        place = ShardPlace(
            self.state.aside,
            plan.split,
            part.shard,
            plan.shard_images,
            self.meta.feature,
            self.meta.container,
            skip_rows=part.skip_rows,
            flat_rows=part.flat_rows,
        )
        regions: tuple[int, ...] = ()
        if rows.offsets is not None:
            first = int(np.searchsorted(rows.ids, part.images.ids[0]))
            regions = tuple(np.diff(rows.offsets[first : first + len(part.images) + 1]).tolist())
        sources = sha256_json([part.images.fingerprint(), part.skip_rows, part.flat_rows])
        left_out = bool(part.images.left_out.any())
        return ShardTask(place, part.images, self.proved.form(), sources, regions, left_out)

    def _write_shards(self, tasks: list[tuple[ShardTask, set[str]]]) -> None:
        todo = [task for task, _ in tasks if not finished_shard(task.place, task.sources)]
        try:
            write_shards(todo, self.workers, self.progress)
        except RawDataError:  # the others need not suffer from it
            names_of = {task.place: own for task, own in tasks}
            for task in todo:
                if not finished_shard(task.place, task.sources):
                    try:
                        write_shard(task)
                    except RawDataError as error:
                        self.state.give_up(names_of[task.place], str(error))
        for task, names in tasks:
            self.state.take_over(
                self.state.undecided() & names,
                partial(self._changed, task),
                keep=False,
            )

    def _changed(self, task: ShardTask) -> str:
        """Which raw file is not what the shard was made from, as far as that can be told."""
        images = task.images
        assert isinstance(images, ChosenImages)
        reader = RowReader(self.state.folder, self.meta, self.stored)
        ids = self.proved.rows(task.place.split).ids
        for row in np.flatnonzero(~images.left_out).tolist():
            where = images.name(row)
            try:
                new = prepare_image(images.read(row), task.form, task.place.spec, where)
            except RawDataError as error:
                return str(error)
            try:
                stored_row = np.searchsorted(ids, images.ids[row])
                old = reader.read(task.place.split, [stored_row], None)
            except (TrarError, OSError):
                continue  # damaged as well: nothing to compare with
            if not np.array_equal(old.features[0, : old.lengths[0]], new.values):
                return f"{where} has changed since; {self.state.way_out()}"
        portrait = " (or --keep-portrait was different)" if self.meta.feature.grid else ""
        return (
            f"made anew from {images.name(0)} … {images.name(len(images) - 1)} it is not what the "
            f"store had: raw files have changed since{portrait}; {self.state.way_out()}"
        )
