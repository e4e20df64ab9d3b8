"""Large compressed members are read from seek points, which every process may share."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packed_members import content, write_tar, write_zip, zip_with

from trar.errors import DiskError, RawDataError
from trar.pipeline.readers import (
    gzip_source,
    gzip_stream,
    tar_members,
    zip_members,
)
from trar.pipeline.readers.archives import list_members
from trar.pipeline.readers.raw_file import RawFile


@pytest.fixture
def big_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: None) -> RawFile:
    """4 MB of a deflated zip, counted as too much to inflate whole."""
    monkeypatch.setattr(zip_members, "MAX_IMAGE_BYTES", 1 << 20)
    members = list_members(write_zip(tmp_path / "a.zip"))
    return next(file for _, file, _ in members if file.size == 4_000_000)


def test_big_deflated_member_is_read_from_seek_points(big_member: RawFile) -> None:
    expected = content(4_000_000)
    with big_member.open() as stream:
        for offset in (3_999_990, 17, 2_000_000, 2_000_100, 0):
            stream.seek(offset)
            assert stream.read(50) == expected[offset : offset + 50]
    with big_member.open() as stream:
        assert stream.read() == expected


def test_processes_import_the_seek_points_of_the_one_that_listed(
    big_member: RawFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    big_member.open().close()
    received = pickle.loads(pickle.dumps(big_member))
    gzip_stream._start_afresh()
    with monkeypatch.context() as patch:
        patch.setattr(gzip_stream._OpenStream, "_find_points", None)  # no second pass
        with received.open() as stream:
            stream.seek(3_000_000)
            assert stream.read(9) == content(4_000_000)[3_000_000:3_000_009]


def test_seek_points_are_found_again_where_their_file_is_not(big_member: RawFile) -> None:
    big_member.open().close()
    received = pickle.loads(pickle.dumps(big_member))
    gzip_stream._start_afresh()
    index = Path(received.index_file)
    index.write_bytes(b"GZIDX of another kind")
    with received.open() as stream:
        assert stream.read(9) == content(4_000_000)[:9]
    gzip_stream._start_afresh()
    index.unlink()
    with received.open() as stream:
        assert stream.read(9) == content(4_000_000)[:9]
    assert index.is_file()


def test_big_deflated_member_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: None
) -> None:
    def change(data: bytearray) -> None:
        data[data.index(b"PK\1\2") + 16] ^= 1

    monkeypatch.setattr(zip_members, "MAX_IMAGE_BYTES", 1 << 10)
    file = zip_with(tmp_path, content(300_000), change)
    with pytest.raises(RawDataError, match=r"member 9\.npy: damaged before byte .*incorrect data"):
        file.open()


def test_big_deflated_member_of_another_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: None
) -> None:
    def change(data: bytearray) -> None:
        place = data.index(b"PK\1\2") + 20
        packed = int.from_bytes(data[place : place + 4], "little")
        data[place : place + 4] = (packed // 2).to_bytes(4, "little")

    monkeypatch.setattr(zip_members, "MAX_IMAGE_BYTES", 1 << 10)
    file = zip_with(tmp_path, content(300_000), change)
    with pytest.raises(RawDataError, match=r"member 9\.npy: .*(cut short|damaged)"):
        file.open()


def test_data_of_changing_density_leave_few_seek_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: None
) -> None:
    data = content(200_000) + bytes(60_000_000)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("9.bin")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(gzip_source, "_SAMPLE", 50_000)
    monkeypatch.setattr(gzip_stream, "_POINTS", 8)
    [(_, file, _)] = list_members(tmp_path / "a.tar.gz")
    [opened] = gzip_stream._streams.values()
    assert opened._file.raw.npoints <= 16
    with file.open() as stream:
        stream.seek(199_990)
        assert stream.read(20) == data[199_990:200_010]


def test_big_member_of_a_gzipped_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = list_members(write_tar(tmp_path / "a.tar.gz", "w:gz"))
    file = next(one for _, one, _ in members if one.size == 4_000_000)
    monkeypatch.setattr(tar_members, "MAX_IMAGE_BYTES", 1 << 20)
    expected = content(4_000_000)
    with file.open() as stream:
        for offset in (3_999_990, 17, 2_000_000):
            stream.seek(offset)
            assert stream.read(50) == expected[offset : offset + 50]
        stream.seek(0)
        assert stream.read() == expected


def test_gzip_that_is_cut_after_it_was_listed(tmp_path: Path, afresh: None) -> None:
    path = write_tar(tmp_path / "a.tar.gz", "w:gz")
    file = next(one for _, one, _ in list_members(path) if one.size == 300_000)
    gzip_stream._start_afresh()  # what it inflated last is gone, the open archive is not
    os.truncate(path, 1000)
    with pytest.raises(RawDataError, match=r"a\.tar\.gz: cut short at 1000 bytes"):
        file.read()


def test_seek_points_are_removed_at_exit(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", "w:gz")
    place = tmp_path / "temporary"
    for owner in ("999999999", str(os.getpid()), "x"):  # killed, running, foreign
        (place / f"trar-index-{owner}-abc").mkdir(parents=True)
    code = (
        "import sys, pathlib, os\n"
        "from trar.pipeline.readers.archives import list_members\n"
        "members = list(list_members(pathlib.Path(sys.argv[1])))\n"
        "print(sum(len(files) for _, _, files in os.walk(sys.argv[2])))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path), str(place)],
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "1"
    assert {one.name for one in place.iterdir()} == {
        f"trar-index-{os.getpid()}-abc",
        "trar-index-x-abc",
    }


def test_no_place_for_seek_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise OSError(28, "No space left on device")

    path = write_tar(tmp_path / "a.tar.gz", "w:gz")
    monkeypatch.setattr(gzip_stream, "_index_folder", gzip_stream._index_folder.__wrapped__)
    monkeypatch.setattr(gzip_stream.tempfile, "mkdtemp", refuse)
    with pytest.raises(DiskError, match=r"no temporary folder .*No space left.*set TMPDIR"):
        list(list_members(path))
