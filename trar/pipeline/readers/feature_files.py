"""A folder with one feature file per image, as TRAR, openvqa and grid-feats-vqa lay them out."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.fileio import disk_errors
from trar.pipeline.readers.arrays import SUFFIXES, read_features

# 9.npy, 9.npz, COCO_train2014_000000000009.jpg.npz, COCO_train2014_000000000009.npy
_NAME = re.compile(r"(?:COCO_(?P<split>[a-z0-9]+)_)?(?P<id>\d+)(?:\.jpg)?\.np[yz]")


@dataclass(frozen=True)
class FeatureFiles:
    """The images of one split by ascending id: ``ids`` (n,) int64, one path each."""

    ids: NDArray[np.int64]
    paths: list[Path]
    grid: int

    @classmethod
    def scan(cls, folder: Path, image_split: str, grid: int) -> FeatureFiles:
        """List a folder.

        Raises:
            RawDataError: no feature file there, two files of one image, or a file whose name
                says that it belongs to another split.
        """
        found: dict[int, Path] = {}
        others: Counter[str] = Counter()
        with disk_errors(folder), os.scandir(folder) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None:
                    others[Path(entry.name).suffix or entry.name] += 1
                    continue
                path = folder / entry.name
                if match["split"] not in (None, image_split):
                    raise RawDataError(
                        f"{path}: a file of {match['split']} in the folder of {image_split}; "
                        "move it to its own folder"
                    )
                first = found.setdefault(int(match["id"]), path)
                if first != path:
                    raise RawDataError(
                        f"{folder}: two files for image {int(match['id'])}: {first.name} and "
                        f"{path.name}; keep one"
                    )
        if not found:
            has = ", ".join(f"{count} {name}" for name, count in others.most_common(5))
            raise RawDataError(
                f"{folder}: no feature files; expected {' or '.join(SUFFIXES)} files named like "
                f"COCO_{image_split}_000000000009.jpg.npz or 9.npy; found {has or 'nothing'}"
            )
        ids = np.array(sorted(found), np.int64)
        return cls(ids, [found[image_id] for image_id in ids.tolist()], grid)

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, start: int, stop: int) -> FeatureFiles:
        """The images of rows start..stop, small enough to send to a worker."""
        return FeatureFiles(self.ids[start:stop], self.paths[start:stop], self.grid)

    def read(self, row: int) -> NDArray[Any]:
        """The raw array of one image, of any orientation that ``transforms.orient`` knows."""
        return read_features(self.paths[row], self.grid)

    def name(self, row: int) -> str:
        """Where the image comes from, for messages."""
        return str(self.paths[row])

    def fingerprint(self) -> str:
        """Changes when a file is replaced: names, sizes and modification times."""
        digest = hashlib.sha256()
        for path in self.paths:
            stat = path.stat()
            digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()
