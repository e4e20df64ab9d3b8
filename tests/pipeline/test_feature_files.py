"""A folder of feature files: which image each file is."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from trar.errors import RawDataError
from trar.pipeline.readers.feature_files import FeatureFiles, identify_image
from trar.pipeline.readers.image import Form

GRID = Form(8, 12)


def cells(image_id: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(image_id).random((64, 12), np.float32)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images in every form, among other files."""
    np.save(tmp_path / "9.npy", cells(9))
    np.savez(tmp_path / "COCO_val2014_000000000072.jpg.npz", x=cells(72).T)
    np.savez_compressed(tmp_path / "COCO_val2014_000000000005.npz", feat=cells(5))
    torch.save(torch.from_numpy(cells(581_929)), tmp_path / "581929.pth")
    np.save(tmp_path / "000000000100.npy", cells(100).T.reshape(12, 8, 8))
    return touch(tmp_path, "readme.txt", "9_info.npy", ".9.npy.partial", "x9.npy")


IDS = [5, 9, 72, 100, 581_929]


def values(images: FeatureFiles, row: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    features = images.read(row).features
    features = features.reshape(12, 64) if features.ndim == 3 else features
    return features if features.shape == (64, 12) else features.T


def test_images_of_a_folder_by_ascending_id(folder: Path) -> None:
    images = FeatureFiles.scan(folder, "val2014").with_form(GRID)
    assert images.ids.dtype == np.int64
    assert images.ids.tolist() == IDS
    assert len(images) == 5
    for row, image_id in enumerate(IDS):
        np.testing.assert_array_equal(values(images, row), cells(image_id))
    assert images.name(1) == str(folder / "9.npy")


def test_part_of_a_folder(folder: Path) -> None:
    part = FeatureFiles.scan(folder, "val2014").with_form(GRID).part(1, 4)
    part = pickle.loads(pickle.dumps(part))
    assert part.ids.tolist() == IDS[1:4]
    assert part.form == GRID
    np.testing.assert_array_equal(values(part, 2), cells(100))


def test_regions_are_counted(folder: Path) -> None:
    images = FeatureFiles.scan(folder, "val2014").with_form(Form(None, 12))
    assert [images.regions(row) for row in (0, 1, 2, 4)] == [64] * 4
    with pytest.raises(RawDataError, match=r"100\.npy: shape \(12, 8, 8\), expected \(n, 12\)"):
        images.regions(3)


def test_fingerprint_changes_with_the_files_and_not_with_the_folder(folder: Path) -> None:
    before = FeatureFiles.scan(folder, "val2014").fingerprint()
    moved = folder.rename(folder.with_name("moved"))
    assert FeatureFiles.scan(moved, "val2014").fingerprint() == before
    os.utime(moved / "9.npy", ns=(1, 1))
    touched = FeatureFiles.scan(moved, "val2014").fingerprint()
    (moved / "9.npy").rename(moved / "0009.npy")
    renamed = FeatureFiles.scan(moved, "val2014").fingerprint()
    assert len({before, touched, renamed}) == 3


def test_file_that_goes_while_it_is_needed(folder: Path) -> None:
    images = FeatureFiles.scan(folder, "val2014").with_form(GRID)
    (folder / "9.npy").unlink()
    with pytest.raises(RawDataError, match=r"9\.npy: missing: moved or deleted"):
        images.read(1)
    with pytest.raises(RawDataError, match=r"9\.npy: missing: moved or deleted"):
        images.fingerprint()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("9.npy", (None, 9)),
        ("9.npz", (None, 9)),
        ("9.pth", (None, 9)),
        ("0.npz", (None, 0)),
        ("000000000009.npz", (None, 9)),
        ("9.jpg.npz", (None, 9)),
        ("COCO_train2014_000000000009.jpg.npz", ("train2014", 9)),
        ("COCO_train2014_000000000009.jpg.npy", ("train2014", 9)),
        ("COCO_test2015_000000581929.npy", ("test2015", 581_929)),
        ("COCO_val2014_000000000009.npz", ("val2014", 9)),
        ("COCO_val2014_000000000009.pth", ("val2014", 9)),
        ("CLEVR_train_000009.npz", ("train", 9)),
        ("CLEVR_train_000009.png.npz", ("train", 9)),
        ("CLEVR_valB_014999.png.npy", ("valB", 14_999)),
        ("train2014/feats/9.npy", (None, 9)),
        ("9.jpg", None),
        ("9.npy.gz", None),
        ("9_info.npy", None),
        ("9.5.npy", None),
        ("-9.npy", None),
        ("٩.npy", None),
        ("x9.npy", None),
        ("9" * 19 + ".npy", None),
        ("COCO_train2014_000000000009_info.npy", None),
        ("COCO_train2014_.npy", None),
        ("train2014_9.npy", None),
        (".npy", None),
    ],
)
def test_names_of_feature_files(name: str, known: tuple[str | None, int] | None) -> None:
    assert identify_image(name) == known


