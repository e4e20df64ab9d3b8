"""A user's own data: a table of questions, and a folder or archive with the images' features.

Where every question with an answer has exactly one, it is right and worth 1.0, and scoring is by
exact match (rule "exact"). Where any has more, answers are counted as VQA-v2 counts its ten
annotators': 1, 2, 3, 4 or more alike are worth .3, .6, .9, 1 (rule "vqa").

Images named by whole numbers or in COCO's way (COCO_train2014_000000000009.jpg) have that id.
Other names ("cat.jpg", "photos/7a.png") get their position in the sorted list of all the table's
names as id. All splits share the image split "images".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trar.errors import RawDataError
from trar.features.answers import AnswerDictionary
from trar.features.schema import TargetRule
from trar.pipeline.readers.image import Images
from trar.pipeline.readers.table import read_table
from trar.pipeline.sources.base import Questions
from trar.pipeline.sources.features import FORMS, find_images

IMAGE_SPLIT = "images"

_FORMS = (".csv", ".jsonl", ".parquet")
_FEATURE_FOLDERS = ("features", "feats", "images")
_PLACES = ("", *FORMS)
_USUAL_SPLITS = ("train", "val", "valid", "validation", "dev", "test", "test-dev", "trainval")
_FEATURE_SUFFIX = re.compile(r"\.(?:npy|npz|pth)\Z", re.IGNORECASE)
_IMAGE_SUFFIX = re.compile(r"\.(?:jpe?g|png|gif|bmp|webp|tiff?)\Z", re.IGNORECASE)
_NUMBER = re.compile(r"(?:COCO_(?P<split>[a-z0-9]{1,20})_(?=[0-9]{12}\b))?(?P<id>[0-9]{1,18})")


class TableSource:
    """The table ``table``, or the only one in ``raw``; features at ``features``, or in ``raw``.

    Without a column "split" all questions are of one, named as the file is where that is a usual
    name (test.csv), else "train". The answer dictionary is made from all splits with answers but
    those whose name begins with "test".

    Raises:
        RawDataError: no table, several, or one that cannot be read.
    """

    dataset = "table"
    min_count = 1
    grid = 8

    def __init__(self, raw: Path, table: Path | None = None, features: Path | None = None) -> None:
        self.path = table or _only_table(raw)
        self._folder = raw.parent if raw.is_file() else raw
        self._features = features
        rows = read_table(self.path)
        self._images = ImageNames.of(rows.images)
        stem = self.path.stem if self.path.stem in _USUAL_SPLITS else "train"
        names = rows.splits or [stem] * len(rows.ids)
        members: dict[str, list[int]] = {}
        for row, split in enumerate(names):
            members.setdefault(split, []).append(row)
        self.splits: tuple[str, ...] = tuple(members)
        self._questions: dict[str, Questions] = {}
        for split, of_split in members.items():
            answers = [some for some in (rows.answers[row] for row in of_split) if some is not None]
            self._questions[split] = Questions(
                [rows.ids[row] for row in of_split],
                [self._images.ids[row] for row in of_split],
                [rows.texts[row] for row in of_split],
                [rows.types[row] for row in of_split],
                answers or None,
                [_most_frequent(some) for some in answers],
                [rows.answer_types[row] for row in of_split] if answers else (),
            )
        several = any(some is not None and len(some) > 1 for some in rows.answers)
        self.rule: TargetRule = "vqa" if several else "exact"

    def present(self) -> list[str]:
        return list(self.splits)

    def vocabulary_note(self) -> str | None:
        return None

    def answer_splits(self) -> list[str]:
        answered = [split for split in self.splits if self._questions[split].answers is not None]
        return [split for split in answered if not split.startswith("test")] or answered

    def use_answers(self, answers: AnswerDictionary) -> None:
        """Every question is kept whatever its answer."""

    def texts(self, split: str) -> Sequence[str]:
        return self.questions(split).texts

    def majority(self, split: str) -> Sequence[str]:
        return self.questions(split).majority

    def questions(self, split: str) -> Questions:
        if split not in self._questions:
            raise RawDataError(
                f"{self.path}: no split {split!r}; its splits are {', '.join(self.splits)}"
            )
        return self._questions[split]

    def source_of(self, split: str) -> str:
        return f"table-{split}"

    def image_splits(self, split: str) -> list[str]:
        return [IMAGE_SPLIT]

    def image_names(self, image_split: str) -> Sequence[str] | None:
        return self._images.names

    def files(self, split: str) -> dict[str, Path]:
        return {self.path.name: self.path}

    def images(self, image_split: str) -> Images:
        if self._features is not None:
            return find_images([self._features], image_split, self._images.identify)
        folders = [self._folder / name for name in _FEATURE_FOLDERS]
        places = [folder.with_name(folder.name + form) for folder in folders for form in _PLACES]
        return find_images(places, image_split, self._images.identify, expected=folders)


@dataclass(frozen=True)
class ImageNames:
    """``ids`` of a table's images, row by row, and ``names`` by id where images have names.

    ``_by_stem`` finds an id by a name without its suffix, with and without folders; None marks
    what two images would answer to.
    """

    ids: list[int]
    names: list[str] | None
    _by_stem: dict[str, int | None]

    @classmethod
    def of(cls, images: Sequence[str]) -> ImageNames:
        """The images of all rows of a table."""
        names = sorted(set(images))
        numbers = [_number(name) for name in names]
        known = [number for number in numbers if number is not None]
        if len(known) == len(names) and len({one for _, one in known}) == len(set(known)):
            id_of = {name: number for name, (_, number) in zip(names, known, strict=True)}
            return cls([id_of[image] for image in images], None, {})
        id_of = {name: position for position, name in enumerate(names)}
        by_stem: dict[str, int | None] = {}
        for name, position in id_of.items():
            for key in {_stem(name), _base(name)}:
                by_stem[key] = None if key in by_stem else position
        by_stem.update(id_of)
        return cls([id_of[image] for image in images], names, by_stem)

    def identify(self, name: str) -> tuple[str | None, int] | None:
        """(None, image id) of a feature file's name or a member's path, None for another file.

        Raises:
            RawDataError: two images of the table answer to that name.
        """
        bare = _FEATURE_SUFFIX.sub("", name)
        if bare == name:
            return None
        if self.names is None:
            number = _number(_file(bare))
            return None if number is None else (None, number[1])
        for key in (name, bare, _file(bare), _stem(bare), _base(bare)):
            if key in self._by_stem:
                found = self._by_stem[key]
                if found is None:
                    both = [one for one in self.names if key in (one, _stem(one), _base(one))][:2]
                    raise RawDataError(
                        f"{name}: features of {' or of '.join(both)}? Name the file after the "
                        "whole name of its image, or give the images names that differ"
                    )
                return None, found
        return None


def _number(name: str) -> tuple[str | None, int] | None:
    """(split it names, id) of a whole number or a COCO name."""
    match = _NUMBER.fullmatch(name) or _NUMBER.fullmatch(_stem(name))
    if match is None or (match["split"] is None and not name.isdigit()):
        return None
    return match["split"], int(match["id"])


def _stem(name: str) -> str:
    return _IMAGE_SUFFIX.sub("", _FEATURE_SUFFIX.sub("", name))


def _file(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _base(name: str) -> str:
    return _stem(_file(name))


def _most_frequent(answers: Sequence[str]) -> str:
    """The earlier of equals."""
    return answers[0] if len(answers) == 1 else Counter(answers).most_common(1)[0][0]


def _only_table(raw: Path) -> Path:
    if raw.is_file():
        return raw
    found = sorted(path for path in raw.glob("*") if path.suffix.lower() in _FORMS)
    if not found:  # a .tsv beside a table may be one of features
        stems = set(_FEATURE_FOLDERS)
        found = [path for path in sorted(raw.glob("*.tsv")) if path.stem not in stems]
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:8])
        raise RawDataError(
            f"{raw}: {f'{len(found)} tables ({names})' if found else 'no table'}, expected one "
            ".csv, .tsv, .jsonl or .parquet file there; name the one that is meant with --questions"
        )
    return found[0]
