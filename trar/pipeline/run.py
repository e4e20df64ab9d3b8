"""``prepare``: raw files to a finished store."""

from __future__ import annotations

import datetime
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import trar
from trar.features.place import place_of
from trar.features.questions import NameTable, Texts
from trar.features.reader import SCHEME, TOKENIZER, FeatureStore
from trar.features.remake import drop_unlisted, is_ready, move_in, owned, remake_folder
from trar.features.schema import (
    FORMAT_VERSION,
    WORK_FOLDER,
    ImageSplit,
    QuestionSplit,
    StoreMeta,
    TargetRule,
)
from trar.features.vectors import VectorsEntry
from trar.features.writer import Receipt, ShardPlace, StoreWriter, finished_shard
from trar.pipeline.changes import Changes, find_changes
from trar.pipeline.config import PrepareConfig
from trar.pipeline.dictionaries import Dictionaries, order_notes
from trar.pipeline.engine import Progress, ShardTask, write_shards
from trar.pipeline.left_out import (
    Skipped,
    StoredSkipped,
    all_skipped,
    skip_warnings,
    skipped_ids,
    without_images,
)
from trar.pipeline.plan import ImagePart, ImagePlan, Plan, make_plan
from trar.pipeline.tables import add_tables, write_questions
from trar.pipeline.vectors import CutVectors, cut_vectors, vectors_name
from trar.pipeline.vocabulary import Words, build_words, load_words

_TABLE_BYTES_PER_QUESTION = 1000  # texts, tokens, ten answers and targets; VQA-v2 needs about 400


@dataclass(frozen=True)
class PrepareResult:
    """What a prepare did: splits ``made`` now and splits ``kept`` as they were. ``remade`` are
    question and image splits whose raw files had changed since; ``added`` are tokenizers and
    targets that all splits of a finished store got."""

    folder: Path
    meta: StoreMeta
    made: list[str]
    kept: list[str]
    warnings: list[str] = field(default_factory=list)
    vectors: VectorsEntry | None = None
    remade: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


def prepare(config: PrepareConfig, progress: Progress = lambda *_: None) -> PrepareResult:
    """Make or complete the store of one dataset.

    Splits that the store already has stay untouched, as do its vocabulary and answers; a stopped
    prepare goes on with the shards it had not finished. ``progress(stage, done, total)`` counts
    the steps of planning, images, then question splits.

    Raises:
        TrarError: anything the user can fix, before work starts wherever it can be known then.
    """
    begin = time.perf_counter()
    if config.scheduler is not None:
        config = _absolute(config)
    _complete_remake(config.store / config.dataset)
    plan = make_plan(config, progress)
    changes = find_changes(plan)
    plan = replace(plan, remake=bool(changes.remade_splits or changes.remade_images))
    old = plan.existing
    words = build_words(plan.source) if old is None else load_words(plan.folder, old)
    warnings = [note for one in plan.questions.values() for note in one.questions.notes]
    warnings += filter(None, [plan.source.vocabulary_note() if old is None else None])
    cut = _cut_vectors(plan, words)
    if cut is None and not (plan.to_add or changes.splits or changes.images):
        assert old is not None
        _tidy(plan, old)
        return PrepareResult(plan.folder, old, [], plan.splits)
    every = Dictionaries({TOKENIZER: words}, {SCHEME: plan.answers}) | plan.added
    new = every if old is None else plan.to_add
    for known in every.words.values():
        known.encode([])  # a missing library is named before the first byte is written
    warnings += order_notes(new, plan.source)
    finished, tasks = shard_work(plan, changes)
    place_of(plan.folder).need_room(
        needed_bytes(plan, tasks), _needed_files(plan, tasks), _in_flight_bytes(plan, tasks)
    )
    with StoreWriter(plan.folder, plan.container, remake=plan.remake) as writer:
        _write_dictionaries(writer, plan, changes, new)
        for name in changes.images:
            one = plan.images[name]
            writer.create_images(name, plan.spec, one.images.ids, one.shard_images, one.offsets)
        for receipts_of in changes.kept.values():
            writer.adopt(name for one in receipts_of.values() for name in one.files)
        receipts = finished | write_shards(tasks, config.workers, progress, config.scheduler)
        image_splits, skipped = _finish_images(writer, plan, changes, receipts)
        warnings += skip_warnings(plan, skipped)
        question_splits = _write_question_splits(writer, plan, changes, every, skipped, progress)
        _add_to_kept_splits(writer, plan, changes)
        for split, entry in question_splits.items():
            warnings += _question_warnings(plan, split, entry)
        vectors = None
        if cut is not None:
            vectors = writer.write_vectors(cut.name, cut.table, cut.covered, cut.made_from)
            warnings += cut.notes
        meta = _describe(plan, every, image_splits, question_splits, changes, skipped, vectors)
        meta = writer.finish(meta, _log(plan, changes, receipts, time.perf_counter() - begin))
    kept = [split for split in plan.splits if split not in changes.splits]
    made = [split for split in changes.splits if split not in changes.remade_splits]
    remade = [*changes.remade_splits, *changes.remade_images]
    added = plan.to_add.names()
    return PrepareResult(plan.folder, meta, made, kept, warnings, vectors, remade, added)


