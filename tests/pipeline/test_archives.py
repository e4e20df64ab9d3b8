"""Archives of feature files: the images of a folder, without unpacking; or one line why not."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_archives import (
    IDS,
    every_kind,
    features,
    image_bytes,
    members,
    packed_tar_bytes,
    tar_bytes,
    write,
    zip_bytes,
)

from trar.errors import RawDataError
from trar.pipeline.readers.archives import scan_archive
from trar.pipeline.readers.image import Form
from trar.pipeline.readers.tar_members import BLOCK, walk_tar

SAMPLE = Path(__file__).parents[1] / "data/MILVLG-rosita/COCO_val2014_000000058350.jpg.npz"


@every_kind
def test_images_of_an_archive(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    files = {"val2014/readme.txt": b"x", "val2014/empty/": b"", **members()}
    path = write(tmp_path, pack(files))
    images = scan_archive(path, "val2014").with_form(Form(None, 2048))
    assert images.ids.tolist() == sorted(IDS)
    images = pickle.loads(pickle.dumps(images.part(1, 4)))
    for row, image_id in enumerate(sorted(IDS)[1:]):
        np.testing.assert_array_equal(images.read(row).features, features(image_id))
        assert images.regions(row) == 5
        assert images.name(row) == f"{path}, member val2014/COCO_val2014_{image_id:012}.jpg.npz"


@every_kind
def test_fingerprint_of_an_archive(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    path = write(tmp_path, pack(members()))
    before = scan_archive(path, "val2014").fingerprint()
    moved = path.rename(tmp_path / "moved")
    assert scan_archive(moved, "val2014").fingerprint() == before
    moved.write_bytes(pack(members()))
    assert scan_archive(moved, "val2014").fingerprint() != before


def test_real_file_in_an_archive(tmp_path: Path) -> None:
    path = write(tmp_path, packed_tar_bytes({SAMPLE.name: SAMPLE.read_bytes()}))
    image = scan_archive(path, "val2014").with_form(Form(None, 2048)).read(0)
    assert image.features.shape == (6, 2048)
    assert image.size == (480, 640)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_tars(tmp_path: Path, kind: int) -> None:
    folder = "val2014/" + "a" * 70 + "/" + "b" * 70 + "/"
    path = write(tmp_path, tar_bytes(members(folder=folder), kind))
    images = scan_archive(path, "val2014")
    assert images.name(0) == f"{path}, member {folder}COCO_val2014_000000000009.jpg.npz"
    assert images.ids.tolist() == sorted(IDS)


@settings(max_examples=30, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=160),
        unique=True,
        max_size=4,
    ),
    kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    large=st.booleans(),
)
def test_tars_are_walked_as_tarfile_does(names: list[str], kind: int, large: bool) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for size, name in enumerate(names):
            member = tarfile.TarInfo(f"d/{name}")
            member.size = size * (700 if large else 1)
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    data = stream.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(one.name, one.offset_data, one.size) for one in archive]
    walked = walk_tar(lambda start, count: data[start : start + count], len(data), "x")
    assert [(one.name, one.offset, one.size) for one in walked] == expected


def test_sizes_that_octal_digits_cannot_hold() -> None:
    member = tarfile.TarInfo("9.npy")
    member.size = 1 << 36
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = member.tobuf(kind)
        end = len(header) + member.size

        def read_at(start: int, count: int, header: bytes = header) -> bytes:
            return header[start : start + count].ljust(count, b"\0")

        [entry] = walk_tar(read_at, end + 2 * BLOCK, "x")
        assert (entry.name, entry.offset, entry.size) == ("9.npy", len(header), 1 << 36)


def test_gzip_in_many_pieces_with_bytes_after_it(tmp_path: Path) -> None:
    data = tar_bytes(members())
    pieces = [gzip.compress(data[start : start + 900]) for start in range(0, len(data), 900)]
    path = write(tmp_path, b"".join(pieces) + bytes(700))
    images = scan_archive(path, "val2014").with_form(Form(None))
    np.testing.assert_array_equal(images.read(3).features, features(581_929))


@every_kind
def test_several_splits_in_folders(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    files = {
        f"x/{split}/{one}.npz": image_bytes(one)
        for split in ("train2014", "val2014")
        for one in IDS
    }
    path = write(tmp_path, pack({**files, "x/val2014/7.npz": image_bytes(7)}))
    assert scan_archive(path, "val2014").ids.tolist() == sorted((7, *IDS))
    assert scan_archive(path, "train2014").ids.tolist() == sorted(IDS)
    with pytest.raises(
        RawDataError, match=r"no feature files of test2015; .* 5 of val2014, 4 of tr"
    ):
        scan_archive(path, "test2015")


@pytest.mark.parametrize(
    ("folder", "split", "there"),
    [
        ("feats/train", "train2014", True),
        ("trainA", "trainA", True),
        ("trainA", "trainB", False),
        ("val", "train2014", False),
        ("train2014", "train2015", False),
        ("val/train2014", "train2014", True),
        ("features", "train2014", True),
        ("anything", "images", True),
    ],
)
def test_folders_that_state_a_split(tmp_path: Path, folder: str, split: str, there: bool) -> None:
    path = write(tmp_path, tar_bytes({f"{folder}/9.npz": image_bytes(9)}))
    if there:
        assert scan_archive(path, split).ids.tolist() == [9]
    else:
        with pytest.raises(RawDataError, match=f"no feature files of {split}; .*found 1 of"):
            scan_archive(path, split)


def test_several_splits_in_names(tmp_path: Path) -> None:
    path = write(tmp_path, zip_bytes({**members(folder="d/"), **members("train2014", "d/")}))
    images = scan_archive(path, "val2014")
    assert images.ids.tolist() == sorted(IDS)
    assert all("COCO_val2014" in images.name(row) for row in range(4))


def test_file_without_a_split_among_several(tmp_path: Path) -> None:
    path = write(tmp_path, zip_bytes({**members("train2014", "d/"), "d/5.npz": image_bytes(5)}))
    with pytest.raises(RawDataError, match=r"d/5\.npz does not say of which split .*4 train2014"):
        scan_archive(path, "val2014")


@every_kind
def test_two_files_of_one_image(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    path = write(tmp_path, pack({"a/9.npy": b"x", "b/COCO_val2014_000000000009.npy": b"x"}))
    with pytest.raises(RawDataError, match=r"two files for image 9: a/9\.npy and b/COCO"):
        scan_archive(path, "val2014")


def test_archive_without_features_says_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path, zip_bytes({"a/b.jpg": b"x", "a/c.jpg": b"x", "LICENSE": b"x"}))
    with pytest.raises(
        RawDataError, match=r"no feature files; expected .*found 2 \.jpg, 1 LICENSE"
    ):
        scan_archive(path, "val2014")


def test_notes_of_macos_are_no_features(tmp_path: Path) -> None:
    files = {
        "val2014/9.npz": image_bytes(9),
        "__MACOSX/val2014/9.npz": b"x",
        "val2014/._9.npz": b"x",
    }
    seen: list[str] = []

    def identify(name: str) -> tuple[str | None, int] | None:
        seen.append(name)
        return None, 1

    assert scan_archive(write(tmp_path, zip_bytes(files)), "val2014", identify).ids.tolist() == [1]
    assert seen == ["val2014/9.npz"]
