"""The raw files that trar-data knows by name: ``data_manifest.yaml``, as types."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from trar.errors import RawDataError


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The published archive that a file comes in; digests are of whole archives."""

    name: str
    bytes: int | None
    sha256: list[str]


class RawFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question or annotation file: its names, and how to recognise it."""

    split: str
    holds: Literal["questions", "annotations"]
    names: list[str]
    subtype: str | None
    count: int | None
    archive: Archive | None


class DatasetFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files of one dataset, and the folders below ``--raw`` where they may stand."""

    about: str
    licence: str
    home: str
    folders: list[str]
    files: list[RawFile]

    def find(self, raw: Path, split: str, holds: str) -> Path | None:
        """The file of a split under ``raw``, or None."""
        for folder in self.folders:
            for name in self.entry(split, holds).names:
                path = raw / folder / name
                if path.is_file():
                    return path
        return None

    def need(self, raw: Path, split: str, holds: str) -> Path:
        """The file of a split under ``raw``.

        Raises:
            RawDataError: it is nowhere; the message lists where it may stand.
        """
        path = self.find(raw, split, holds)
        if path is None:
            entry = self.entry(split, holds)
            places = ", ".join(str(raw / folder / entry.names[0]) for folder in self.folders)
            source = f" (from {entry.archive.name})" if entry.archive else ""
            raise RawDataError(
                f"no {holds} file for split {split!r}: expected one of {places}{source}; "
                f"put it there or point --raw at the folder that has it. See {self.home}"
            )
        return path

    def entry(self, split: str, holds: str) -> RawFile:
        """What the manifest says of a split's questions or annotations."""
        return next(f for f in self.files if (f.split, f.holds) == (split, holds))

    def splits(self, holds: str = "questions") -> list[str]:
        """The splits that have such a file, in the manifest's order."""
        return [file.split for file in self.files if file.holds == holds]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every dataset that trar-data knows."""

    version: int
    datasets: dict[str, DatasetFiles]


@functools.cache
def load_manifest() -> Manifest:
    """The manifest that this installation carries."""
    packed = resources.files("trar") / "data_manifest.yaml"  # where the wheel puts it
    here = Path(__file__).parents[2] / "data_manifest.yaml"  # a checkout
    text = packed.read_text() if packed.is_file() else here.read_text()
    return msgspec.convert(yaml.safe_load(text), Manifest)
