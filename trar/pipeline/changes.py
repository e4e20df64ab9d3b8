"""Compares a plan with the store that is there: what is new, what is kept, what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from trar.errors import StoreError
from trar.features.schema import LOG_FILE
from trar.fileio import disk_errors, sha256_file, sha256_json
from trar.pipeline.plan import ImagePlan, Plan


@dataclass(frozen=True)
class Changes:
    """``splits`` and ``images`` to write; ``sources`` are digests of the raw features per shard,
    ``provenance`` of the raw question files per split; ``log`` is the earlier prepare-log."""

    splits: list[str]
    images: list[str]
    sources: dict[str, list[str]]
    provenance: dict[str, Any]
    log: dict[str, Any]


def find_changes(plan: Plan) -> Changes:
    """What of the plan the store does not have yet.

    Raises:
        StoreError: the store has a part made from other raw files or another --limit. A finished
            store is never changed under its users, so the way out is another place.
    """
    old, log = plan.existing, _read_log(plan)
    provenance = {split: _provenance(plan, split) for split in plan.splits}
    sources = {name: _sources(plan, one) for name, one in plan.images.items()}
    if old is None:
        return Changes(plan.splits, list(plan.images), sources, provenance, {})
    for split in plan.splits:
        before = old.provenance["splits"].get(split)
        if before is not None and before != provenance[split]:
            raise _changed(plan, f"question split {split}", _difference(before, provenance[split]))
    for name, one in plan.images.items():
        before = old.image_splits.get(name)
        if before is not None and before.images != len(one.images):
            raise _changed(
                plan, f"image split {name}", f"{before.images} images then, {len(one.images)} now"
            )
        if name in log["sources"] and before and log["sources"][name] != sources[name]:
            raise _changed(plan, f"image split {name}", "its feature files have changed since")
    return Changes(
        [split for split in plan.splits if split not in old.question_splits],
        [name for name in plan.images if name not in old.image_splits],
        sources,
        provenance,
        log,
    )


def _sources(plan: Plan, images: ImagePlan) -> list[str]:
    """What each shard is made from: its raw files, and the form that they are brought into."""
    form = [len(images.images), images.shard_images, msgspec.to_builtins(plan.spec)]
    if plan.form.keep_portrait:
        form.append("portrait")
    if plan.config.on_bad_image == "skip":
        form.append("skip")
    return [
        sha256_json([part.images.fingerprint(), part.skip_rows, part.flat_rows, *form])
        for part in images.parts(plan.spec)
    ]


def _provenance(plan: Plan, split: str) -> dict[str, Any]:
    files = {
        name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for name, path in plan.source.files(split).items()
    }
    weighted = plan.source.source_of(split) == "vg" and plan.config.vg_answer_weight == "one"
    weight = {"answer_weight": "one"} if weighted else {}
    return {"files": files, "limit": plan.config.limit, **weight}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before["limit"] != now["limit"]:
        return f"--limit {before['limit']} then, {now['limit']} now"
    if before.get("answer_weight") != now.get("answer_weight"):
        return "another --vg-answer-weight then"
    names = [name for name in now["files"] if now["files"][name] != before["files"].get(name)]
    return f"{', '.join(names) or 'its question files'} changed since"


def _changed(plan: Plan, what: str, how: str) -> StoreError:
    return StoreError(
        f"{plan.folder}: this store already has {what}, made from other raw data ({how}); prepare "
        f"into another --store, or delete {plan.folder} and prepare it anew"
    )


def _read_log(plan: Plan) -> dict[str, Any]:
    path = plan.folder / LOG_FILE
    try:
        with disk_errors(path):
            log = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        return {"runs": [], "sources": {}}  # a lost log costs the comparison, never the store
    return {"runs": log.get("runs", []), "sources": log.get("sources", {})}
