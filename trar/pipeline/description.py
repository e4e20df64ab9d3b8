"""What a prepare writes about itself: ``store.json`` and ``prepare-log.json``."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

import trar
from trar.features.schema import FORMAT_VERSION, ImageSplit, QuestionSplit, StoreMeta
from trar.features.shard_writer import Receipt, ShardPlace
from trar.features.vectors import VectorsEntry
from trar.pipeline.changes import Changes
from trar.pipeline.dictionaries import Dictionaries
from trar.pipeline.left_out import Skipped, all_skipped, skipped_before
from trar.pipeline.plan import Plan


def describe(
    plan: Plan,
    dictionaries: Dictionaries,
    image_splits: dict[str, ImageSplit],
    question_splits: dict[str, QuestionSplit],
    changes: Changes,
    skipped: Skipped,
    vectors: VectorsEntry | None,
) -> StoreMeta:
    """What ``store.json`` says, but for its files and fingerprint: the earlier splits and these."""
    old = plan.existing
    before = old.provenance if old else {}
    left_out = all_skipped(skipped_before(plan, changes), skipped)
    return StoreMeta(
        format_version=FORMAT_VERSION,
        dataset=plan.source.dataset,
        container=plan.container,
        feature=plan.spec,
        image_splits={**(old.image_splits if old else {}), **image_splits},
        question_splits={**(old.question_splits if old else {}), **question_splits},
        vocabularies={name: one.entry for name, one in dictionaries.words.items()},
        answer_schemes={name: one.entry for name, one in dictionaries.answers.items()},
        files={},
        fingerprint="",
        provenance={
            "made_by": f"trar {trar.__version__}",
            "splits": {**before.get("splits", {}), **changes.provenance},
            **({"skipped": left_out} if left_out else {}),
        },
        vectors={
            **(old.vectors if old else {}),
            **({vectors.name: vectors} if vectors is not None else {}),
        },
    )


def log_of(
    plan: Plan, changes: Changes, receipts: dict[ShardPlace, Receipt], seconds: float
) -> dict[str, Any]:
    """What must not stand in ``store.json``: time, paths, and the state of the raw files then."""
    shards = {
        name: [
            msgspec.to_builtins(receipts[plan.place(name, part)])
            for part in plan.images[name].parts(plan.spec)
        ]
        for name in changes.images
    }
    run = {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "made": changes.splits,
        "settings": plan.config.model_dump(mode="json"),
    }
    return {
        "runs": [*changes.log.get("runs", []), run],
        "sources": {**changes.log.get("sources", {}), **changes.sources},
        "shards": {**changes.log.get("shards", {}), **shards},
    }
