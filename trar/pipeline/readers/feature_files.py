"""One feature file per image, as TRAR, openvqa, CLEVR and grid-feats-vqa lay them out, in a folder
or in an archive."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.readers.image_file import count_regions, read_image
from trar.pipeline.readers.raw_file import PlainFile, RawFile
from trar.pipeline.readers.regular_file import reading

Identify = Callable[[str], tuple[str | None, int] | None]
"""(split that a file's name states or None, image id) of a name; None for a foreign file."""

SUFFIXES = (".npy", ".npz", ".pth")

_AS_REGIONS = Form(None)

# 9.npy, COCO_train2014_000000000009.jpg.npz, CLEVR_train_000009.png.npz
_NAME = re.compile(
    r"(?:(?:COCO_(?P<coco>[a-z0-9]+)|CLEVR_(?P<clevr>[A-Za-z0-9]+))_)?(?P<id>[0-9]{1,18})"
    r"(?:\.jpg|\.png)?\.(?:np[yz]|pth)"
)


def identify_image(name: str) -> tuple[str | None, int] | None:
    """The published names: ``9.npy``, ``COCO_train2014_000000000009.jpg.npz``,
    ``CLEVR_train_000009.npz``, also as a member's path."""
    match = _NAME.fullmatch(name.rpartition("/")[2])
    return None if match is None else (match["coco"] or match["clevr"], int(match["id"]))


@dataclass(frozen=True)
class FeatureFiles:
    """The images of one split by ascending id: ``ids`` (images,) int64, and a file for each."""

    ids: NDArray[np.int64]
    files: list[RawFile]
    form: Form = _AS_REGIONS

    @classmethod
    def scan(
        cls,
        folder: Path,
        image_split: str,
        identify: Identify = identify_image,
        *,
        only_split: bool = False,
        deep: bool = False,
    ) -> FeatureFiles:
        """List a folder; where ``deep``, its sub-folders too, and names are paths below it.

        ``only_split`` allows it to hold several splits, where every name says which: those of
        ``image_split`` are taken.

        Raises:
            RawDataError: no feature file there, two files of one image, or a file whose name
                says that it belongs to another split.
        """
        return select_images(_entries(folder, deep), str(folder), image_split, identify, only_split)

    def __len__(self) -> int:
        return len(self.files)

    def part(self, start: int, stop: int) -> FeatureFiles:
        """The images of rows start..stop, small enough to send to a worker."""
        return FeatureFiles(self.ids[start:stop], self.files[start:stop], self.form)

    def with_form(self, form: Form) -> FeatureFiles:
        """The same images, read in this form."""
        return replace(self, form=form)

    def read(self, row: int) -> RawImage:
        """The image of a row.

        Raises:
            RawDataError: missing, damaged, another kind of file, or no image in this form.
        """
        return read_image(self.files[row], self.form)

    def regions(self, row: int) -> int:
        """How many regions a row has; plain files are not read whole for it.

        Raises:
            RawDataError: as ``read``, as far as the file's headers tell.
        """
        return count_regions(self.files[row], self.form)

    def name(self, row: int) -> str:
        """Where the image comes from, for messages."""
        return self.files[row].name

    def fingerprint(self) -> str:
        """Changes when a file is replaced: names without folders, sizes, modification times.

        Raises:
            RawDataError: a file has gone.
        """
        digest = hashlib.sha256()
        for file in self.files:
            name = file.name.rpartition("/")[2]
            digest.update(f"{name} {file.stamp()}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def select_images(
    named: Iterable[tuple[str, str | None, RawFile]],
    place: str,
    image_split: str,
    identify: Identify,
    only_split: bool,
) -> FeatureFiles:
    """Out of (name, split that its folder states, file), the images of one split.

    Raises:
        RawDataError: as ``FeatureFiles.scan``.
    """
    found: dict[int, tuple[str, RawFile]] = {}
    foreign: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    unsplit = ""
    for name, folder_split, file in named:
        known = identify(name)
        if known is None:
            foreign[PurePosixPath(name).suffix or name] += 1
            continue
        split, image_id = known[0] or folder_split, known[1]
        if split not in (None, image_split):
            if not only_split:
                raise RawDataError(
                    f"{file.name}: a file of {split} in the folder of {image_split}; move it to "
                    "its own folder"
                )
            elsewhere[str(split)] += 1
            continue
        unsplit = unsplit or (name if split is None else "")
        first, first_file = found.setdefault(image_id, (name, file))
        if first_file is not file:
            raise RawDataError(
                f"{place}: two files for image {image_id}: {first} and {name}; keep one"
            )
    if elsewhere and unsplit:
        raise RawDataError(
            f"{place}: {unsplit} does not say of which split it is, others there are of "
            f"{_listed(elsewhere)}; put each split into a folder of its name"
        )
    if not found:
        of = f" of {image_split}" if elsewhere else ""
        has = _listed(Counter({f"of {one}": count for one, count in elsewhere.items()}) + foreign)
        raise RawDataError(
            f"{place}: no feature files{of}; expected {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} "
            f"files named like COCO_{image_split}_000000000009.jpg.npz or 9.npy; found "
            f"{has or 'nothing'}"
        )
    ids = np.array(sorted(found), np.int64)
    return FeatureFiles(ids, [found[image_id][1] for image_id in ids.tolist()])


def _entries(folder: Path, deep: bool) -> Iterator[tuple[str, None, RawFile]]:
    with reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            if deep and entry.is_dir():
                for name, _, file in _entries(folder / entry.name, deep):
                    yield f"{entry.name}/{name}", None, file
            else:
                yield entry.name, None, PlainFile(folder / entry.name)


def _listed(counts: Counter[str]) -> str:
    names = [(count, name if name.isprintable() else ascii(name)) for name, count in counts.items()]
    return ", ".join(f"{count} {name}" for count, name in sorted(names, reverse=True)[:5])
