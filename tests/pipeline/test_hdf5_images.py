"""HDF5 files of features: every layout and way of storing, read without trusting libhdf5."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_files import DATA, STORAGE, coco_regions, save_fixed, save_ids
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.hdf5_images import Hdf5Images, scan_hdf5
from trar.pipeline.readers.image import Form


@pytest.fixture(scope="module")
def real() -> dict[str, NDArray[Any]]:
    return coco_regions()


def check_fixed(images: Hdf5Images, real: dict[str, NDArray[Any]], dtype: str = "<f4") -> None:
    ids = real["ids"].tolist()
    assert images.ids.tolist() == [one for one in sorted(ids) if one in images.ids]
    for row, image_id in enumerate(images.ids.tolist()):
        place = ids.index(image_id)
        raw = images.read(row)
        assert raw.features.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(raw.features, real["x"][place].astype(dtype))
        np.testing.assert_array_equal(raw.boxes, real["boxes"][place])
        assert raw.size == tuple(real["sizes"][place].tolist())
        assert images.regions(row) == 12


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
def test_fixed_regions(tmp_path: Path, real: dict[str, NDArray[Any]], storage: Any) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real, **storage)
    images = scan_hdf5(path, "val2014")
    assert len(images) == 8
    check_fixed(images, real)
    for start, stop in ((0, 3), (2, 8), (7, 8), (0, 8)):
        part = pickle.loads(pickle.dumps(images.part(start, stop)))
        assert len(part) == stop - start
        check_fixed(part, real)
        check_fixed(part.part(0, 1), real)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("storage", ["one piece", "everything"])
def test_types_and_byte_orders(
    tmp_path: Path, real: dict[str, NDArray[Any]], dtype: str, storage: str
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real, dtype, **STORAGE[storage])
    check_fixed(scan_hdf5(path, "val2014"), real, dtype)


@pytest.mark.parametrize("storage", [{}, {"chunks": (5, 7), "compression": "gzip"}])
@pytest.mark.parametrize("positions", [{}, {"chunks": (3, 1), "shuffle": True, "compression": 1}])
def test_adaptive_regions(tmp_path: Path, storage: Any, positions: Any) -> None:
    rng = np.random.default_rng(0)
    counts = [4, 1, 9, 3]
    ends = np.cumsum(counts)
    ids = [9, 3, 7, 5]
    x, boxes = rng.random((17, 8), np.float32), rng.random((17, 4), np.float32)
    path = tmp_path / "train.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image_features", data=x, **storage)
        file["image_bb"] = boxes
        starts = np.stack([ends - counts, ends], 1).astype("i4")
        file.create_dataset("pos_boxes", data=starts, **positions)
    save_ids(path, ids)
    images = scan_hdf5(path, "train2014")
    for one in (images, pickle.loads(pickle.dumps(images.part(1, 3)))):
        for row, image_id in enumerate(one.ids.tolist()):
            place = ids.index(image_id)
            chosen = slice(ends[place] - counts[place], ends[place])
            raw = one.read(row)
            np.testing.assert_array_equal(raw.features, x[chosen])
            np.testing.assert_array_equal(raw.boxes, boxes[chosen])
            assert raw.size is None
            assert one.regions(row) == counts[place]


@pytest.mark.parametrize("bad", [(-1, 3), (3, 3), (5, 3), (3, 18), (-(2**62), 2**62)])
@pytest.mark.parametrize("storage", [{}, {"chunks": (5, 8)}])
def test_ranges_outside_concern_their_image_alone(
    tmp_path: Path, bad: tuple[int, int], storage: Any
) -> None:
    path = tmp_path / "train.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image_features", data=np.ones((17, 8), np.float32), **storage)
        file["image_bb"] = np.ones((17, 4), np.float32)
        file["pos_boxes"] = np.array([[0, 4], bad])
    save_ids(path, [9, 3])
    images = scan_hdf5(path, "train2014").part(0, 2)
    assert images.regions(1) == len(images.read(1).features) == 4
    for ask in (images.read, images.regions):
        with pytest.raises(RawDataError, match=r"image 3: its regions are said to be .* of 17"):
            ask(0)


@pytest.mark.parametrize("storage", [{}, {"chunks": (2, 3, 4, 4), "compression": "gzip"}])
def test_grid_of_clevr(tmp_path: Path, storage: Any) -> None:
    values = np.random.default_rng(0).random((5, 6, 7, 7), np.float32)
    with h5py.File(tmp_path / "val.h5", "w") as file:
        file.create_dataset("features", data=values, **storage)
    images = scan_hdf5(tmp_path / "val.h5", "val")
    assert images.ids.tolist() == [0, 1, 2, 3, 4]
    assert images.name(3) == f"{tmp_path}/val.h5, dataset features, image 3"
    for row in range(5):
        raw = images.with_form(Form(7)).read(row)
        np.testing.assert_array_equal(raw.features, values[row])
        assert (raw.boxes, raw.size) == (None, None)
        assert images.regions(row) == 49
    np.testing.assert_array_equal(images.part(3, 5).read(1).features, values[4])


def test_ids_of_another_place(tmp_path: Path, real: dict[str, NDArray[Any]]) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    table = (tmp_path / "val36_imgid2idx.pkl").rename(tmp_path / "ids.pkl")
    with pytest.raises(RawDataError, match=r"val36_imgid2idx.pkl or val36_imgid2idx.json, is not"):
        scan_hdf5(path, "val2014")
    check_fixed(scan_hdf5(path, "val2014", table), real)
    names = {f"COCO_val2014_{one:012}": row for row, one in enumerate(real["ids"].tolist())}
    (tmp_path / "val36_imgid2idx.json").write_text(json.dumps({"VQA_imgid2id": names}))
    check_fixed(scan_hdf5(path, "val2014"), real)
    with pytest.raises(RawDataError, match=r"an image of val2014 .* among those of train2014"):
        scan_hdf5(path, "train2014")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 1, 2, 3, 4, 5, 6], "7 image ids, val36.hdf5 has 8 images; they are not of one"),
        ([0, 1, 2, 3, 4, 5, 6, 6], "the rows are not 0 to 7, each once"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "the rows are not 0 to 7, each once"),
    ],
)
def test_ids_that_do_not_fit(
    tmp_path: Path, real: dict[str, NDArray[Any]], rows: list[int], message: str
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    table = dict(zip(range(100, 108), rows, strict=False))
    (tmp_path / "val36_imgid2idx.pkl").write_bytes(pickle.dumps(table))
    with pytest.raises(RawDataError, match=f"val36_imgid2idx.pkl: {message}"):
        scan_hdf5(path, "val2014")


@pytest.mark.parametrize(
    ("column", "value"), [(2, 0.0), (3, np.nan), (2, -1.0), (3, 1e-9), (2, 7.0)]
)
def test_sizes_that_cannot_be_told(
    tmp_path: Path, real: dict[str, NDArray[Any]], column: int, value: float
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    with h5py.File(path, "r+") as file:
        file["spatial_features"][:, :, column] = value
    raw = scan_hdf5(path, "val2014").read(0)
    assert raw.size is None
    assert raw.boxes is not None


def test_spatial_features_of_another_form_are_left_alone(
    tmp_path: Path, real: dict[str, NDArray[Any]]
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    with h5py.File(path, "r+") as file:
        del file["spatial_features"]
        file["spatial_features"] = np.zeros((8, 12, 5))
    assert scan_hdf5(path, "val2014").read(0).size is None


def test_real_file_of_questions_is_an_unknown_layout() -> None:
    expected = (
        r"orig-val.h5: not a layout known here: it holds answers \(9,\) int64, .*"
        r"programs \(9, 16\) int32, .*; expected features \(N, f, g, g\) as clevr-iep"
    )
    with pytest.raises(RawDataError, match=expected):
        scan_hdf5(DATA / "kexinyi-ns-vqa/orig-val.h5", "val")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "it holds no dataset"),
        ({"features": (5, 196, 1024)}, r"it holds features \(5, 196, 1024\) float32"),
        ({"features": (5, 8, 7, 6)}, "it holds features"),
        ({"features": (0, 8, 7, 7)}, "it holds features"),
        ({"image_features": (5, 6, 8)}, "it holds image_features"),
        ({"image_features": (5, 6, 8), "image_bb": (5, 7, 4)}, r"it holds image_bb \(5, 7, 4\)"),
        ({"image_features": (5, 8), "image_bb": (5, 4)}, "it holds image_bb"),
        ({"image_features": (5, 8), "image_bb": (5, 4), "pos_boxes": (2, 3)}, "it holds image_bb"),
        ({"group/features": (5, 8, 7, 7)}, "it holds group/features"),
    ],
)
def test_unknown_layouts(tmp_path: Path, shapes: dict[str, Any], message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, shape in shapes.items():
            file[name] = np.ones(shape, np.float32)
    with pytest.raises(RawDataError, match=f"a.h5: not a layout known here: {message}"):
        scan_hdf5(tmp_path / "a.h5", "val")


def test_regions_are_no_grid(tmp_path: Path, real: dict[str, NDArray[Any]]) -> None:
    images = scan_hdf5(save_fixed(tmp_path / "val36.hdf5", real), "val2014")
    assert images.with_form(Form(None, 24)) is images
    with pytest.raises(RawDataError, match="regions with boxes, not a 6x6 grid; leave --grid out"):
        images.with_form(Form(6))


def test_fingerprint_follows_the_data(tmp_path: Path, real: dict[str, NDArray[Any]]) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    images = scan_hdf5(path, "val2014")
    assert images.fingerprint() == scan_hdf5(path, "val2014").fingerprint()
    assert images.part(0, 4).fingerprint() != images.part(4, 8).fingerprint()
    save_ids(path, real["ids"][::-1].tolist())
    other = scan_hdf5(path, "val2014")
    assert other.fingerprint() != images.fingerprint()
    save_fixed(path, {**real, "x": np.concatenate([real["x"]] * 2, axis=2)})
    assert scan_hdf5(path, "val2014").fingerprint() != images.fingerprint()


def test_libhdf5_is_never_loaded_here() -> None:
    code = "import sys, trar.pipeline.readers.hdf5_images; print('h5py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
