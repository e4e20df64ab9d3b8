"""``prepare``: raw files to a finished store."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trar
from trar.features.reader import SCHEME, TOKENIZER
from trar.features.schema import (
    FORMAT_VERSION,
    ImageSplit,
    QuestionSplit,
    StoreMeta,
    TargetRule,
)
from trar.features.writer import Receipt, ShardPlace, StoreWriter, finished_shard
from trar.fileio import need_space
from trar.pipeline.changes import Changes, find_changes
from trar.pipeline.config import PrepareConfig
from trar.pipeline.engine import Progress, ShardTask, write_shards
from trar.pipeline.plan import Plan, make_plan
from trar.pipeline.tables import write_questions
from trar.pipeline.vocabulary import Dictionaries, build_dictionaries, load_dictionaries

_TABLE_BYTES_PER_QUESTION = 1000  # texts, tokens, ten answers and targets; VQA-v2 needs about 400


@dataclass(frozen=True)
class PrepareResult:
    """What a prepare did: splits ``made`` now and splits ``kept`` as they were."""

    folder: Path
    meta: StoreMeta
    made: list[str]
    kept: list[str]
    warnings: list[str] = field(default_factory=list)


def prepare(config: PrepareConfig, progress: Progress = lambda *_: None) -> PrepareResult:
    """Make or complete the store of one dataset.

    Splits that the store already has stay untouched, as do its vocabulary and answers; a stopped
    prepare goes on with the shards it had not finished. ``progress(stage, done, total)`` counts
    images, then question splits.

    Raises:
        TrarError: anything the user can fix, before work starts wherever it can be known then.
    """
    begin = time.perf_counter()
    plan = make_plan(config)
    changes = find_changes(plan)
    warnings: list[str] = []
    if plan.existing is None:
        dictionaries = build_dictionaries(plan.source, config.answers)
        warnings += filter(None, [plan.source.vocabulary_note()])
    else:
        dictionaries = load_dictionaries(plan.folder, plan.existing, config.answers)
        if not changes.splits:
            return PrepareResult(plan.folder, plan.existing, [], plan.splits)
    finished, tasks = _shard_work(plan, changes)
    _check_space(plan, tasks)
    with StoreWriter(plan.folder) as writer:
        _write_dictionaries(writer, plan, dictionaries)
        for name in changes.images:
            one = plan.images[name]
            writer.create_images(name, plan.spec, one.images.ids, one.shard_images)
        receipts = finished | write_shards(tasks, config.workers, progress)
        image_splits = _finish_images(writer, plan, changes, receipts)
        question_splits: dict[str, QuestionSplit] = {}
        for number, split in enumerate(changes.splits):
            progress("questions", number, len(changes.splits))
            source = "vg" if split == "vg" else plan.source.dataset
            entry = write_questions(writer, plan.questions[split], dictionaries, source)
            question_splits[split] = entry
            warnings += _question_warnings(split, entry, dictionaries.answers_entry.rule)
        progress("questions", len(changes.splits), len(changes.splits))
        meta = _describe(plan, dictionaries, image_splits, question_splits, changes)
        meta = writer.finish(meta, _log(plan, changes, time.perf_counter() - begin))
    kept = [split for split in plan.splits if split not in changes.splits]
    return PrepareResult(plan.folder, meta, changes.splits, kept, warnings)


def _shard_work(plan: Plan, changes: Changes) -> tuple[dict[ShardPlace, Receipt], list[ShardTask]]:
    """What an earlier, stopped run finished, and what is left to do."""
    finished, tasks = {}, []
    for name in changes.images:
        parts = plan.images[name].parts()
        for (shard, images), sources in zip(parts, changes.sources[name], strict=True):
            place = plan.place(name, shard)
            receipt = finished_shard(place, sources)
            if receipt is None:
                tasks.append(ShardTask(place, images, sources))
            else:
                finished[place] = receipt
    return finished, tasks


def _check_space(plan: Plan, tasks: list[ShardTask]) -> None:
    features = sum(len(task.images) for task in tasks) * (plan.spec.row_bytes + 100)
    questions = sum(len(one.questions) for one in plan.questions.values())
    size_bytes = features + questions * _TABLE_BYTES_PER_QUESTION + (1 << 20)
    need_space(plan.folder, size_bytes, "this store")


def _write_dictionaries(writer: StoreWriter, plan: Plan, dictionaries: Dictionaries) -> None:
    if plan.existing is not None:
        writer.keep(plan.existing.files)
        return
    writer.write_json(dictionaries.vocabulary_entry.file, dictionaries.vocabulary.to_json())
    writer.write_json(dictionaries.answers_entry.file, dictionaries.answers.to_json())


def _finish_images(
    writer: StoreWriter, plan: Plan, changes: Changes, receipts: dict[ShardPlace, Receipt]
) -> dict[str, ImageSplit]:
    entries = {}
    for name in changes.images:
        one = plan.images[name]
        own = [receipts[plan.place(name, shard)] for shard, _ in one.parts()]
        writer.finish_images(name, own)
        entries[name] = ImageSplit(
            images=len(one.images),
            shard_images=one.shard_images,
            masked_cells=sum(receipt.masked_cells for receipt in own),
            largest_value=max(receipt.largest_value for receipt in own),
            largest_cast_error=max(receipt.largest_cast_error for receipt in own),
        )
    return entries


def _question_warnings(split: str, entry: QuestionSplit, rule: TargetRule) -> list[str]:
    warnings = []
    if entry.unknown_tokens:
        share = 100 * entry.unknown_tokens / entry.tokens
        warnings.append(
            f"{split}: {entry.unknown_tokens:,} of {entry.tokens:,} words ({share:.2f} %) are not "
            "in the vocabulary"
        )
    if rule == "vqa" and 0 < entry.answers_per_question < 4:
        warnings.append(
            f"{split}: questions with only {entry.answers_per_question} answers: a right answer "
            "given once has target 0.3 under the ten-annotator rule"
        )
    return warnings


def _describe(
    plan: Plan,
    dictionaries: Dictionaries,
    image_splits: dict[str, ImageSplit],
    question_splits: dict[str, QuestionSplit],
    changes: Changes,
) -> StoreMeta:
    old = plan.existing
    return StoreMeta(
        format_version=FORMAT_VERSION,
        dataset=plan.source.dataset,
        container="zarr",
        feature=plan.spec,
        image_splits={**(old.image_splits if old else {}), **image_splits},
        question_splits={**(old.question_splits if old else {}), **question_splits},
        vocabularies={TOKENIZER: dictionaries.vocabulary_entry},
        answer_schemes={SCHEME: dictionaries.answers_entry},
        files={},
        fingerprint="",
        provenance={
            "made_by": f"trar {trar.__version__}",
            "splits": {**(old.provenance["splits"] if old else {}), **changes.provenance},
        },
    )


def _log(plan: Plan, changes: Changes, seconds: float) -> dict[str, Any]:
    """What must not be in ``store.json``: time, paths, and the state of the raw files then."""
    run = {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "made": changes.splits,
        "settings": plan.config.model_dump(mode="json"),
    }
    return {
        "runs": [*changes.log.get("runs", []), run],
        "sources": {**changes.log.get("sources", {}), **changes.sources},
    }
