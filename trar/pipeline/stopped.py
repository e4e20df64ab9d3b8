"""What a prepare that was stopped has left behind: finished, or cleared away."""

from __future__ import annotations

from pathlib import Path

from trar.features.place import place_of
from trar.features.remake import drop_unlisted, is_ready, move_in, remake_folder
from trar.features.schema import WORK_FOLDER, StoreMeta
from trar.features.writer import StoreWriter
from trar.pipeline.plan import Plan


def complete_remake(folder: Path) -> None:
    """Move in what a prepare had made anew when it was stopped during the move."""
    if is_ready(folder):
        with StoreWriter(folder):
            move_in(folder)


def tidy(plan: Plan, done: StoreMeta) -> None:
    """Drop what a stopped prepare left that no later one can use: parts made anew from raw files
    that are again those of the store, and receipts of shards that are in it."""
    if not (plan.folder / WORK_FOLDER).exists():
        return
    with StoreWriter(plan.folder, plan.container):
        work = place_of(plan.folder / WORK_FOLDER)
        work.remove_folder(remake_folder(plan.folder).name)
        receipts = [name for name in work.sizes() if _is_receipt(name, done)]
        work.remove(receipts)
        if not work.sizes():
            drop_unlisted(plan.folder, done.files)
            place_of(plan.folder).remove_folder(WORK_FOLDER)


def _is_receipt(name: str, done: StoreMeta) -> bool:
    """Whether a file of the work folder is the receipt of a shard of these image splits."""
    split, _, number = name.removesuffix(".json").rpartition("-")
    return split in done.image_splits and number.isdecimal() and name.endswith(".json")
