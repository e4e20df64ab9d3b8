"""easy-VQA: 64x64 images of one coloured shape, carried by the PyPI package ``easy-vqa``.

Its images become grid features like everybody else's: the descriptor of each 8x8-pixel cell
(``grid_descriptor``), standardised by the mean and deviation of each channel over every tenth
training image. Another tenth is held out as ``val``. Questions have no ids in the raw files; here
a question's id is its image's id * 1000 + its position among that image's questions.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.features.answers import AnswerDictionary
from trar.features.schema import TargetRule
from trar.pipeline.grid_descriptor import CHANNELS, describe_cells, standardise
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.sources.base import Questions

HELD_OUT_EVERY = 10  # training images with id % 10 == 9 are val, with id % 10 == 0 are measured
GRID = 8

_FOLDER = {"train": "train", "val": "train", "test": "test"}


@dataclass(frozen=True)
class EasyVqaImages:
    """Images of one split by ascending id, described and standardised when read; grid features,
    whatever form is asked for."""

    ids: NDArray[np.int64]
    folder: Path
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> EasyVqaImages:
        return EasyVqaImages(self.ids[start:stop], self.folder, self.mean, self.scale)

    def with_form(self, form: Form) -> EasyVqaImages:
        return self  # always described as the same grid

    def regions(self, row: int) -> int:
        return GRID * GRID

    def read(self, row: int) -> RawImage:
        pixels = _read_image(self.folder / f"{self.ids[row]}.png")
        return RawImage(standardise(describe_cells(pixels[None])[0], self.mean, self.scale))

    def name(self, row: int) -> str:
        return str(self.folder / f"{self.ids[row]}.png")

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.mean.tobytes() + self.scale.tobytes())
        for image_id in self.ids.tolist():
            stat = (self.folder / f"{image_id}.png").stat()
            digest.update(f"{image_id} {stat.st_size}\n".encode())  # a wheel has no useful mtime
        return digest.hexdigest()


class EasyVqaSource:
    """The package's own data, or a copy of its ``data`` folder below ``raw``."""

    dataset = "easy-vqa"
    rule: TargetRule = "exact"
    min_count = 1
    splits: tuple[str, ...] = ("train", "val", "test")
    grid = GRID

    def __init__(self, raw: Path) -> None:
        self._root = _find_data(raw)
        self._statistics: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def present(self) -> list[str]:
        return list(self.splits)

    def vocabulary_note(self) -> str | None:
        return None

    def answer_splits(self) -> list[str]:
        return ["train", "val"]

    def use_answers(self, answers: AnswerDictionary) -> None:
        pass

    def source_of(self, split: str) -> str:
        return self.dataset

    def image_splits(self, split: str) -> list[str]:
        return [split]

    def image_names(self, image_split: str) -> None:
        return None

    def files(self, split: str) -> dict[str, Path]:
        name = f"{_FOLDER[split]}/questions.json"
        return {name: self._root / name}

    def texts(self, split: str) -> list[str]:
        return list(self.questions(split).texts)

    def majority(self, split: str) -> list[str]:
        return list(self.questions(split).majority)

    def questions(self, split: str) -> Questions:
        path = self._root / _FOLDER[split] / "questions.json"
        try:
            rows = msgspec.json.decode(path.read_bytes(), type=list[tuple[str, str, int]])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RawDataError(
                f"{path}: not the questions of easy-VQA, a list of [question, answer, image id] "
                f"({error}); install the package easy-vqa again"
            ) from None
        position: Counter[int] = Counter()
        ids, kept = [], []
        for row in rows:
            image_id = row[2]
            ids.append(image_id * 1000 + position[image_id])
            position[image_id] += 1
            kept.append(_belongs(image_id, split))
        chosen = [row for row, keep in enumerate(kept) if keep]
        texts = [rows[row][0] for row in chosen]
        answers = [rows[row][1] for row in chosen]
        return Questions(
            [ids[row] for row in chosen],
            [rows[row][2] for row in chosen],
            texts,
            [" ".join(text.split()[:2]) for text in texts],
            [[answer] for answer in answers],
            answers,
            ["yes/no" if answer in ("yes", "no") else "other" for answer in answers],
        )

    def images(self, image_split: str) -> EasyVqaImages:
        if self._statistics is None:
            self._statistics = _statistics(self._root / "train/images")
        folder = self._root / _FOLDER[image_split] / "images"
        ids = [image_id for image_id in _image_ids(folder) if _belongs(image_id, image_split)]
        return EasyVqaImages(np.array(ids, np.int64), folder, *self._statistics)


def _belongs(image_id: int, split: str) -> bool:
    held_out = image_id % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return split == "test" or held_out == (split == "val")


def _statistics(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel over the cells of every tenth image."""
    ids = [image_id for image_id in _image_ids(folder) if image_id % HELD_OUT_EVERY == 0]
    images = np.stack([_read_image(folder / f"{image_id}.png") for image_id in ids])
    values = describe_cells(images).reshape(-1, len(CHANNELS))
    mean = values.mean(axis=0, dtype=np.float64)
    scale = values.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.maximum(scale, 1e-6).astype(np.float32)


def _image_ids(folder: Path) -> list[int]:
    ids = sorted(int(path.stem) for path in folder.glob("*.png") if path.stem.isdigit())
    if not ids:
        raise RawDataError(f"{folder}: no images; install the package easy-vqa again")
    return ids


def _read_image(path: Path) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError  # an extra: only this dataset has pixels

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise RawDataError(
            f"{path}: not readable as an image ({error}); install the package easy-vqa again"
        ) from None
    if pixels.shape != (64, 64, 3):
        raise RawDataError(f"{path}: {pixels.shape} pixels, expected (64, 64, 3)")
    return pixels


def _find_data(raw: Path) -> Path:
    for folder in (raw / "easy-vqa", raw):
        if (folder / "train/questions.json").is_file():
            return folder
    missing = [name for name in ("easy_vqa", "PIL", "skimage") if not _installed(name)]
    if missing:
        raise RawDataError(
            f"easy-VQA needs its package and two image libraries ({', '.join(missing)} missing): "
            "pip install 'trar[easy-vqa]'"
        )
    spec = importlib.util.find_spec("easy_vqa")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
