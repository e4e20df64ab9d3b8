"""Small finished stores whose answers can be learned from the features, made without raw files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from ragged_store import Rows

from trar.features.answers import AnswerDictionary, sparse_targets
from trar.features.containers import open_backend
from trar.features.questions import AnswerTable, QuestionTable, Ragged, SparseTargets, Texts
from trar.features.reader import SCHEME, TOKENIZER, FeatureStore
from trar.features.schema import (
    FORMAT_VERSION,
    AnswersEntry,
    Compression,
    Container,
    FeatureSpec,
    ImageSplit,
    QuestionSplit,
    StoreMeta,
    TargetRule,
    VocabularyEntry,
    read_meta,
)
from trar.features.shard_writer import PreparedImage, ShardPlace, write_image_shard
from trar.features.text import Vocabulary, encode_questions
from trar.features.writer import StoreWriter
from trar.pipeline.image_plan import ImagePlan

CONTAINERS: tuple[Container, ...] = ("zarr", "hdf5")
COLOURS = ("red", "green", "blue", "grey")
SHARD_IMAGES = 10


@dataclass(frozen=True)
class StorePlan:
    """What ``make_store`` writes. An image is a colour on some cells; it is asked what colour it
    has and, for each of ``asked``, whether it has that one. ``question_splits`` maps a question
    split to its image split; splits named test have no answers. With ``most_regions`` an image has
    up to so many regions with boxes instead of a grid, all of its colour. A split has the question
    ids of the one that ``same_ids`` names, where that names one."""

    images: Mapping[str, int] = field(default_factory=lambda: {"train": 40, "val": 15, "test": 6})
    question_splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "val": "val", "test": "test"}
    )
    asked: Sequence[str] = ("red", "blue")
    grid: int = 4
    width: int = 8
    rule: TargetRule = "exact"
    seed: int = 0
    extra_words: Sequence[str] = ()
    known_answers: Sequence[str] = (*COLOURS, "yes", "no")
    same_ids: Mapping[str, str] = field(default_factory=dict)
    most_regions: int = 0
    compression: Compression | None = None


def make_store(
    folder: Path, plan: StorePlan | None = None, container: Container = "zarr"
) -> FeatureStore:
    """Write and open the dataset ``folder``; the same plan gives the same bytes."""
    plan = plan or StorePlan()
    rng = np.random.default_rng(plan.seed)
    spec = FeatureSpec(plan.grid**2, plan.width, "float16", (plan.grid, plan.grid))
    if plan.most_regions:
        spec = FeatureSpec(plan.most_regions, plan.width, "float16", ragged=True, boxes=True)
    spec = msgspec.structs.replace(spec, compression=plan.compression)
    colours = {name: rng.integers(len(COLOURS), size=n) for name, n in plan.images.items()}
    what = [f"is it {colour}?" for colour in plan.asked]
    texts = ["What colour is it?", *what, *plan.extra_words]
    vocabulary = Vocabulary.build({"train": texts})
    answers = AnswerDictionary(tuple(plan.known_answers))
    with StoreWriter(folder, container) as writer:
        images = {
            name: _write_images(writer, container, name, spec, colours[name], rng)
            for name in colours
        }
        questions = {
            split: _write_questions(writer, plan, split, colours[source], vocabulary, answers)
            for split, source in plan.question_splits.items()
        }
        writer.write_json("vocabulary.json", vocabulary.to_json())
        writer.write_json("answers.json", answers.to_json())
        meta = StoreMeta(
            format_version=FORMAT_VERSION,
            dataset=folder.name,
            container=container,
            feature=spec,
            image_splits=images,
            question_splits=questions,
            vocabularies={
                TOKENIZER: VocabularyEntry(
                    "vocabulary.json", len(vocabulary), vocabulary.digest, vocabulary.sources
                )
            },
            answer_schemes={
                SCHEME: AnswersEntry(
                    "answers.json", len(answers), answers.digest, plan.rule, 1, ["train"]
                )
            },
            files={},
            fingerprint="",
            provenance={},
        )
        writer.finish(meta, {})
    return FeatureStore(folder)


def _write_images(
    writer: StoreWriter,
    container: Container,
    split: str,
    spec: FeatureSpec,
    colours: np.ndarray,
    rng: np.random.Generator,
) -> ImageSplit:
    ids = np.arange(len(colours)) * 3 + 7
    if spec.ragged:
        return _write_regions(writer, container, split, spec, ids, colours, rng)
    writer.create_images(split, spec, ids, SHARD_IMAGES)
    receipts = []
    for shard, start in enumerate(range(0, len(colours), SHARD_IMAGES)):
        images = [_image(spec, int(c), rng) for c in colours[start : start + SHARD_IMAGES]]
        place = ShardPlace(writer.folder, split, shard, SHARD_IMAGES, spec, container)
        receipts.append(write_image_shard(place, images, "made by a test"))
    writer.finish_images(split, spec, receipts)
    return ImageSplit(len(colours), SHARD_IMAGES, sum(r.masked_cells for r in receipts), 1.0, 0.0)


def _write_regions(
    writer: StoreWriter,
    container: Container,
    split: str,
    spec: FeatureSpec,
    ids: np.ndarray,
    colours: np.ndarray,
    rng: np.random.Generator,
) -> ImageSplit:
    lengths = rng.integers(2, spec.rows + 1, size=len(colours))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    images = []
    for colour, length in zip(colours, lengths, strict=True):
        values = rng.uniform(0.01, 0.3, (length, spec.width)).astype(spec.dtype)
        values[:, colour] = 1.0
        boxes = rng.random((length, 4), np.float32)
        images.append(PreparedImage(values, np.ones(length, np.bool_), boxes=boxes, size=(9, 7)))
    writer.create_images(split, spec, ids, SHARD_IMAGES, offsets)
    receipts = []
    for part in ImagePlan(split, Rows(range(len(ids))), SHARD_IMAGES, offsets).parts(spec):
        place = ShardPlace(
            writer.folder,
            split,
            part.shard,
            SHARD_IMAGES,
            spec,
            container,
            skip_rows=part.skip_rows,
            flat_rows=part.flat_rows,
        )
        own = [images[row] for row in part.images.rows]
        receipts.append(write_image_shard(place, own, "made by a test"))
    writer.finish_images(split, spec, receipts)
    return ImageSplit(len(ids), SHARD_IMAGES, 0, 1.0, 0.0, int(offsets[-1]))


def _image(spec: FeatureSpec, colour: int, rng: np.random.Generator) -> PreparedImage:
    """Noise with the colour's channel raised; the last row of cells is padding in some images."""
    values = rng.uniform(0.01, 0.3, (spec.rows, spec.width)).astype(spec.dtype)
    values[rng.permutation(spec.rows)[: spec.rows // 2], colour] = 1.0
    cells = np.ones(spec.rows, np.bool_)
    if rng.integers(2):
        cells[-spec.grid[1] :] = False
        values[~cells] = 0
    return PreparedImage(values, cells, 1.0, 0.0)


def _write_questions(
    writer: StoreWriter,
    plan: StorePlan,
    split: str,
    colours: np.ndarray,
    vocabulary: Vocabulary,
    answers: AnswerDictionary,
) -> QuestionSplit:
    texts, truth, kinds, rows = [], [], [], []
    for row, number in enumerate(colours):
        colour = COLOURS[number]
        texts += ["What colour is it?", *(f"is it {one}?" for one in plan.asked)]
        truth += [colour, *("yes" if one == colour else "no" for one in plan.asked)]
        kinds += [0, *(1 for _ in plan.asked)]
        rows += [row] * (1 + len(plan.asked))
    count = len(texts)
    number = list(plan.question_splits).index(plan.same_ids.get(split, split))
    table = QuestionTable(
        ids=np.arange(count) + 1000 * (1 + number),
        image_split=np.zeros(count, np.uint8),
        image_row=np.array(rows, np.int32),
        type=np.array(kinds, np.uint16),
        type_names=Texts.pack(["what colour", "is it"]),
        texts=Texts.pack(texts),
    )
    ids, offsets, unknown = encode_questions(vocabulary, texts)
    writer.write_table(f"questions/{split}", table.columns())
    writer.write_table(f"tokens/{TOKENIZER}/{split}", Ragged(ids, offsets).columns())
    annotators = 0
    if not split.startswith("test"):
        annotators = 10 if plan.rule == "vqa" else 1
        lists = [[answer] * annotators for answer in truth]
        own = AnswerTable(
            offsets=np.arange(count + 1) * annotators,
            texts=Texts.pack([answer for one in lists for answer in one]),
            type=np.where(np.array(kinds) == 1, 1, 3).astype(np.uint8),
            majority=Texts.pack(truth),
            scores=np.full(count, 0.6, np.float32) if plan.rule == "labels" else None,
        )
        targets = SparseTargets(*sparse_targets(lists, answers, plan.rule))
        writer.write_table(f"answers/{split}", own.columns())
        writer.write_table(f"targets/{SCHEME}/{split}", targets.columns())
    return QuestionSplit(
        questions=count,
        source=plan.question_splits[split],
        image_splits=[plan.question_splits[split]],
        answers_per_question=annotators,
        tokens=len(ids),
        unknown_tokens=unknown,
        longest_question=int(np.diff(offsets).max()),
        without_target=0,
    )


def shard_file(store: Path, split: str, shard: int) -> Path:
    """The file of a shard's features."""
    meta = read_meta(store)
    files = open_backend(store, meta.container).shard_files(split, shard, meta.feature)
    return store / files["features"]
