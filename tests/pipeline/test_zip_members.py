"""Members of zips that are not what their headers say."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from packed_members import zip_with

from trar.errors import RawDataError
from trar.pipeline.readers.archives import list_members


def test_zip_member_with_another_checksum(tmp_path: Path) -> None:
    def change(data: bytearray) -> None:
        data[data.index(b"PK\1\2") + 16] ^= 1

    with pytest.raises(RawDataError, match=r"member 9\.npy: damaged: its checksum does not fit"):
        zip_with(tmp_path, b"abc" * 100, change).read()


def test_zip_member_that_inflates_to_more_than_it_says(tmp_path: Path) -> None:
    def change(data: bytearray) -> None:
        place = data.index(b"PK\1\2") + 24
        data[place : place + 4] = (200).to_bytes(4, "little")

    with pytest.raises(RawDataError, match="damaged: 201 bytes or more, the directory says 200"):
        zip_with(tmp_path, bytes(1 << 20), change).read()


def test_zip_member_that_claims_too_much_is_not_inflated(tmp_path: Path) -> None:
    def change(data: bytearray) -> None:
        place = data.index(b"PK\1\2") + 24
        data[place : place + 4] = (1 << 31).to_bytes(4, "little")

    with pytest.raises(RawDataError, match=f"{1 << 31} bytes, one image may have"):
        zip_with(tmp_path, bytes(1000), change).read()


def test_zip_member_whose_place_holds_something_else(tmp_path: Path) -> None:
    def change(data: bytearray) -> None:
        data[0] = 0

    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("8.npy", b"abc")
        archive.writestr("9.npy", b"abc")
    second = path.read_bytes().index(b"PK\3\4", 4)
    changed = bytearray(path.read_bytes())
    changed[second] = 0
    path.write_bytes(changed)
    file = next(one for name, one, _ in list_members(path) if name == "9.npy")
    with pytest.raises(RawDataError, match=f"damaged: no member begins at {second}"):
        file.read()


def test_long_extra_field_of_a_zip_member(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("9.npy")
    info.extra = b"\xfe\xca\xc8\x00" + bytes(200)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"abc")
    [(_, file, _)] = list_members(tmp_path / "a.zip")
    assert file.read() == b"abc"
