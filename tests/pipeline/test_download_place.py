"""What stands in the way of a download: other files, other runs, a stop, a full disk."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from disk import fill
from file_server import FileServer
from published_files import BLOB, IMPATIENT, get, published

from trar.errors import DiskError, RawDataError
from trar.pipeline.download import download


def test_nothing_is_overwritten(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    (tmp_path / "blob.bin").write_bytes(b"mine")
    with pytest.raises(RawDataError, match="already there; it is not overwritten"):
        get(published(BLOB, url), tmp_path)
    assert (tmp_path / "blob.bin").read_bytes() == b"mine"


def test_a_partial_file_of_somebody_else_is_left_alone(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    partial = tmp_path / "blob.bin.partial"
    partial.write_bytes(b"a browser's")
    for note in (None, "{}", "[", '{"url": 3}'):
        if note is not None:
            (tmp_path / "blob.bin.partial.json").write_text(note)
        with pytest.raises(RawDataError, match=r"blob.bin.partial: not made by this command"):
            get(published(BLOB, url), tmp_path)
        assert partial.read_bytes() == b"a browser's"


def test_two_runs_do_not_write_one_file(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    (tmp_path / "blob.bin.partial.json").write_text(json.dumps({"url": url}))
    with (tmp_path / "blob.bin.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RawDataError, match="another trar-data fetch is writing it"):
            get(published(BLOB, url), tmp_path)


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.give("blob.bin", BLOB)
    target = tmp_path / "blob.bin"

    def appear(*_: object) -> None:
        target.write_bytes(b"mine")

    with pytest.raises(RawDataError, match="appeared while it was fetched"):
        download(published(BLOB, url), [url], target, IMPATIENT, appear)
    assert target.read_bytes() == b"mine"


def test_a_stop_keeps_what_came(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)

    def stop(stage: str, done: int, total: int) -> None:
        if done > 150_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(published(BLOB, url), [url], tmp_path / "blob.bin", IMPATIENT, stop)
    assert (tmp_path / "blob.bin.partial").stat().st_size > 150_000
    assert get(published(BLOB, url), tmp_path) == BLOB
    assert server.ranges_of("blob.bin")[1] is not None


def test_a_full_disk_keeps_what_came(server: FileServer, small_disk: Path) -> None:
    data = BLOB * 6
    ballast = fill(small_disk)
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - (1 << 20))
    known = server.give("blob.bin", data)
    with pytest.raises(DiskError, match=r"fetching blob.bin needs 1.7 MiB, [\d.]+ (MiB|KiB) are"):
        download(published(data, known), [known], small_disk / "blob.bin", IMPATIENT)
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast"]
    unknown = server.give("blob.bin", data, length=False)
    archive = published(data, unknown, bytes=None)
    with pytest.raises(DiskError, match=r"blob.bin.partial: No space left on device; free some"):
        download(archive, [unknown], small_disk / "blob.bin", IMPATIENT)
    assert (small_disk / "blob.bin.partial").stat().st_size > 0
    ballast.unlink()
    assert get(archive, small_disk) == data
    assert server.ranges_of("blob.bin")[-1] is not None
