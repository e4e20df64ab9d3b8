"""HDF5 files of features as they are found in the wild, small."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parents[1] / "data"
STORAGE: dict[str, dict[str, Any]] = {
    "one piece": {},
    "chunks": {"chunks": (2, 5, 7)},
    "chunk per image": {"chunks": (1, 12, 24), "compression": "gzip"},
    "gzip": {"chunks": (3, 5, 24), "compression": "gzip"},
    "shuffled gzip": {"chunks": (3, 12, 7), "compression": "gzip", "shuffle": True},
    "checksums": {"chunks": (3, 5, 7), "fletcher32": True},
    "everything": {"chunks": (2, 5, 7), "compression": 9, "shuffle": True, "fletcher32": True},
    "larger than the array": {"chunks": (16, 16, 32), "maxshape": (None,) * 3, "compression": 1},
}


def coco_regions() -> dict[str, NDArray[Any]]:
    """8 images of 12 regions of COCO, in an order that is not that of their ids."""
    with np.load(DATA / "MILVLG-rosita/regions_cut.npz") as archive:
        order = [3, 0, 7, 1, 5, 2, 6, 4]
        return {name: archive[name][order] for name in archive.files}


def spatial(boxes: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.float32]:
    """x1 y1 x2 y2 w h relative to the image, as detection_features_converter.py computes them."""
    scale = np.stack([sizes[:, 1], sizes[:, 0]] * 2, 1).astype(np.float32)
    x1, y1, x2, y2 = np.moveaxis(boxes / scale[:, None], -1, 0)
    return np.stack([x1, y1, x1 + (x2 - x1), y1 + (y2 - y1), x2 - x1, y2 - y1], -1)


def save_ids(path: Path, ids: Sequence[int]) -> None:
    table = {image_id: row for row, image_id in enumerate(ids)}
    path.with_name(f"{path.stem}_imgid2idx.pkl").write_bytes(pickle.dumps(table, 2))


def save_fixed(
    path: Path, real: dict[str, NDArray[Any]], dtype: str = "<f4", **storage: Any
) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("image_features", data=real["x"].astype(dtype), **storage)
        file["image_bb"] = real["boxes"]
        file["spatial_features"] = spatial(real["boxes"], real["sizes"])
    save_ids(path, real["ids"].tolist())
    return path


def with_grid(path: Path, **storage: Any) -> h5py.Dataset:
    """``features`` (4, 2, 3, 3) in a file that stays open while its dataset is alive."""
    return h5py.File(path, "w").create_dataset("features", (4, 2, 3, 3), **storage)
