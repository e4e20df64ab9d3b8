"""VQA-v2, Visual Genome questions about its images, and LXMERT's files of the same questions.

Folder trees: TRAR and openvqa ``data/vqa/{raw,feats}``, RWSAN ``datasets/{vqa,coco_extract}``,
LXMERT ``data/{vqa,mscoco_imgfeat}``; ``--raw`` is ``data`` or ``datasets``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.features.answers import AnswerDictionary, normalize_answer
from trar.features.columns import int64s
from trar.features.schema import TargetRule
from trar.pipeline.readers.image import Images
from trar.pipeline.readers.lxmert_json import read_lxmert
from trar.pipeline.readers.visual_genome import read_visual_genome
from trar.pipeline.readers.vqa_json import (
    AnnotationRows,
    read_annotations,
    read_questions,
)
from trar.pipeline.sources.base import Questions
from trar.pipeline.sources.features import find_images, open_images, places_in
from trar.pipeline.sources.vqa_files import LABEL_SPLITS, VqaFiles

PUBLISHED_VOCABULARY = 20_573  # tokens of train + val + test2015 + VG, with PAD, UNK and CLS

_IMAGE_SPLITS = {
    "train": ["train2014"],
    "val": ["val2014"],
    "test": ["test2015"],
    "test-dev": ["test2015"],
    "vg": ["train2014", "val2014"],  # Visual Genome's images are COCO's, of either split
    "nominival": ["val2014"],
    "minival": ["val2014"],
}
_OFFICIAL_OF = {"train2014": "train", "val2014": "val"}
_SHORT_NAME = {"train2014": "train", "val2014": "val", "test2015": "test"}
_VOCABULARY_SPLITS = ("train", "val", "test", "vg")  # the originals' order; test-dev is in test
_FEATURE_FOLDERS = (
    "vqa/feats",
    "feats",
    "coco_extract",
    "mscoco_imgfeat",
    "vqa/coco_extract",
    "vqa/mscoco_imgfeat",
    "features",
    ".",
)


class VqaSource:
    """Raw files below ``raw``, or ``features`` and ``questions`` where given.

    With official annotations answers are the ten annotators'. Where only LXMERT's files are there,
    their labels and scores are taken as they stand: rule ``labels``.
    """

    dataset = "vqa"
    min_count = 9
    splits: tuple[str, ...] = (*_VOCABULARY_SPLITS, "test-dev", "nominival", "minival")
    grid = 8

    def __init__(
        self, raw: Path, features: Path | None = None, questions: Sequence[Path] = ()
    ) -> None:
        self.raw = raw
        self._files = VqaFiles(raw, questions)
        self._features = features
        self._read: dict[str, Questions] = {}
        self._annotations: dict[str, AnnotationRows] = {}
        self._dictionary: AnswerDictionary | None = None
        official = any(self._files.find(s, "annotations") for s in ("train", "val"))
        labelled = any(self._files.find(s, "labels") for s in ("train", "nominival", "minival"))
        self.rule: TargetRule = "labels" if labelled and not official else "vqa"

    def present(self) -> list[str]:
        order = LABEL_SPLITS if self.rule == "labels" else _VOCABULARY_SPLITS
        return [split for split in order if self._form(split) is not None]

    def vocabulary_note(self) -> str | None:
        missing = [split for split in _VOCABULARY_SPLITS if split not in self.present()]
        if not missing or self.rule == "labels":
            return None
        return (
            f"the vocabulary is made without the questions of {', '.join(missing)}; published "
            f"checkpoints need all four question files ({PUBLISHED_VOCABULARY:,} tokens)"
        )

    def answer_splits(self) -> list[str]:
        if self.rule == "labels":
            return [s for s in LABEL_SPLITS if s != "test" and self._files.find(s, "labels")]
        return [split for split in ("train", "val") if self._files.find(split, "annotations")]

    def use_answers(self, answers: AnswerDictionary) -> None:
        self._dictionary = answers

    def source_of(self, split: str) -> str:
        return "vg" if split == "vg" else "vqa"

    def image_splits(self, split: str) -> list[str]:
        return _IMAGE_SPLITS[split]

    def image_names(self, image_split: str) -> None:
        return None

    def files(self, split: str) -> dict[str, Path]:
        form = self._form(split)
        if form == "labels":
            paths = [self._files.need(split, "labels")]
            official = self._official_of(split)
            if official is not None:
                paths.append(self._files.need(official, "annotations"))
        elif form == "vg":
            paths = [self._files.need(split, "vg-answers"), self._files.need(split, "vg-images")]
        else:
            paths = [self._files.need(split, "questions")]
            if split in self._files.manifest.splits("annotations"):
                paths.append(self._files.need(split, "annotations"))
        return {path.name: path for path in paths}

    def questions(self, split: str) -> Questions:
        if split not in self._read:
            self._read[split] = self._load(split)
        return self._read[split]

    def texts(self, split: str) -> Sequence[str]:
        if split in self._read or self._form(split) != "official":
            return self.questions(split).texts
        path = self._files.need(split, "questions")
        return read_questions(path, self._files.subtype(split)).texts

    def majority(self, split: str) -> Sequence[str]:
        if self.rule == "labels":
            questions = self.questions(split)
            assert questions.answers is not None
            given = zip(questions.majority, questions.answers, strict=True)
            return [majority for majority, answers in given if answers]
        return self._read_annotations(split).majority

    def images(self, image_split: str) -> Images:
        short = _SHORT_NAME[image_split]
        folders = [self.raw / name for name in _FEATURE_FOLDERS]
        if self._features is not None:
            folders = [self._features]
            if self._features.is_file():
                return open_images(self._features, image_split)
        places = places_in(folders, image_split, short)
        if self._features is not None and not places:
            return open_images(self._features, image_split, only_split=True)
        expected = [folder / image_split for folder in folders]
        return find_images(places, image_split, expected=expected)

    def _form(self, split: str) -> str | None:
        """Which of its forms a split's questions are there in; official files come first."""
        if self._files.find(split, "questions"):
            return "official"
        if self._files.find(split, "labels"):
            return "labels"
        both = self._files.find(split, "vg-answers") and self._files.find(split, "vg-images")
        return "vg" if both else None

    def _official_of(self, split: str) -> str | None:
        """The VQA-v2 split whose annotations have a label split's answers, if they are there."""
        if split == "test" or self.rule == "labels":
            return None
        official = _OFFICIAL_OF[_IMAGE_SPLITS[split][0]]
        return official if self._files.find(official, "annotations") else None

    def _load(self, split: str) -> Questions:
        form = self._form(split)
        if form == "labels":
            return self._load_labels(split)
        if form == "vg":
            known = self._dictionary
            return read_visual_genome(
                self._files.need(split, "vg-answers"),
                self._files.need(split, "vg-images"),
                None if known is None else lambda answer: normalize_answer(answer) in known.index,
            )
        path = self._files.need(split, "questions")
        rows = read_questions(path, self._files.subtype(split))
        if split not in self._files.manifest.splits("annotations"):
            return Questions(rows.ids, rows.image_ids, rows.texts, [""] * len(rows.ids))
        annotations = self._read_annotations(split)
        whole = (path, self._files.need(split, "annotations"))
        order = _join(whole, rows.ids, rows.image_ids, annotations, all_of_them=True)
        return _annotated(rows.ids, rows.image_ids, rows.texts, annotations, order)

    def _load_labels(self, split: str) -> Questions:
        path = self._files.need(split, "labels")
        rows = read_lxmert(path)
        foreign = sorted(set(rows.image_splits) - set(_IMAGE_SPLITS[split]))
        if foreign:
            raise RawDataError(
                f"{path}: its images are of {', '.join(foreign)}, expected "
                f"{' and '.join(_IMAGE_SPLITS[split])}: the file of another split under this name"
            )
        questions = rows.questions
        official = self._official_of(split)
        if official is None:
            return questions
        annotations = self._read_annotations(official)
        both = (path, self._files.need(official, "annotations"))
        order = _join(both, questions.ids, questions.image_ids, annotations, all_of_them=False)
        return _annotated(questions.ids, questions.image_ids, questions.texts, annotations, order)

    def _read_annotations(self, split: str) -> AnnotationRows:
        if split not in self._annotations:
            path = self._files.need(split, "annotations")
            self._annotations[split] = read_annotations(path, self._files.subtype(split))
        return self._annotations[split]