def _complete_remake(folder: Path) -> None:
    """Move in what a prepare had made anew when it was stopped during the move."""
    if is_ready(folder):
        with StoreWriter(folder):
            move_in(folder)


def _tidy(plan: Plan, done: StoreMeta) -> None:
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


def _absolute(config: PrepareConfig) -> PrepareConfig:
    """The same with paths that hold in another process's working folder."""
    paths = {name: getattr(config, name) for name in ("raw", "store", "features")}
    given = {name: path.absolute() for name, path in paths.items() if path is not None}
    return config.model_copy(update=given)


def _cut_vectors(plan: Plan, words: Words) -> CutVectors | None:
    """The word vectors asked for, unless the store has them already."""
    source, lookup = plan.config.vectors, plan.config.vectors_lookup
    if source is None:
        return None
    if plan.existing is not None and vectors_name(source, lookup) in plan.existing.vectors:
        return None
    return cut_vectors(source, words.vocabulary, lookup)


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


def needed_bytes(plan: Plan, tasks: list[ShardTask]) -> int:
    """An upper bound of what is left to write."""
    chunks = sum(_chunks(task) for task in tasks)
    questions = sum(len(one.questions) for one in plan.questions.values())
    if plan.existing is not None and plan.to_add:
        questions += sum(one.questions for one in plan.existing.question_splits.values())
    per_chunk = plan.spec.stored_chunk_bytes
    per_chunk += 4200 if plan.container == "hdf5" else 0  # chunks begin at multiples of 4096
    return chunks * per_chunk + questions * _TABLE_BYTES_PER_QUESTION + (1 << 20)


def _in_flight_bytes(plan: Plan, tasks: list[ShardTask]) -> int:
    """An upper bound of what lies in this machine's temporary folder at a time, where the store is
    on another: one shard a process, and one table."""
    config, cores = plan.config, os.cpu_count() or 1
    processes = min(len(tasks), cores if config.workers is None else max(1, config.workers))
    shard = max((task.place.size_bytes for task in tasks), default=0)
    questions = max((len(one.questions) for one in plan.questions.values()), default=0)
    return (0 if config.scheduler else processes * shard) + questions * _TABLE_BYTES_PER_QUESTION


def _needed_files(plan: Plan, tasks: list[ShardTask]) -> int:
    """Files and folders, receipts included: a shard has up to eight, a table about twenty."""
    return 10 * len(tasks) + 100 * (len(plan.images) + len(plan.questions)) + 20


