"""Raw files: the same bytes wherever they stand, or one line that says where and why not."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trar.errors import DiskError, RawDataError
from trar.pipeline.readers import (
    gzip_source,
    gzip_stream,
    raw_file,
    tar_members,
    zip_members,
)
from trar.pipeline.readers.archives import list_members
from trar.pipeline.readers.raw_file import MAX_IMAGE_BYTES, Archive, FileRange, PlainFile, RawFile

SIZES = (0, 1, 5000, 300_000, 4_000_000)


def content(size: int) -> bytes:
    """Bytes that compress to about half."""
    return random.Random(size).randbytes(size).translate(bytes(value & 15 for value in range(256)))


def write_zip(path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for size in SIZES:
            archive.writestr(f"folder/{size}.bin", content(size))
    return path


def write_tar(path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:
        for size in SIZES:
            member = tarfile.TarInfo(f"folder/{size}.bin")
            member.size = size
            archive.addfile(member, io.BytesIO(content(size)))
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "stored.zip": lambda path: write_zip(path, zipfile.ZIP_STORED),
    "deflated.zip": write_zip,
    "plain.tar": lambda path: write_tar(path, "w"),
    "packed.tar.gz": lambda path: write_tar(path, "w:gz"),
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, RawFile]]:
    """The members of one archive of each kind, by their sizes."""
    folder = tmp_path_factory.mktemp("archives")
    found = {}
    for name, write in KINDS.items():
        members = list(list_members(write(folder / name)))
        assert all(there for _, _, there in members)
        found[name] = {int(Path(one).stem): file for one, file, _ in members}
    return found


@pytest.fixture
def afresh() -> Iterator[None]:
    """Nothing open before and after, as in a new process."""
    raw_file._start_afresh()
    gzip_stream._start_afresh()
    yield
    raw_file._start_afresh()
    gzip_stream._start_afresh()


@pytest.mark.parametrize("kind", KINDS)
def test_members_have_their_bytes(archives: dict[str, dict[int, RawFile]], kind: str) -> None:
    assert sorted(archives[kind]) == sorted(SIZES)
    for size, file in archives[kind].items():
        assert file.size == size
        assert file.read() == content(size)
        with file.open() as stream:
            assert stream.read() == content(size)
        assert file.name.endswith(f"{kind}, member folder/{size}.bin")


@settings(max_examples=30, deadline=None)
@given(data=st.data(), kind=st.sampled_from(list(KINDS)), size=st.sampled_from(SIZES[2:]))
def test_readers_seek_like_files(
    archives: dict[str, dict[int, RawFile]], data: st.DataObject, kind: str, size: int
) -> None:
    expected = io.BytesIO(content(size))
    with archives[kind][size].open() as stream:
        for _ in range(6):
            offset = data.draw(st.integers(0, size + 10))
            whence = data.draw(st.sampled_from([os.SEEK_SET, os.SEEK_END]))
            offset = -min(offset, size) if whence == os.SEEK_END else offset
            count = data.draw(st.sampled_from([0, 1, 100, 70_000, size]))
            assert stream.seek(offset, whence) == expected.seek(offset, whence)
            assert stream.read(count) == expected.read(count)
            assert stream.tell() == expected.tell()


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_members_carry_no_handle(
    archives: dict[str, dict[int, RawFile]], kind: str, afresh: None
) -> None:
    file = archives[kind][300_000]
    assert file.read() == content(300_000)
    pickled = pickle.dumps(file)
    assert len(pickled) < 1500
    assert pickle.loads(pickled).read() == content(300_000)


@pytest.mark.parametrize("kind", KINDS)
def test_forked_processes_read_on_their_own(
    archives: dict[str, dict[int, RawFile]], kind: str
) -> None:
    file = archives[kind][4_000_000]
    expected = zlib.crc32(content(4_000_000))
    assert zlib.crc32(file.read()) == expected
    child = os.fork()
    if child == 0:
        good = not raw_file._handles and zlib.crc32(file.read()) == expected
        os._exit(0 if good else 1)
    assert zlib.crc32(file.read()) == expected
    assert os.waitpid(child, 0)[1] == 0


def test_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "9.npy"
    path.write_bytes(b"abc")
    file = PlainFile(path)
    assert (file.read(), file.size, file.name) == (b"abc", 3, str(path))
    with file.open() as stream:
        assert stream.read() == b"abc"
    before = file.stamp()
    os.utime(path, ns=(1, 1))
    assert file.stamp() != before
    path.write_bytes(b"abcd")
    os.utime(path, ns=(1, 1))
    assert file.stamp() == "4 1"


@pytest.mark.parametrize("use", [PlainFile.read, PlainFile.open, PlainFile.stamp])
def test_missing_file(tmp_path: Path, use: Callable[[PlainFile], object]) -> None:
    (tmp_path / "9.npy").symlink_to("nowhere")
    with pytest.raises(RawDataError, match=r"9\.npy: missing: moved or deleted"):
        use(PlainFile(tmp_path / "9.npy"))


def test_folder_and_pipe_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "9.npy").mkdir()
    os.mkfifo(tmp_path / "8.npy")
    for name, what in (("9.npy", "a folder"), ("8.npy", "a pipe or device")):
        for use in (PlainFile.read, PlainFile.open):
            with pytest.raises(RawDataError, match=f"{name}: {what}, expected a file"):
                use(PlainFile(tmp_path / name))


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "9.npy").write_bytes(b"abc")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DiskError, match=r"9\.npy: Permission denied; the user"):
        PlainFile(tmp_path / "9.npy").read()


def test_disk_fault_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(116, "Stale file handle")

    (tmp_path / "9.npy").write_bytes(b"abc")
    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(RawDataError, match=r"9\.npy: cannot be read .*Stale file handle"):
        PlainFile(tmp_path / "9.npy").read()


def test_one_image_has_a_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "9.npy"
    path.touch()
    os.truncate(path, MAX_IMAGE_BYTES + 1)  # a hole: takes no disk
    large = f"{MAX_IMAGE_BYTES + 1} bytes, one image may have {MAX_IMAGE_BYTES}"
    archive = Archive.of(path)
    for file in (PlainFile(path), FileRange(archive, "9.npy", 0, archive.size)):
        with pytest.raises(RawDataError, match=large):
            file.read()
        with file.open() as stream:
            stream.seek(-1, os.SEEK_END)
            assert stream.read() == b"\0"


def test_archive_that_changes_while_it_is_read(tmp_path: Path, afresh: None) -> None:
    path = write_tar(tmp_path / "a.tar", "w")
    file = next(one for _, one, _ in list_members(path) if one.size == 5000)
    raw_file._start_afresh()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RawDataError, match=r"a\.tar: 3000 bytes, it had \d+ when this run began"):
        file.read()


def test_archive_that_shrinks_under_its_handle(tmp_path: Path, afresh: None) -> None:
    path = write_tar(tmp_path / "a.tar", "w")
    file = next(one for _, one, _ in list_members(path) if one.size == 5000)
    os.truncate(path, 3000)
    with pytest.raises(RawDataError, match=r"a\.tar: cut short at 3000 bytes, expected"):
        file.read()


def test_stamps_tell_members_and_archives_apart(tmp_path: Path) -> None:
    for name, write in KINDS.items():
        write(tmp_path / name)
        os.utime(tmp_path / name, ns=(5, 5))
        stamps = {file.stamp() for _, file, _ in list_members(tmp_path / name)}
        assert len(stamps) == len(SIZES)
        os.utime(tmp_path / name, ns=(6, 6))
        assert stamps.isdisjoint(file.stamp() for _, file, _ in list_members(tmp_path / name))


def zip_with(tmp_path: Path, data: bytes, change: Callable[[bytearray], None]) -> RawFile:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("9.npy", data)
    changed = bytearray(path.read_bytes())
    change(changed)
    path.write_bytes(changed)
    [(_, file, _)] = list_members(path)
    return file


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


def test_big_member_of_a_gzipped_tar(
    archives: dict[str, dict[int, RawFile]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_members, "MAX_IMAGE_BYTES", 1 << 20)
    expected = content(4_000_000)
    with archives["packed.tar.gz"][4_000_000].open() as stream:
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


def test_range_reader_refuses_nonsense(archives: dict[str, dict[int, RawFile]]) -> None:
    stream = archives["plain.tar"][5000].open()
    with stream, pytest.raises(ValueError, match="seek to -1"):
        stream.seek(-1)
