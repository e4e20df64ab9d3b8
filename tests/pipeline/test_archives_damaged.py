"""Archives that are hostile, cut short, damaged or none: one line that names the file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from image_archives import (
    every_kind,
    members,
    packed_tar_bytes,
    tar_bytes,
    write,
    zip_bytes,
)

from trar.errors import RawDataError
from trar.pipeline.readers.archives import scan_archive


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