def _annotated(
    ids: Sequence[int],
    image_ids: Sequence[int],
    texts: Sequence[str],
    annotations: AnnotationRows,
    order: NDArray[np.int64],
) -> Questions:
    found = annotations
    if not np.array_equal(order, np.arange(len(annotations.ids))):
        found = annotations.take(order)
    return Questions(
        ids,
        image_ids,
        texts,
        found.question_types,
        found.answers,
        found.majority,
        found.answer_types,
    )


def _join(
    paths: tuple[Path, Path],
    ids: Sequence[int],
    image_ids: Sequence[int],
    annotations: AnnotationRows,
    *,
    all_of_them: bool,
) -> NDArray[np.int64]:
    """The annotation row of every question, (q,); with ``all_of_them`` both files must hold the
    same questions, else the annotations may hold more."""
    path, annotations_path = paths
    asked, annotated = int64s(ids), int64s(annotations.ids)
    by_id = np.argsort(annotated, kind="stable")
    place = np.searchsorted(annotated, asked, sorter=by_id)
    order = by_id[np.minimum(place, len(by_id) - 1)]
    missing = asked[annotated[order] != asked]
    if len(missing) or (all_of_them and len(annotated) != len(asked)):
        extra = np.setdiff1d(annotated, asked)
        first = f"question {missing[0]} has no annotation" if len(missing) else ""
        last = f"annotation {extra[0]} has no question" if len(extra) else ""
        raise RawDataError(
            f"{path} and {annotations_path} do not belong together: {len(missing)} questions "
            f"without annotation, {len(extra)} annotations without question; "
            f"{'; '.join(filter(None, (first, last)))}. Use the two files of one release"
        )
    shown = int64s(annotations.image_ids)[order]
    named = np.frombuffer(annotations.named, np.bool_)[order]
    wrong = np.flatnonzero(named & (shown != int64s(image_ids)))
    if len(wrong):
        one = int(wrong[0])
        raise RawDataError(
            f"{annotations_path}: question {ids[one]} is about image {shown[one]}, {path.name} "
            f"says image {image_ids[one]}; use the two files of one release"
        )
    return order
