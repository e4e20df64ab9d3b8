"""``prepare``: raw files to a finished store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from trar.features.place import place_of
from trar.features.progress import Progress
from trar.features.questions import NameTable, Texts
from trar.features.reader import SCHEME, TOKENIZER, FeatureStore
from trar.features.remake import owned
from trar.features.schema import ImageSplit, QuestionSplit, StoreMeta
from trar.features.shard_writer import Receipt, ShardPlace
from trar.features.vectors import VectorsEntry
from trar.features.writer import StoreWriter
from trar.pipeline.changes import Changes, find_changes
from trar.pipeline.config import PrepareConfig
from trar.pipeline.description import describe, log_of
from trar.pipeline.dictionaries import Dictionaries, order_notes
from trar.pipeline.engine import write_shards
from trar.pipeline.left_out import (
    Skipped,
    skip_warnings,
    skipped_before,
    skipped_ids,
    without_images,
)
from trar.pipeline.plan import Plan, make_plan
from trar.pipeline.shard_work import in_flight_bytes, needed_bytes, needed_files, shard_work
from trar.pipeline.stopped import complete_remake, tidy
from trar.pipeline.tables import add_tables, write_questions
from trar.pipeline.vectors import CutVectors, cut_vectors, vectors_name
from trar.pipeline.vocabulary import Words, build_words, load_words


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
    complete_remake(config.store / config.dataset)
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
        tidy(plan, old)
        return PrepareResult(plan.folder, old, [], plan.splits)
    every = Dictionaries({TOKENIZER: words}, {SCHEME: plan.answers}) | plan.added
    new = every if old is None else plan.to_add
    for known in every.words.values():
        known.encode([])  # a missing library is named before the first byte is written
    warnings += order_notes(new, plan.source)
    finished, tasks = shard_work(plan, changes)
    place_of(plan.folder).need_room(
        needed_bytes(plan, tasks), needed_files(plan, tasks), in_flight_bytes(plan, tasks)
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
        meta = describe(plan, every, image_splits, question_splits, changes, skipped, vectors)
        meta = writer.finish(meta, log_of(plan, changes, receipts, time.perf_counter() - begin))
    kept = [split for split in plan.splits if split not in changes.splits]
    made = [split for split in changes.splits if split not in changes.remade_splits]
    remade = [*changes.remade_splits, *changes.remade_images]
    added = plan.to_add.names()
    return PrepareResult(plan.folder, meta, made, kept, warnings, vectors, remade, added)


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
        before = skipped_before(plan, changes)
        questions = without_images(plan, plan.questions[split], before, skipped)
        entries[split] = write_questions(
            writer, questions, dictionaries, source, weight_one=plan.weight_one(source)
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
            weight_one = plan.existing.weight_one(split)
            add_tables(writer, store, split, plan.to_add, weight_one=weight_one)


def _question_warnings(plan: Plan, split: str, entry: QuestionSplit) -> list[str]:
    rule = plan.answers.entry.rule
    warnings = []
    if entry.unknown_tokens:
        share = 100 * entry.unknown_tokens / entry.tokens
        warnings.append(
            f"{split}: {entry.unknown_tokens:,} of {entry.tokens:,} words ({share:.2f} %) are not "
            "in the vocabulary"
        )
    if rule == "vqa" and 0 < entry.answers_per_question < 4 and not plan.weight_one(entry.source):
        targets = " or ".join(f"0.{3 * n}" for n in range(1, entry.answers_per_question + 1))
        option = "; --vg-answer-weight one makes them 1" if entry.source == "vg" else ""
        warnings.append(
            f"{split}: questions with only {entry.answers_per_question} answers: under the "
            f"ten-annotator rule their targets are {targets}{option}"
        )
    return warnings
