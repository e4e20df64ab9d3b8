"""Raw files: the same bytes wherever they stand, or one line that says where and why not."""

from __future__ import annotations

import io
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_members import KINDS, SIZES, content, write_tar

from trar.errors import DiskError, RawDataError
from trar.pipeline.readers import (
    archive_bytes,
)
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.archives import list_members
from trar.pipeline.readers.raw_file import MAX_IMAGE_BYTES, FileRange, PlainFile, RawFile


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
        good = not archive_bytes._handles and zlib.crc32(file.read()) == expected
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
    archive_bytes._start_afresh()
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


def test_range_reader_refuses_nonsense(archives: dict[str, dict[int, RawFile]]) -> None:
    stream = archives["plain.tar"][5000].open()
    with stream, pytest.raises(ValueError, match="seek to -1"):
        stream.seek(-1)
