"""The raw files that trar-data knows by name: ``data_manifest.yaml``, as types.

A dataset has files; a file has a split, a kind (``holds``), the names that it may bear, and the
archive that it is published in. One archive may carry several files.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

import msgspec
import yaml

from trar.errors import ConfigError, RawDataError

Holds: TypeAlias = Literal[
    "questions",
    "annotations",
    "genome",  # Visual Genome as its authors publish it
    "pairs",  # complementary pairs of VQA v2.0
    "labels",  # LXMERT's questions with scored answers
    "answers",  # answer dictionaries
    "scenes",
    "instances",  # COCO's objects and image lists
    "refs",  # referring expressions
    "features",
    "images",
    "vectors",
]

_HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "md5": re.compile(r"[0-9a-f]{32}")}


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published file: an archive, or one that is used as it is.

    ``sha256`` and ``md5`` list every digest that is accepted; ``bytes`` is the size of the copy
    with the first one. ``urls`` begins with the official host.
    """

    name: str
    urls: list[str]
    bytes: int | None
    sha256: list[str]
    md5: list[str] = []

    def __post_init__(self) -> None:
        _check_name(self.name, folders=False)
        for kind, digests in (("sha256", self.sha256), ("md5", self.md5)):
            for digest in digests:
                if not _HEX[kind].fullmatch(digest):
                    raise ValueError(f"{self.name}: {digest!r} is not a {kind} digest")
        for url in self.urls:
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"{self.name}: {url!r} is not an http(s) URL")

    @property
    def exact_bytes(self) -> int | None:
        """The size that every accepted copy has; None where it is unknown, or copies differ."""
        return self.bytes if len(self.sha256) <= 1 else None


class RawFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One raw file: its names, and how to recognise it.

    ``split`` may join several by ``+``. ``form`` tells files of the same split and kind apart.
    ``subtype`` is what the file's header says of its split, ``issued`` the day before which its
    header's date means an older issue. ``count`` is of records and ``counts`` the same by part,
    ``images`` of the split's images; None where nobody has published it.
    """

    split: str
    holds: Holds
    names: list[str]
    count: int | None
    archive: Archive | None
    form: str | None = None
    folders: list[str] = []
    subtype: str | None = None
    issued: str | None = None
    images: int | None = None
    counts: dict[str, int] = {}
    licence: str | None = None
    by_hand: str | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"a file of {self.split} has no name")
        for name in (*self.names, *self.folders):
            _check_name(name, folders=True)

    @property
    def splits(self) -> list[str]:
        """The splits that it holds, one by one."""
        return self.split.split("+")

    @property
    def whole(self) -> bool:
        """The published file is used as it is; else its named members are unpacked."""
        return self.archive is None or self.archive.name in self.names

    def title(self) -> str:
        """How messages call it, for example ``train features (lxmert)``."""
        return f"{self.split} {self.holds}" + (f" ({self.form})" if self.form else "")


class DatasetFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files of one dataset, and the folders below ``--raw`` where they may stand.

    ``image_splits`` names the image splits that each question split refers to.
    """

    about: str
    licence: str
    home: str
    folders: list[str]
    files: list[RawFile]
    image_splits: dict[str, list[str]] = {}

    def __post_init__(self) -> None:
        seen = set()
        for file in self.files:
            key = (file.split, file.holds, file.form)
            if key in seen:
                raise ValueError(f"two files hold the {file.title()}")
            seen.add(key)
        for folder in self.folders:
            _check_name(folder, folders=True)

    def find(self, raw: Path, split: str, holds: str) -> Path | None:
        """The file of a split under ``raw``, or None."""
        return self.locate(raw, self.entry(split, holds))

    def need(self, raw: Path, split: str, holds: str) -> Path:
        """The file of a split under ``raw``.

        Raises:
            RawDataError: it is nowhere; the message lists where it may stand.
        """
        entry = self.entry(split, holds)
        path = self.locate(raw, entry)
        if path is None:
            places = ", ".join(str(raw / folder / entry.names[0]) for folder in self.places(entry))
            source = f" (from {entry.archive.name})" if entry.archive else ""
            fetched = entry.archive is not None and entry.archive.urls
            way = "`trar-data fetch` downloads it. " if fetched else ""
            by_hand = f"It is at {entry.by_hand}. " if entry.by_hand else ""
            raise RawDataError(
                f"no {holds} file for split {split!r}: expected one of {places}{source}; "
                f"put it there or point --raw at the folder that has it. {way}{by_hand}"
                f"See {self.home}"
            )
        return path

    def entry(self, split: str, holds: str) -> RawFile:
        """What the manifest says of a split's questions or annotations."""
        for file in self.files:
            if (file.split, file.holds) == (split, holds):
                return file
        raise KeyError(f"the manifest lists no {holds} of split {split}")

    def splits(self, holds: str = "questions") -> list[str]:
        """The splits that have such a file, in the manifest's order."""
        return [file.split for file in self.files if file.holds == holds]

    def places(self, entry: RawFile) -> list[str]:
        """The folders below ``--raw`` where a file may stand; ``fetch`` uses the first."""
        return entry.folders or self.folders

    def locate(self, raw: Path, entry: RawFile) -> Path | None:
        """Where a file stands under ``raw``, or None."""
        return self._look(raw, entry, entry.names)

    def locate_archive(self, raw: Path, entry: RawFile) -> Path | None:
        """Where the archive of a file stands under ``raw``, or None."""
        if entry.archive is None:
            return None
        return self._look(raw, entry, [entry.archive.name])

    def _look(self, raw: Path, entry: RawFile, names: Iterable[str]) -> Path | None:
        for folder in self.places(entry):
            for name in names:
                path = raw / folder / name
                if path.is_file():
                    return path
        return None

    def select(
        self, splits: Sequence[str] | None = None, what: Sequence[str] | None = None
    ) -> list[RawFile]:
        """The files of these splits and kinds; a kind may name a form, ``features:lxmert``.

        By default all splits, and questions and annotations, or every kind where a dataset has
        neither.

        Raises:
            ConfigError: an unknown split or kind, a kind that has several forms without saying
                which, or nothing that fits.
        """
        known = list(dict.fromkeys(one for file in self.files for one in file.splits))
        for split in splits or ():
            if split not in known:
                raise ConfigError(f"no split {split!r} here; there are {', '.join(known)}")
        kinds = list(dict.fromkeys(file.holds for file in self.files))
        if what is None:
            usual: list[str] = [kind for kind in kinds if kind in ("questions", "annotations")]
            what = usual or list(kinds)
        wanted = set(splits or known)
        chosen: list[RawFile] = []
        for one in what:
            kind, _, form = one.partition(":")
            mine = [file for file in self.files if file.holds == kind]
            forms = list(dict.fromkeys(file.form for file in mine if file.form))
            if not mine or (form and form not in forms):
                kinds_known = ", ".join(
                    file.holds + (f":{file.form}" if file.form else "") for file in self.files
                )
                raise ConfigError(
                    f"nothing here is called {one!r}; there are "
                    f"{', '.join(dict.fromkeys(kinds_known.split(', ')))}"
                )
            if kind == "features" and not form and len(forms) > 1:
                raise ConfigError(
                    "features of the same images come in several forms; name one of "
                    f"{', '.join(f'features:{one}' for one in forms)}"
                )
            chosen += [
                file
                for file in mine
                if wanted & set(file.splits) and (not form or file.form == form)
            ]
        if not chosen:
            raise ConfigError(
                f"no {' or '.join(what)} of {' or '.join(splits or ())} are known; "
                f"splits are {', '.join(known)}"
            )
        return chosen


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every dataset that trar-data knows."""

    version: int
    datasets: dict[str, DatasetFiles]


def parse_manifest(text: str) -> Manifest:
    """Read a manifest; an unknown key, a wrong type or a malformed digest is an error.

    Raises:
        msgspec.ValidationError: with the place in the document.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast
    return msgspec.convert(yaml.load(text, Loader=loader), Manifest)


@functools.cache
def load_manifest() -> Manifest:
    """The manifest that this installation carries."""
    packed = resources.files("trar") / "data_manifest.yaml"  # where the wheel puts it
    here = Path(__file__).parents[2] / "data_manifest.yaml"  # a checkout
    return parse_manifest(packed.read_text() if packed.is_file() else here.read_text())


def dataset_files(dataset: str) -> DatasetFiles:
    """The files of a dataset.

    Raises:
        ConfigError: there is no such dataset.
    """
    datasets = load_manifest().datasets
    if dataset not in datasets:
        raise ConfigError(f"unknown dataset {dataset!r}; there are {', '.join(datasets)}")
    return datasets[dataset]


def _check_name(name: str, *, folders: bool) -> None:
    """A name of the manifest becomes a path below ``--raw`` and never leaves it."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name!r} is not a name below the raw folder")
    if not folders and "/" in name:
        raise ValueError(f"{name!r} must be a file name without folders")


KINDS: tuple[str, ...] = get_args(Holds)
