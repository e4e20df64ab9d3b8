"""Archives of feature files: the images of a folder, without unpacking; or one line why not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.archives import scan_archive
from trar.pipeline.readers.image import Form
from trar.pipeline.readers.tar_members import BLOCK, walk_tar

SAMPLE = Path(__file__).parents[1] / "data/MILVLG-rosita/COCO_val2014_000000058350.jpg.npz"
IDS = (9, 581_929, 72, 1000)  # not in order


def features(image_id: int) -> NDArray[np.float32]:
    return np.random.default_rng(image_id).random((5, 2048), np.float32)


def image_bytes(image_id: int) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=features(image_id).T, bbox=np.zeros((5, 4), np.float32))
    return stream.getvalue()


def members(split: str = "val2014", folder: str = "val2014/") -> dict[str, bytes]:
    return {f"{folder}COCO_{split}_{one:012}.jpg.npz": image_bytes(one) for one in IDS}


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def tar_bytes(files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def packed_tar_bytes(files: dict[str, bytes]) -> bytes:
    return gzip.compress(tar_bytes(files))


PACKED: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zip_bytes,
    "stored zip": lambda files: zip_bytes(files, zipfile.ZIP_STORED),
    "tar": tar_bytes,
    "pax tar": lambda files: tar_bytes(files, tarfile.PAX_FORMAT),
    "ustar": lambda files: tar_bytes(files, tarfile.USTAR_FORMAT),
    "tar.gz": packed_tar_bytes,
}
every_kind = pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)


def write(tmp_path: Path, data: bytes) -> Path:
    """An archive under a name that says nothing."""
    path = tmp_path / "val2014.archive"
    path.write_bytes(data)
    return path


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


@every_kind
@pytest.mark.parametrize(
    "name", ["../9.npy", "val2014/../../9.npy", "/val2014/9.npy", "C:/9.npy", "..\\9.npy"]
)
def test_names_that_lead_out_are_refused(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], name: str
) -> None:
    path = write(tmp_path, pack({"val2014/1.npy": b"x", name: b"x"}))
    with pytest.raises(RawDataError, match="a name that leads out of the archive"):
        scan_archive(path, "val2014")


def test_names_are_put_on_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, tar_bytes({"a\nb/9.npy": b"x"}))
    assert scan_archive(path, "val2014").name(0) == f"{path}, member 'a\\nb/9.npy'"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_have_no_features(tmp_path: Path, kind: bytes) -> None:
    stream = io.BytesIO(tar_bytes({"8.npy": b"x"}))
    with tarfile.open(fileobj=stream, mode="a") as archive:
        foreign, link = tarfile.TarInfo("readme"), tarfile.TarInfo("9.npy")
        foreign.type = link.type = kind
        foreign.linkname = link.linkname = "8.npy"
        archive.addfile(foreign)
        archive.addfile(link)
    with pytest.raises(
        RawDataError, match=r"member 9\.npy: a link or a sparse file; pack it again"
    ):
        scan_archive(write(tmp_path, stream.getvalue()), "val2014")


@pytest.mark.parametrize("cut", [1, 500, 512, 700, 9999, -1025, -1024])
def test_tar_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    data = tar_bytes(members())
    data = data[: 512 * 4 * 50]
    whole = data.rstrip(b"\0")
    whole += bytes(-len(whole) % 512 + 1024)
    path = write(tmp_path, whole[:cut])
    with pytest.raises(RawDataError, match=f"{len(whole[:cut])} bytes"):
        scan_archive(path, "val2014")


def test_tar_that_ends_between_members_is_cut_short(tmp_path: Path) -> None:
    data = tar_bytes({"9.npy": b"x" * 512})
    path = write(tmp_path, data[:1024])
    with pytest.raises(RawDataError, match="cut short at 1024 bytes: the blocks that end a tar"):
        scan_archive(path, "val2014")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_gzip_that_is_cut_short(tmp_path: Path, share: float) -> None:
    data = packed_tar_bytes(members())
    data = data[: int(len(data) * share)]
    with pytest.raises(RawDataError, match=f": cut short at {len(data)} bytes: the data go on"):
        scan_archive(write(tmp_path, data), "val2014")


def test_tar_in_gzip_that_is_cut_short(tmp_path: Path) -> None:
    data = gzip.compress(tar_bytes(members())[:9000])
    with pytest.raises(RawDataError, match="unzipped: cut short at 9000 bytes, within 'val2014/"):
        scan_archive(write(tmp_path, data), "val2014")


@pytest.mark.parametrize("place", [3000, -6])
def test_gzip_that_is_damaged(tmp_path: Path, place: int) -> None:
    data = bytearray(packed_tar_bytes(members()))
    data[place] ^= 0x55
    with pytest.raises(RawDataError, match=r"damaged before byte .*download it again"):
        scan_archive(write(tmp_path, bytes(data)), "val2014")


@pytest.mark.parametrize("cut", [30, 5000, -1])
def test_zip_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    data = zip_bytes(members())[:cut]
    with pytest.raises(RawDataError, match=f"a zip cut short at {len(data)} bytes: its directory"):
        scan_archive(write(tmp_path, data), "val2014")


def test_zip_without_its_first_bytes(tmp_path: Path) -> None:
    data = zip_bytes(members())
    second = data.index(b"PK\3\4", 4)
    with pytest.raises(RawDataError, match="a zip without its first bytes"):
        scan_archive(write(tmp_path, data[second:]), "val2014")


def test_zip_with_a_damaged_directory(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(members()))
    data[data.index(b"PK\1\2")] = 0
    with pytest.raises(RawDataError, match=r"a damaged zip of \d+ bytes \(Bad magic number"):
        scan_archive(write(tmp_path, bytes(data)), "val2014")


def test_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"9.npy": b"x"}))
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(RawDataError, match="encrypted; unpack it and pack it again without a pass"):
        scan_archive(write(tmp_path, bytes(data)), "val2014")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_packed_in_another_way(tmp_path: Path, method: int) -> None:
    path = write(tmp_path, zip_bytes({"9.npy": b"x" * 99}, method))
    with pytest.raises(RawDataError, match=rf"'9\.npy' is packed by method {method}, only 0"):
        scan_archive(path, "val2014")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (bz2.compress(tar_bytes(members())), "a bzip2 file, which cannot be read in place"),
        (lzma.compress(tar_bytes(members())), "an xz file, which cannot be read in place"),
        (b"\x28\xb5\x2f\xfd" + bytes(90), "a zstd file, which cannot be read in place"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(90), "a 7z archive, which cannot be read in place"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(90), "a rar archive, which cannot be read in place"),
        (b"", "an empty file of 0 bytes, expected a .zip"),
        (b"<!DOCTYPE html><html>", "a web page .* of 21 bytes, expected a .zip"),
        (bytes(9000), "zeros .* of 9000 bytes, expected a .zip"),
        (b"\x93NUMPY\x01\x00", "a .npy file of 8 bytes, expected a .zip"),
        (gzip.compress(b"x" * 9000, mtime=0), "a gzip file without a tar in it"),
        (gzip.compress(b"", mtime=0), "a gzip file without a tar in it"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(RawDataError, match=what):
        scan_archive(write(tmp_path, data), "val2014")


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"val2014\.zip: missing"):
        scan_archive(tmp_path / "val2014.zip", "val2014")


def changed_header(place: int, value: bytes) -> bytes:
    """A tar whose first header has ``value`` at ``place`` and the checksum that goes with it."""
    data = bytearray(tar_bytes({"9.npy": b"x" * 600}, tarfile.PAX_FORMAT))
    data[place : place + len(value)] = value
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (changed_header(124, b"\x80" + b"\xff" * 11), "cut short at 10240 bytes, within '9"),
        (changed_header(124, b"\xff" * 12), "damaged at byte 0: a size of"),
        (changed_header(124, b"nonsense"), "damaged at byte 0: a size of b'nonsense"),
        (changed_header(156, b"L")[:1536], r"cut short at 1536 bytes: the blocks that end"),
        (
            changed_header(124, b"00010000000\0")[:156] + changed_header(156, b"x")[156:],
            "no pax|cut|d",
        ),
        (tar_bytes({"9.npy": b"x" * 600})[:1024] + b"y" * 512, "damaged at byte 1536|cut short"),
    ],
)
def test_damaged_tars(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(RawDataError, match=what):
        scan_archive(write(tmp_path, data), "val2014")
