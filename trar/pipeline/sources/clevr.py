"""CLEVR v1.0 and CLEVR-CoGenT, in the trees of TRAR and openvqa, of the releases, and clevr-iep's.

data/clevr/raw/questions/CLEVR_train_questions.json, data/clevr/feats/train/0.npz, …
CLEVR_v1.0/questions/, CLEVR_CoGenT_v1.0/questions/, or still inside the released zips.

Image and question numbers start again at 0 in every split, so each split is a source and an image
split of its own. Answers are scored as they stand, in openvqa's order of first appearance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trar.errors import RawDataError
from trar.features.answers import AnswerDictionary
from trar.features.schema import TargetRule
from trar.pipeline.readers.clevr_json import read_clevr
from trar.pipeline.readers.image import Images
from trar.pipeline.readers.json_file import json_members
from trar.pipeline.sources.base import Questions
from trar.pipeline.sources.features import find_images, places_in

SPLITS = ("train", "val", "test", "trainA", "valA", "testA", "valB", "testB")

_ANSWER_SPLITS = (("train", "val"), ("trainA", "valA"), ("valB",))
_QUESTION_FOLDERS = (
    "clevr/raw/questions",
    "clevr/raw",
    "clevr/questions",
    "clevr/CLEVR_v1.0/questions",
    "clevr/CLEVR_CoGenT_v1.0/questions",
    "CLEVR_v1.0/questions",
    "CLEVR_CoGenT_v1.0/questions",
    "raw/questions",
    "questions",
    ".",
)
_ZIPS = (
    "CLEVR_v1.0_no_images.zip",
    "CLEVR_CoGenT_v1.0_no_images.zip",
    "CLEVR_v1.0.zip",
    "CLEVR_CoGenT_v1.0.zip",
)
_FEATURE_FOLDERS = ("clevr/feats", "feats", "clevr/features", "features", "clevr", ".")
_NAME = re.compile(r"CLEVR_(?P<split>[A-Za-z]+)_questions\.json")


@dataclass(frozen=True)
class _Place:
    """A question file, or a member of a zip."""

    path: Path
    member: str = ""


class ClevrSource:
    """Raw files below ``raw``, or ``features`` and ``questions`` where given.

    A given question file belongs to the split that it names inside, else to that of its name.
    """

    dataset = "clevr"
    rule: TargetRule = "exact"
    min_count = 1
    splits: tuple[str, ...] = SPLITS
    grid = 14

    def __init__(
        self, raw: Path, features: Path | None = None, questions: Sequence[Path] = ()
    ) -> None:
        self.raw = raw
        self._features = features
        self._read: dict[str, Questions] = {}
        self._owner: dict[str, str] = {}  # first file of the given features -> its image split
        self._places = self._given(questions) if questions else self._found()

    def present(self) -> list[str]:
        return [split for split in SPLITS if split in self._places]

    def vocabulary_note(self) -> str | None:
        here = self.present()
        if not {"train", "val", "test"} & set(here):
            return None  # CoGenT: nothing published to agree with
        missing = [split for split in ("train", "val", "test") if split not in here]
        if not missing:
            return None
        return (
            f"the vocabulary is made without the questions of {', '.join(missing)}; published "
            "checkpoints need those of train, val and test"
        )

    def answer_splits(self) -> list[str]:
        here = set(self.present())
        for group in _ANSWER_SPLITS:
            if here & set(group):
                return [split for split in group if split in here]
        return []

    def use_answers(self, answers: AnswerDictionary) -> None:
        """Every question is kept whatever its answer."""

    def texts(self, split: str) -> Sequence[str]:
        return self.questions(split).texts

    def majority(self, split: str) -> Sequence[str]:
        return self.questions(split).majority

    def questions(self, split: str) -> Questions:
        if split not in self._read:
            place = self._need(split)
            self._read[split] = read_clevr(place.path, split, place.member).questions
        return self._read[split]

    def source_of(self, split: str) -> str:
        return f"clevr-{split}"

    def image_splits(self, split: str) -> list[str]:
        return [split]

    def image_names(self, image_split: str) -> None:
        return None

    def files(self, split: str) -> dict[str, Path]:
        path = self._need(split).path
        return {path.name: path}

    def images(self, image_split: str) -> Images:
        folders = [self.raw / name for name in _FEATURE_FOLDERS]
        if self._features is not None:
            folders = [self._features]
        places = places_in(folders, image_split)
        if self._features is None or places:
            expected = [folder / image_split for folder in folders]
            return find_images(places, image_split, expected=expected)
        images = find_images([self._features], image_split, only_split=True)
        first = images.name(0)
        owner = self._owner.setdefault(first, image_split)
        if owner != image_split:
            raise RawDataError(
                f"{first}: an image of {owner} or of {image_split}? CLEVR's image numbers start "
                f"again in each split; give a folder with sub-folders or files {owner} and "
                f"{image_split}, or name the files CLEVR_{image_split}_000000.npy"
            )
        return images

    def _found(self) -> dict[str, _Place]:
        places: dict[str, _Place] = {}
        for split in SPLITS:
            for folder in _QUESTION_FOLDERS:
                path = self.raw / folder / f"CLEVR_{split}_questions.json"
                if path.is_file():
                    places[split] = _Place(path)
                    break
        for folder in ("clevr/raw", "clevr", "."):
            for name in _ZIPS:
                path = self.raw / folder / name
                if path.is_file():
                    for member, split in _question_members(path):
                        places.setdefault(split, _Place(path, member))
        return places

    def _given(self, questions: Sequence[Path]) -> dict[str, _Place]:
        places: dict[str, _Place] = {}
        for path in questions:
            for place, by_name in _members_of(path):
                rows = read_clevr(place.path, None, place.member)
                split = rows.split or by_name
                if split not in SPLITS:
                    raise RawDataError(
                        f"{path}: questions of split {split!r:.80}, expected one of "
                        f"{', '.join(SPLITS)}; correct the split in the file, or, where it names "
                        "none, call it CLEVR_train_questions.json, …"
                    )
                other = places.setdefault(split, place)
                if other != place:
                    raise RawDataError(
                        f"{other.path} and {path} both hold the questions of {split}; give one"
                    )
                self._read[split] = rows.questions
        return places

    def _need(self, split: str) -> _Place:
        place = self._places.get(split)
        if place is None:
            name = f"CLEVR_{split}_questions.json"
            folders = ", ".join(str(self.raw / one / name) for one in _QUESTION_FOLDERS)
            raise RawDataError(
                f"no questions of CLEVR's split {split!r} (there are "
                f"{', '.join(self.present()) or 'none'}): expected one of {folders}; put the file "
                "there or point --raw at the folder that has it"
            )
        return place


def _members_of(path: Path) -> list[tuple[_Place, str | None]]:
    """The question files of a given path, with the split that each one's name says."""
    if path.suffix.lower() == ".zip":
        members = _question_members(path)
        if members:
            return [(_Place(path, member), split) for member, split in members]
    match = _NAME.fullmatch(path.name)
    return [(_Place(path), match["split"] if match else None)]


def _question_members(path: Path) -> list[tuple[str, str]]:
    """(member, split) of the question files in a zip."""
    matches = [(name, _NAME.fullmatch(Path(name).name)) for name in json_members(path)]
    return [(name, match["split"]) for name, match in matches if match is not None]
