"""Compares a plan with the store that is there: what is new, what is kept, what does not fit."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from trar.errors import StoreError
from trar.features.containers import open_backend
from trar.features.schema import LOG_FILE, StoreMeta
from trar.features.shard_writer import Receipt
from trar.fileio import disk_errors, sha256_file, sha256_json
from trar.pipeline.image_plan import ImagePlan
from trar.pipeline.plan import Plan


@dataclass(frozen=True)
class Changes:
    """``splits`` and ``images`` to write; ``sources`` are digests of the raw features per shard,
    ``provenance`` of the raw question files per split; ``log`` is the earlier prepare-log.

    ``remade_splits`` and ``remade_images`` are those that the store has already, made from raw
    files that have changed since; ``kept`` are the shards of these that have not, by number.
    """

    splits: list[str]
    images: list[str]
    sources: dict[str, list[str]]
    provenance: dict[str, Any]
    log: dict[str, Any]
    remade_splits: tuple[str, ...] = ()
    remade_images: tuple[str, ...] = ()
    kept: dict[str, dict[int, Receipt]] = field(default_factory=dict)


def find_changes(plan: Plan) -> Changes:
    """What of the plan the store does not have yet, or has from other raw files.

    Raises:
        StoreError: the store has a part made with another --limit or --vg-answer-weight, or
            questions of a split that is not asked for are about images that have changed.
    """
    old, log = plan.existing, _read_log(plan)
    provenance = {split: _provenance(plan, split) for split in plan.splits}
    sources = {name: _sources(plan, one) for name, one in plan.images.items()}
    if old is None:
        return Changes(plan.splits, list(plan.images), sources, provenance, {})
    new_splits = [split for split in plan.splits if split not in old.question_splits]
    new_images = [name for name in plan.images if name not in old.image_splits]
    moved = {name for name in plan.images if _has_other_rows(plan, old, name)}
    other_images = [
        name
        for name in plan.images
        if name in moved
        or (name in old.image_splits and log["sources"].get(name, sources[name]) != sources[name])
    ]
    skipped = old.provenance.get("skipped", {})
    rejoined = {
        name
        for name in other_images  # questions may be about other rows, or fewer
        if name in moved or name in skipped or plan.config.on_bad_image == "skip"
    }
    other_splits = []
    for split in plan.splits:
        before = old.provenance["splits"].get(split)
        if before is not None and before != provenance[split]:
            _refuse_other_options(plan, split, before, provenance[split])
            other_splits.append(split)
        elif split in old.question_splits and rejoined & {*plan.source.image_splits(split)}:
            other_splits.append(split)
    _refuse_lost_joins(plan, old, rejoined)
    return Changes(
        new_splits + other_splits,
        new_images + other_images,
        sources,
        provenance,
        log,
        tuple(other_splits),
        tuple(other_images),
        {name: _unchanged(plan, old, log, name, sources[name]) for name in other_images},
    )


def _has_other_rows(plan: Plan, old: StoreMeta, name: str) -> bool:
    """Whether an image split that the store has holds other images now."""
    if name not in old.image_splits:
        return False
    backend = open_backend(plan.folder, old.container)
    table = backend.read_images_table(name, old.feature)
    plans = plan.images[name]
    same = np.array_equal(table.ids, plans.images.ids)
    if same and plans.offsets is not None:
        assert table.offsets is not None
        return not np.array_equal(table.offsets, plans.offsets)
    return not same


def _refuse_lost_joins(plan: Plan, old: StoreMeta, images: set[str]) -> None:
    for split, entry in old.question_splits.items():
        if split not in plan.splits and images & {*entry.image_splits}:
            together = "+".join([*plan.splits, split])
            raise StoreError(
                f"{plan.folder}: {' and '.join(sorted(images))} has other images than when this "
                f"store was made, and the questions of {split} refer to it; prepare them together: "
                f"--split {together}"
            )


def _unchanged(
    plan: Plan, old: StoreMeta, log: dict[str, Any], name: str, now: list[str]
) -> dict[int, Receipt]:
    """The shards of a changed image split whose raw files have not changed, as they were noted."""
    before, noted = log["sources"].get(name, []), log["shards"].get(name, [])
    receipts = {}
    for part, digest in zip(plan.images[name].parts(plan.spec), now, strict=True):
        number = part.shard
        if number >= len(before) or number >= len(noted) or before[number] != digest:
            continue
        try:
            receipt = msgspec.convert(noted[number], Receipt, strict=False)
        except msgspec.ValidationError:
            continue
        if all(old.files.get(file) == entry for file, entry in receipt.files.items()):
            receipts[number] = receipt
    return receipts


def _sources(plan: Plan, images: ImagePlan) -> list[str]:
    """What each shard is made from: its raw files, and the form that they are brought into."""
    form = [len(images.images), images.shard_images, msgspec.to_builtins(plan.spec)]
    if plan.form.keep_portrait:
        form.append("portrait")
    return [
        sha256_json([part.images.fingerprint(), part.skip_rows, part.flat_rows, *form])
        for part in images.parts(plan.spec)
    ]


@functools.lru_cache
def _file_digest(path: Path, size_bytes: int, moment_ns: int) -> str:
    """Once for all splits that stand in one file: CLEVR's zip has 19 GB."""
    return sha256_file(path)


def _provenance(plan: Plan, split: str) -> dict[str, Any]:
    files = {}
    for name, path in plan.source.files(split).items():
        stat = path.stat()
        digest = _file_digest(path, stat.st_size, stat.st_mtime_ns)
        files[name] = {"bytes": stat.st_size, "sha256": digest}
    weight = {"answer_weight": "one"} if plan.weight_one(plan.source.source_of(split)) else {}
    return {"files": files, "limit": plan.config.limit, **weight}


def _refuse_other_options(
    plan: Plan, split: str, before: dict[str, Any], now: dict[str, Any]
) -> None:
    how = None
    if before["limit"] != now["limit"]:
        how = f"--limit {before['limit']} then, {now['limit']} now"
    elif before.get("answer_weight") != now.get("answer_weight"):
        how = "another --vg-answer-weight then"
    if how is not None:
        raise StoreError(
            f"{plan.folder}: this store already has question split {split}, made with other "
            f"options ({how}); prepare into another --store, or delete {plan.folder} and prepare "
            "it anew"
        )


def _read_log(plan: Plan) -> dict[str, Any]:
    path = plan.folder / LOG_FILE
    try:
        with disk_errors(path):
            log = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        log = {}  # a lost log costs the comparison, never the store
    return {
        "runs": log.get("runs", []),
        "sources": log.get("sources", {}),
        "shards": log.get("shards", {}),
    }
