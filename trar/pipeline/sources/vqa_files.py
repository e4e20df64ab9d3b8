"""Which question, annotation and label files of VQA-v2, Visual Genome and LXMERT are there.

They stand where the originals' trees have them (names and folders: data_manifest.yaml), or are
given one by one and known by what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from trar.errors import RawDataError
from trar.pipeline.manifest import load_manifest
from trar.pipeline.readers.json_file import read_json_bytes

Holds = Literal["questions", "annotations", "labels", "vg-answers", "vg-images"]

_SPLIT_OF_SUBTYPE = {
    "train2014": "train",
    "val2014": "val",
    "test2015": "test",
    "test-dev2015": "test-dev",
}
LABEL_SPLITS = ("train", "nominival", "minival", "test")
_LABEL_FOLDERS = ("vqa", "lxmert/vqa", "vqa/lxmert", ".")
_VG_FOLDERS = ("vqa/raw", "raw", "vqa", "vg", "visual_genome", "VG", ".")
_VG_NAMES: dict[Holds, str] = {
    "vg-answers": "question_answers.json",
    "vg-images": "image_data.json",
}


class _Peek(msgspec.Struct):
    data_subtype: str | None = None
    questions: msgspec.Raw = msgspec.Raw()
    annotations: msgspec.Raw = msgspec.Raw()


class VqaFiles:
    """The files below ``raw``, or the files ``given`` instead of them.

    Raises:
        RawDataError: a given file is missing, or is none of these.
    """

    def __init__(self, raw: Path, given: Sequence[Path] = ()) -> None:
        self.raw = raw
        self.manifest = load_manifest().datasets["vqa"]
        self._given: dict[tuple[str, Holds], Path] | None = None
        if given:
            self._given = {}
            for path in given:
                key = self._recognise(path)
                other = self._given.setdefault(key, path)
                if other != path:
                    raise RawDataError(
                        f"{other} and {path} both hold the {key[1]} of split {key[0]}; give one"
                    )

    def find(self, split: str, holds: Holds) -> Path | None:
        """The file of a split, or None."""
        if self._given is not None:
            return self._given.get((split, holds))
        if holds in ("questions", "annotations"):
            listed = split in self.manifest.splits(holds)
            return self.manifest.find(self.raw, split, holds) if listed else None
        if holds == "labels":
            names = [f"{split}.json"] if split in LABEL_SPLITS else []
            return _first(self.raw, _LABEL_FOLDERS, names)
        name = _VG_NAMES[holds]
        return _first(self.raw, _VG_FOLDERS, [name, f"{name}.zip"]) if split == "vg" else None

    def need(self, split: str, holds: Holds) -> Path:
        """The file of a split.

        Raises:
            RawDataError: it is nowhere; the message lists where it may stand.
        """
        path = self.find(split, holds)
        if path is not None:
            return path
        if self._given is not None:
            have = ", ".join(f"{one[1]} of {one[0]}" for one in self._given)
            raise RawDataError(f"no {holds} of split {split!r} among --questions, which has {have}")
        if split in LABEL_SPLITS and split not in _SPLIT_OF_SUBTYPE.values():
            places = ", ".join(str(self.raw / one / f"{split}.json") for one in _LABEL_FOLDERS)
            raise RawDataError(f"no file of split {split!r}: expected one of {places}")
        return self.manifest.need(self.raw, split, holds)

    def subtype(self, split: str) -> str | None:
        """What the header of a split's official files says."""
        return next((sub for sub, one in _SPLIT_OF_SUBTYPE.items() if one == split), None)

    def _recognise(self, path: Path) -> tuple[str, Holds]:
        if not path.is_file():
            raise RawDataError(f"{path}: no such file (--questions)")
        data = read_json_bytes(path, path.name)
        try:
            peek = msgspec.json.decode(data, type=_Peek)
        except msgspec.DecodeError:
            return self._recognise_list(path, data)
        holds: Holds = "annotations" if len(peek.annotations) else "questions"
        if not len(peek.questions) and not len(peek.annotations):
            raise RawDataError(f"{path}: neither questions nor annotations are in it (--questions)")
        split = _SPLIT_OF_SUBTYPE.get(peek.data_subtype or "")
        if split is None:
            named = {
                entry.split
                for entry in self.manifest.files
                if entry.holds == holds and path.name in entry.names
            }
            if len(named) != 1:
                raise RawDataError(
                    f"{path}: which split is it of? Its header names none "
                    f"(data_subtype {peek.data_subtype!r}); name it as data_manifest.yaml does, "
                    "for example v2_OpenEnded_mscoco_train2014_questions.json or VG_questions.json"
                )
            split = named.pop()
        return split, holds

    def _recognise_list(self, path: Path, data: bytes) -> tuple[str, Holds]:
        try:
            rows = msgspec.json.decode(data, type=list[msgspec.Raw])
            keys = set(msgspec.json.decode(rows[0], type=dict[str, msgspec.Raw]) if rows else ())
        except msgspec.DecodeError as error:
            raise RawDataError(
                f"{path}: not a question file ({error}); --questions takes VQA-v2, Visual Genome "
                "and LXMERT JSON files"
            ) from None
        if "qas" in keys:
            return "vg", "vg-answers"
        if "coco_id" in keys:
            return "vg", "vg-images"
        if {"sent", "img_id"} <= keys and path.stem in LABEL_SPLITS:
            return path.stem, "labels"
        raise RawDataError(
            f"{path}: a list of records with {', '.join(sorted(keys)[:8]) or 'nothing'}; "
            f"LXMERT's files are named {', '.join(f'{one}.json' for one in LABEL_SPLITS)} and have "
            "img_id, sent, question_id"
        )


def _first(raw: Path, folders: Sequence[str], names: Sequence[str]) -> Path | None:
    for folder in folders:
        for name in names:
            if (raw / folder / name).is_file():
                return raw / folder / name
    return None