def test_names_of_another_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "kitchen.npy", cells(3))
    np.save(tmp_path / "9.npy", cells(9))

    def identify(name: str) -> tuple[str | None, int] | None:
        return (None, 3) if name == "kitchen.npy" else None

    images = FeatureFiles.scan(tmp_path, "images", identify).with_form(GRID)
    assert images.ids.tolist() == [3]
    np.testing.assert_array_equal(images.read(0).features, cells(3))


def test_several_splits_in_one_folder(tmp_path: Path) -> None:
    names = [f"COCO_{split}_000000000009.npy" for split in ("train2014", "val2014", "test2015")]
    touch(tmp_path, *names, "COCO_val2014_000000000010.npy", "notes.txt")
    images = FeatureFiles.scan(tmp_path, "val2014", only_split=True)
    assert images.ids.tolist() == [9, 10]
    assert images.name(0) == str(tmp_path / "COCO_val2014_000000000009.npy")
    with pytest.raises(RawDataError, match=r"of test2014; .*found 2 of val2014, 1 of train2014, 1"):
        FeatureFiles.scan(tmp_path, "test2014", only_split=True)
    touch(tmp_path, "11.npy")
    with pytest.raises(
        RawDataError, match=r"11\.npy does not say of which split it is, others there are of 1 tra"
    ):
        FeatureFiles.scan(tmp_path, "val2014", only_split=True)


def test_one_split_without_names_of_it(tmp_path: Path) -> None:
    touch(tmp_path, "9.npy", "COCO_val2014_000000000010.npy")
    images = FeatureFiles.scan(tmp_path, "val2014", only_split=True)
    assert images.ids.tolist() == [9, 10]


def test_file_of_another_split(tmp_path: Path) -> None:
    touch(tmp_path, "COCO_train2014_000000000009.npy")
    with pytest.raises(
        RawDataError, match=r"09\.npy: a file of train2014 in the folder of val2014; move it"
    ):
        FeatureFiles.scan(tmp_path, "val2014")


def test_two_files_of_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "9.npy", "9.npz")
    with pytest.raises(RawDataError, match=r"two files for image 9: 9\.np. and 9\.np.; keep one"):
        FeatureFiles.scan(tmp_path, "val2014")


def test_folder_without_feature_files(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"no feature files; .* found nothing"):
        FeatureFiles.scan(tmp_path, "val2014")
    touch(tmp_path, "a.jpg", "b.jpg", "LICENSE", "line\nbreak")
    with pytest.raises(
        RawDataError,
        match=r"no feature files; expected \.npy, \.npz or \.pth files named like "
        r"COCO_val2014_000000000009\.jpg\.npz or 9\.npy; "
        r"found 2 \.jpg, 1 LICENSE, 1 'line\\nbreak'",
    ):
        FeatureFiles.scan(tmp_path, "val2014")


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match="val2014: missing"):
        FeatureFiles.scan(tmp_path / "val2014", "val2014")


def test_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.npy")).touch()
    with pytest.raises(RawDataError, match=r"no feature files; .*found 1 \.npy"):
        FeatureFiles.scan(tmp_path, "val2014")
