"""VQA-v2, and Visual Genome questions in its form, in the folder layout of TRAR and openvqa.

data/vqa/raw/v2_OpenEnded_mscoco_train2014_questions.json, v2_mscoco_train2014_annotations.json, …
data/vqa/feats/train2014/COCO_train2014_000000000009.jpg.npz, …
"""

from __future__ import annotations

from pathlib import Path

from trar.errors import RawDataError
from trar.features.schema import TargetRule
from trar.pipeline.manifest import load_manifest
from trar.pipeline.readers.feature_files import FeatureFiles
from trar.pipeline.readers.vqa_json import AnnotationRows, read_annotations, read_questions
from trar.pipeline.sources.base import Questions

PUBLISHED_VOCABULARY = 20_573  # tokens of train + val + test2015 + VG, with PAD, UNK and CLS

_IMAGE_SPLITS = {
    "train": ["train2014"],
    "val": ["val2014"],
    "test": ["test2015"],
    "test-dev": ["test2015"],
    "vg": ["train2014", "val2014"],  # Visual Genome's images are COCO's, of either split
}
_VOCABULARY_SPLITS = ("train", "val", "test", "vg")  # the originals' order; test-dev is in test


class VqaSource:
    """Raw files below ``raw``, features of a ``grid`` x ``grid`` grid."""

    dataset = "vqa"
    rule: TargetRule = "vqa"
    min_count = 9
    splits: tuple[str, ...] = (*_VOCABULARY_SPLITS, "test-dev")

    def __init__(self, raw: Path, grid: int) -> None:
        self.raw = raw
        self.grid = grid
        self._manifest = load_manifest().datasets["vqa"]
        self._read: dict[str, Questions] = {}
        self._annotations: dict[str, AnnotationRows] = {}

    def present(self) -> list[str]:
        return [s for s in _VOCABULARY_SPLITS if self._manifest.find(self.raw, s, "questions")]

    def vocabulary_note(self) -> str | None:
        missing = [s for s in _VOCABULARY_SPLITS if s not in self.present()]
        if not missing:
            return None
        return (
            f"the vocabulary is made without the questions of {', '.join(missing)}; published "
            f"checkpoints need all four question files ({PUBLISHED_VOCABULARY:,} tokens)"
        )

    def answer_splits(self) -> list[str]:
        return [s for s in ("train", "val") if self._manifest.find(self.raw, s, "annotations")]

    def image_splits(self, split: str) -> list[str]:
        return _IMAGE_SPLITS[split]

    def files(self, split: str) -> dict[str, Path]:
        holds = ["questions"] + (["annotations"] if split in self._annotated() else [])
        paths = [self._manifest.need(self.raw, split, kind) for kind in holds]
        return {path.name: path for path in paths}

    def questions(self, split: str) -> Questions:
        if split not in self._read:
            self._read[split] = self._load(split)
        return self._read[split]

    def texts(self, split: str) -> list[str]:
        if split in self._read:
            return list(self._read[split].texts)
        path = self._manifest.need(self.raw, split, "questions")
        return read_questions(path, self._manifest.entry(split, "questions").subtype).texts

    def majority(self, split: str) -> list[str]:
        return self._read_annotations(split).majority

    def images(self, image_split: str) -> FeatureFiles:
        places = [self.raw / part / image_split for part in ("vqa/feats", "feats", ".")]
        for folder in places:
            if folder.is_dir():
                return FeatureFiles.scan(folder, image_split, self.grid)
        raise RawDataError(
            f"no folder with the image features of {image_split}: expected one of "
            f"{', '.join(map(str, places))}; put the .npz or .npy files there, or point --raw at "
            "the folder that has them"
        )

    def _annotated(self) -> list[str]:
        return self._manifest.splits("annotations")

    def _load(self, split: str) -> Questions:
        path = self._manifest.need(self.raw, split, "questions")
        subtype = self._manifest.entry(split, "questions").subtype
        rows = read_questions(path, subtype)
        if split not in self._annotated():
            return Questions(rows.ids, rows.image_ids, rows.texts, [""] * len(rows.ids))
        annotations = self._read_annotations(split)
        annotations_path = self._manifest.need(self.raw, split, "annotations")
        order = _join(path, rows.ids, rows.image_ids, annotations_path, annotations)
        return Questions(
            rows.ids,
            rows.image_ids,
            rows.texts,
            [annotations.question_types[row] for row in order],
            [annotations.answers[row] for row in order],
            [annotations.majority[row] for row in order],
            [annotations.answer_types[row] for row in order],
        )

    def _read_annotations(self, split: str) -> AnnotationRows:
        if split not in self._annotations:
            path = self._manifest.need(self.raw, split, "annotations")
            subtype = self._manifest.entry(split, "annotations").subtype
            self._annotations[split] = read_annotations(path, subtype)
        return self._annotations[split]


def _join(
    path: Path,
    ids: list[int],
    image_ids: list[int],
    annotations_path: Path,
    annotations: AnnotationRows,
) -> list[int]:
    """The annotation row of every question; both files must hold the same questions."""
    row_of = {question_id: row for row, question_id in enumerate(annotations.ids)}
    missing = [one for one in ids if one not in row_of]
    if missing or len(row_of) != len(ids):
        extra = sorted(set(row_of) - set(ids))
        first = f"question {missing[0]} has no annotation" if missing else ""
        last = f"annotation {extra[0]} has no question" if extra else ""
        raise RawDataError(
            f"{path} and {annotations_path} do not belong together: {len(missing)} questions "
            f"without annotation, {len(extra)} annotations without question; "
            f"{'; '.join(filter(None, (first, last)))}. Use the two files of one release"
        )
    order = [row_of[one] for one in ids]
    for question_id, image_id, row in zip(ids, image_ids, order, strict=True):
        if annotations.image_ids[row] not in (None, image_id):
            raise RawDataError(
                f"{annotations_path}: question {question_id} is about image "
                f"{annotations.image_ids[row]}, {path.name} says image {image_id}; "
                "use the two files of one release"
            )
    return order
