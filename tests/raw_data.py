"""Raw files for the tests: real VQA-v2 questions with generated grid features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.pipeline import PrepareConfig

SAMPLE = Path(__file__).parent / "data/vqa-sample"
WIDTH = 12


def grid_features(image_id: int, width: int = WIDTH) -> NDArray[np.float32]:
    """Features of one image, a function of its id: (64, width), the first two rows padding."""
    values = np.random.default_rng(image_id).random((64, width), np.float32) + 0.125
    values[:16] = 0
    return values


def nan_grid() -> NDArray[np.float32]:
    """The same of image 1, with one NaN."""
    values = grid_features(1)
    values[20, 3] = np.nan
    return values


def write_features(folder: Path, image_split: str, image_id: int, form: int) -> Path:
    """One feature file in one of the forms that people hold (five of them, by number)."""
    values = grid_features(image_id)
    width = values.shape[1]
    coco = f"COCO_{image_split}_{image_id:012}.jpg"
    match form % 5:
        case 0:
            path = folder / f"{coco}.npz"
            np.savez(path, x=np.asfortranarray(values.T))
        case 1:
            path = folder / f"{image_id}.npz"
            boxes = np.zeros((3, 4), np.float32)
            np.savez_compressed(path, bbox=boxes, info=np.array({"a": 1}, object), x=values)
        case 2:
            path = folder / f"{image_id}.npy"
            np.save(path, values.astype(np.float16))
        case 3:
            path = folder / f"{coco}.npy"
            np.save(path, values.T.reshape(width, 8, 8))
        case _:
            path = folder / f"{coco}.npz"
            np.savez(path, num_bbox=np.int64(64), x=values.T.reshape(width, 8, 8))
    return path


def image_ids(image_split: str) -> list[int]:
    """The images that the sample's questions of a split are about."""
    name = f"v2_OpenEnded_mscoco_{image_split}_questions.json"
    questions = json.loads((SAMPLE / name).read_text())["questions"]
    return sorted({question["image_id"] for question in questions})


def write_vqa_raw(root: Path) -> Path:
    """TRAR's own folder layout below ``root``; returns ``root`` (what --raw takes)."""
    raw = root / "vqa/raw"
    raw.mkdir(parents=True)
    for path in SAMPLE.glob("*.json"):
        shutil.copy(path, raw / path.name)
    for image_split in ("train2014", "val2014"):
        folder = root / "vqa/feats" / image_split
        folder.mkdir(parents=True)
        for form, image_id in enumerate(image_ids(image_split)):
            write_features(folder, image_split, image_id, form)
    return root


def edit_json(path: Path, change: Any) -> None:
    """Load a JSON file, apply ``change`` to it in place, and write it back."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def tree(folder: Path, skip: tuple[str, ...] = ("prepare-log.json",)) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skip
    }


def prepare_config(raw: Path, store: Path, **changes: Any) -> PrepareConfig:
    """How the tests prepare: in this process, with few images a shard."""
    settings = {"raw": raw, "store": store, "shard_images": 20, "workers": 0, **changes}
    return PrepareConfig(**settings)