def _chunks(task: ShardTask) -> int:
    spec = task.place.spec
    return -(-task.place.flat_rows // spec.chunk_rows) if spec.ragged else len(task.images)


def _write_dictionaries(
    writer: StoreWriter, plan: Plan, changes: Changes, new: Dictionaries
) -> None:
    if plan.existing is not None:
        remade = changes.remade_images, changes.remade_splits
        files = plan.existing.files.items()
        writer.keep({name: entry for name, entry in files if not owned(name, *remade)})
    for words in new.words.values():
        writer.write_json(words.entry.file, words.vocabulary.to_json())
    for answers in new.answers.values():
        writer.write_json(answers.entry.file, answers.dictionary.to_json())


def _finish_images(
    writer: StoreWriter, plan: Plan, changes: Changes, receipts: dict[ShardPlace, Receipt]
) -> tuple[dict[str, ImageSplit], Skipped]:
    """Entries of the new image splits, and the images left out of each: id -> why."""
    entries, skipped = {}, {}
    for name in changes.images:
        one = plan.images[name]
        own = [receipts[plan.place(name, part)] for part in one.parts(plan.spec)]
        left_out = skipped_ids(plan, one, own)
        writer.finish_images(name, plan.spec, own)
        names = plan.source.image_names(name)
        if names is not None:
            known = [names[image_id] for image_id in one.images.ids.tolist()]
            writer.write_table(f"names/{name}", NameTable(Texts.pack(known)).columns())
        entries[name] = ImageSplit(
            images=len(one.images),
            shard_images=one.shard_images,
            masked_cells=sum(receipt.masked_cells for receipt in own),
            largest_value=max(receipt.largest_value for receipt in own),
            largest_cast_error=max(receipt.largest_cast_error for receipt in own),
            flat_rows=0 if one.offsets is None else int(one.offsets[-1]),
            named=names is not None,
        )
        if left_out:
            skipped[name] = left_out
    for name, images in plan.missing.items():
        missing = dict.fromkeys(sorted(set(images)), "no features")
        skipped[name] = skipped.get(name, {}) | missing
    return entries, skipped


def _write_question_splits(
    writer: StoreWriter,
    plan: Plan,
    changes: Changes,
    dictionaries: Dictionaries,
    skipped: Skipped,
    progress: Progress,
) -> dict[str, QuestionSplit]:
    entries = {}
    for number, split in enumerate(changes.splits):
        progress("questions", number, len(changes.splits))
        source = plan.source.source_of(split)
        before = _skipped_before(plan, changes)
        questions = without_images(plan, plan.questions[split], before, skipped)
        weight_one = source == "vg" and plan.config.vg_answer_weight == "one"
        entries[split] = write_questions(
            writer, questions, dictionaries, source, weight_one=weight_one
        )
    progress("questions", len(changes.splits), len(changes.splits))
    return entries


def _add_to_kept_splits(writer: StoreWriter, plan: Plan, changes: Changes) -> None:
    """Give the splits that stay as they are the tokens and targets that are new."""
    if plan.existing is None or not plan.to_add:
        return
    store = FeatureStore(plan.folder)
    for split in plan.existing.question_splits:
        if split not in changes.splits:
            made = plan.existing.provenance["splits"].get(split, {})
            weight_one = made.get("answer_weight") == "one"
            add_tables(writer, store, split, plan.to_add, weight_one=weight_one)


def _skipped_before(plan: Plan, changes: Changes) -> StoredSkipped:
    """What earlier prepares left out of image splits that stay as they are."""
    every = plan.existing.provenance.get("skipped", {}) if plan.existing else {}
    return {name: one for name, one in every.items() if name not in changes.remade_images}


def _question_warnings(plan: Plan, split: str, entry: QuestionSplit) -> list[str]:
    rule: TargetRule = plan.answers.entry.rule
    weighted = entry.source == "vg" and plan.config.vg_answer_weight == "one"
    warnings = []
    if entry.unknown_tokens:
        share = 100 * entry.unknown_tokens / entry.tokens
        warnings.append(
            f"{split}: {entry.unknown_tokens:,} of {entry.tokens:,} words ({share:.2f} %) are not "
            "in the vocabulary"
        )
    if rule == "vqa" and 0 < entry.answers_per_question < 4 and not weighted:
        targets = " or ".join(f"0.{3 * n}" for n in range(1, entry.answers_per_question + 1))
        option = "; --vg-answer-weight one makes them 1" if entry.source == "vg" else ""
        warnings.append(
            f"{split}: questions with only {entry.answers_per_question} answers: under the "
            f"ten-annotator rule their targets are {targets}{option}"
        )
    return warnings


def _describe(
    plan: Plan,
    dictionaries: Dictionaries,
    image_splits: dict[str, ImageSplit],
    question_splits: dict[str, QuestionSplit],
    changes: Changes,
    skipped: Skipped,
    vectors: VectorsEntry | None,
) -> StoreMeta:
    old = plan.existing
    before = old.provenance if old else {}
    left_out = all_skipped(_skipped_before(plan, changes), skipped)
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


def _log(
    plan: Plan, changes: Changes, receipts: dict[ShardPlace, Receipt], seconds: float
) -> dict[str, Any]:
    """What must not be in ``store.json``: time, paths, and the state of the raw files then."""
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
