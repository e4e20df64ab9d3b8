"""Image features in the forms that people hold, made for given image ids.

Every value is a function of the image's id, so that a test can say what a store must hold.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

WIDTH = 48
FIXED = 6
Floats = NDArray[np.float32]


def region_count(image_id: int) -> int:
    """Adaptive regions: 3 to 20."""
    return 3 + image_id % 18


def regions(image_id: int, count: int) -> Floats:
    """(count, WIDTH)."""
    return np.random.default_rng(image_id).random((count, WIDTH), np.float32) + 0.125


def boxes(image_id: int, count: int) -> Floats:
    """(count, 4) x1 y1 x2 y2 within ``size``."""
    corners = np.random.default_rng(image_id + 1).random((count, 4), np.float32) * 50
    corners[:, 2:] += corners[:, :2]
    return corners


def size(image_id: int) -> tuple[int, int]:
    """Height and width."""
    return 200 + image_id % 40, 300 + image_id % 50


def save_npz(
    target: Path | io.BytesIO, image_id: int, count: int, *, transposed: bool, key: str
) -> None:
    """A bottom-up file: (f, n) as openvqa's or (n, f) as the later extractor's."""
    values = regions(image_id, count)
    height, width = size(image_id)
    np.savez_compressed(
        target,
        x=values.T if transposed else values,
        **{key: boxes(image_id, count)},
        num_bbox=np.int64(count),
        image_h=np.int64(height),
        image_w=np.int64(width),
        info=np.array({"objects": [1]}, object),
    )


def folder_of_npz(
    folder: Path,
    image_split: str,
    ids: Sequence[int],
    count: Callable[[int], int] = lambda _: FIXED,
    *,
    transposed: bool = True,
    key: str = "bbox",
) -> Path:
    """``COCO_val2014_000000000009.jpg.npz`` files."""
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        path = folder / f"COCO_{image_split}_{image_id:012}.jpg.npz"
        save_npz(path, image_id, count(image_id), transposed=transposed, key=key)
    return folder


def tar_of(folder: Path, target: Path, mode: str, seed: int = 0) -> Path:
    """Pack a folder's files, in an order that has nothing to do with their ids."""
    paths = sorted(folder.iterdir())
    order = np.random.default_rng(seed).permutation(len(paths))
    with tarfile.open(target, mode) as archive:
        archive.add(folder, arcname=folder.name, recursive=False)
        for number in order.tolist():
            archive.add(paths[number], arcname=f"{folder.name}/{paths[number].name}")
    return target


def zip_of(folder: Path, target: Path, method: int) -> Path:
    """Pack a folder's files into a zip."""
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.iterdir(), reverse=True):
            archive.write(path, f"{folder.name}/{path.name}")
    return target


def region_tsv(path: Path, image_split: str, ids: Sequence[int]) -> Path:
    """LXMERT's obj36 fields, with FIXED regions, in descending order of ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        for image_id in sorted(ids, reverse=True):
            height, width = size(image_id)
            parts = [
                np.arange(FIXED),
                np.ones(FIXED, np.float32),
                np.arange(FIXED),
                np.ones(FIXED, np.float32),
            ]
            tail = [boxes(image_id, FIXED), regions(image_id, FIXED)]
            name = f"COCO_{image_split}_{image_id:012}"
            writer.writerow([name, height, width, *map(_base64, parts), FIXED, *map(_base64, tail)])
    return path


def _base64(values: NDArray[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def fixed_hdf5(path: Path, ids: Sequence[int]) -> Path:
    """BUTD: ``image_features``, ``image_bb``, ``spatial_features`` and a table of ids beside."""
    order = np.random.default_rng(3).permutation(np.array(ids)).tolist()
    with h5py.File(path, "w") as file:
        file["image_features"] = np.stack([regions(one, FIXED) for one in order])
        held = np.stack([boxes(one, FIXED) for one in order])
        file["image_bb"] = held
        scale = np.array([[size(one)[1], size(one)[0]] * 2 for one in order], np.float32)
        normal = held / scale[:, None]
        extent = normal[..., 2:] - normal[..., :2]
        file["spatial_features"] = np.concatenate([normal, extent], axis=2)
    _write_ids(path, order)
    return path


def adaptive_hdf5(path: Path, ids: Sequence[int]) -> Path:
    """BAN: flat ``image_features`` and ``image_bb`` with ``pos_boxes``."""
    order = sorted(ids, reverse=True)
    counts = [region_count(one) for one in order]
    ends = np.cumsum(counts)
    with h5py.File(path, "w") as file:
        values = [regions(one, n) for one, n in zip(order, counts, strict=True)]
        held = [boxes(one, n) for one, n in zip(order, counts, strict=True)]
        file["image_features"] = np.concatenate(values)
        file["image_bb"] = np.concatenate(held)
        file["pos_boxes"] = np.stack([ends - counts, ends], axis=1).astype(np.int32)
    _write_ids(path, order)
    return path


def _write_ids(path: Path, order: Sequence[int]) -> None:
    table = {str(image_id): row for row, image_id in enumerate(order)}
    path.with_name(f"{path.stem}_imgid2idx.json").write_text(json.dumps(table))


def grid_map(image_id: int) -> Floats:
    """A detector's map (1, WIDTH, H, W); every third image is a portrait."""
    shape = (19, 25) if image_id % 3 else (25, 19)
    rng = np.random.default_rng(image_id)
    return rng.random((1, WIDTH, *shape), np.float32) + 0.125
