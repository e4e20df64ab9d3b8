"""A small store of images with different numbers of regions, made without raw files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trar.features.questions import QuestionTable, Ragged, Texts
from trar.features.reader import TOKENIZER
from trar.features.schema import (
    FORMAT_VERSION,
    Container,
    FeatureSpec,
    ImageSplit,
    QuestionSplit,
    StoreMeta,
)
from trar.features.shard_writer import PreparedImage, ShardPlace, write_image_shard
from trar.features.writer import StoreWriter
from trar.pipeline.image_plan import ImagePlan

WIDTH = 3


@dataclass(frozen=True)
class Rows:
    """Stands in for raw images: which of them a shard is made of."""

    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> Rows:
        return Rows(self.rows[start:stop])


def make_ragged(
    folder: Path,
    lengths: list[int],
    shard_images: int,
    seed: int = 0,
    container: Container = "zarr",
    asked: int = 0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A store of images of these lengths; returns their features and boxes. ``asked``: so many
    questions about each image, in split val."""
    rng = np.random.default_rng(seed)
    features = [rng.standard_normal((n, WIDTH)).astype(np.float16) for n in lengths]
    boxes = [rng.random((n, 4), np.float32) for n in lengths]
    spec = FeatureSpec(max(lengths), WIDTH, "float16", None, ragged=True, boxes=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    plan = ImagePlan("val", Rows(range(len(lengths))), shard_images, offsets)
    with StoreWriter(folder, container) as writer:
        writer.create_images("val", spec, np.arange(len(lengths)) * 5, shard_images, offsets)
        receipts = []
        for part in plan.parts(spec):
            images = [
                PreparedImage(
                    features[row], np.ones(lengths[row], np.bool_), boxes=boxes[row], size=(row, 7)
                )
                for row in part.images.rows
            ]
            place = ShardPlace(
                folder,
                "val",
                part.shard,
                shard_images,
                spec,
                container,
                skip_rows=part.skip_rows,
                flat_rows=part.flat_rows,
            )
            receipts.append(write_image_shard(place, images, "made by a test"))
        writer.finish_images("val", spec, receipts)
        questions = {"val": _write_questions(writer, len(lengths), asked)} if asked else {}
        meta = StoreMeta(
            format_version=FORMAT_VERSION,
            dataset=folder.name,
            container=container,
            feature=spec,
            image_splits={
                "val": ImageSplit(len(lengths), shard_images, 0, 1.0, 0.0, int(offsets[-1]))
            },
            question_splits=questions,
            vocabularies={},
            answer_schemes={},
            files={},
            fingerprint="",
            provenance={},
        )
        writer.finish(meta, {})
    return features, boxes


def _write_questions(writer: StoreWriter, images: int, asked: int) -> QuestionSplit:
    count = images * asked
    table = QuestionTable(
        ids=np.arange(count) + 100,
        image_split=np.zeros(count, np.uint8),
        image_row=np.repeat(np.arange(images, dtype=np.int32), asked),
        type=np.zeros(count, np.uint16),
        type_names=Texts.pack(["none"]),
        texts=Texts.pack(["?"] * count),
    )
    writer.write_table("questions/val", table.columns())
    tokens = Ragged(np.full(count, 3, np.int32), np.arange(count + 1))
    writer.write_table(f"tokens/{TOKENIZER}/val", tokens.columns())
    return QuestionSplit(count, "made by a test", ["val"], 0, count, 0, 1, 0)
