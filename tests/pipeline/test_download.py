"""One file from a real server with real faults: it comes whole and right, from where it broke."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from pathlib import Path

import pytest
from file_server import FileServer
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import BLOB, IMPATIENT, get, published

from trar.errors import RawDataError
from trar.pipeline import download as downloading
from trar.pipeline.download import Patience, download


def test_a_file_comes_with_its_proof(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    found = download(published(BLOB, url), [url], tmp_path / "blob.bin", IMPATIENT)
    assert (tmp_path / "blob.bin").read_bytes() == BLOB
    assert (found.url, found.proof.verified) == (url, True)
    assert found.proof.sha256 == hashlib.sha256(BLOB).hexdigest()


def test_a_broken_line_is_resumed_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    faults = ["drop:100000", "drop:131072"]
    url = server.give("blob.bin", BLOB, faults=faults)
    assert get(published(BLOB, url), tmp_path) == BLOB
    starts = [int(one[6:-1]) for one in server.ranges_of("blob.bin")[1:] if one]
    assert len(starts) == 2
    assert 0 < starts[0] <= 100_000 < starts[1]


@given(st.lists(st.integers(1, 400_000), max_size=6), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_breaks_gives_the_same_bytes(
    breaks: list[int], ranges: bool, validator: bool
) -> None:
    with (
        FileServer() as server,
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
    ):
        patch.setattr(downloading, "_BLOCK", 4096)
        url = server.give(
            "blob.bin",
            BLOB,
            ranges=ranges,
            etag="auto" if validator else None,
            faults=[f"drop:{one}" for one in breaks],
        )
        patience = Patience(connect_s=2, silent_s=2, tries=9, pause_s=0)
        assert get(published(BLOB, url), Path(folder), patience) == BLOB


def test_the_next_run_goes_on_from_the_last(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB, faults=["drop:200000", 404])
    archive = published(BLOB, url)
    with pytest.raises(RawDataError, match=r"HTTP 404 .*; [\d,]+ bytes are kept for the next run"):
        get(archive, tmp_path)
    kept = (tmp_path / "blob.bin.partial").stat().st_size
    assert 0 < kept <= 200_000
    assert get(archive, tmp_path) == BLOB
    assert server.asked[-1] == (
        "blob.bin",
        f"bytes={kept}-",
        f'"{hashlib.md5(BLOB).hexdigest()}"',
    )


def test_a_changed_file_is_not_pasted_to_the_old_start(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB[::-1], faults=["drop:200000", 404])
    archive = published(BLOB, url, bytes=None, sha256=[])
    with pytest.raises(RawDataError):
        get(archive, tmp_path)
    server.give("blob.bin", BLOB)
    assert get(archive, tmp_path) == BLOB


def test_last_modified_serves_where_there_is_no_strong_etag(
    server: FileServer, tmp_path: Path
) -> None:
    day = "Wed, 26 Apr 2017 17:07:13 GMT"
    url = server.give("blob.bin", BLOB, etag='W/"weak"', last_modified=day, faults=["drop:200000"])
    assert get(published(BLOB, url, sha256=[]), tmp_path) == BLOB
    assert server.asked[-1][2] == day


def test_without_validator_and_digest_it_starts_again(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB, etag=None, faults=["drop:200000"])
    assert get(published(BLOB, url, sha256=[]), tmp_path) == BLOB
    assert server.ranges_of("blob.bin") == [None, None]


def test_a_server_that_ignores_range_starts_again(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB, ranges=False, faults=["drop:200000"])
    assert get(published(BLOB, url), tmp_path) == BLOB
    first, second = server.ranges_of("blob.bin")
    assert first is None
    assert second is not None


def test_a_complete_partial_file_needs_no_second_download(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.give("blob.bin", BLOB)
    archive = published(BLOB, url)
    (tmp_path / "blob.bin.partial").write_bytes(BLOB)
    (tmp_path / "blob.bin.partial.json").write_text(json.dumps({"url": url}))
    assert get(archive, tmp_path) == BLOB
    assert server.asked == []
    (tmp_path / "blob.bin").rename(tmp_path / "blob.bin.partial")
    (tmp_path / "blob.bin.partial.json").write_text(json.dumps({"url": url}))
    unsized = published(BLOB, url, bytes=None)
    assert get(unsized, tmp_path) == BLOB  # the server says 416: nothing is missing
    assert server.ranges_of("blob.bin") == [f"bytes={len(BLOB)}-"]


def test_a_partial_file_that_is_too_long_is_replaced(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    (tmp_path / "blob.bin.partial").write_bytes(BLOB + b"more")
    (tmp_path / "blob.bin.partial.json").write_text(json.dumps({"url": url}))
    assert get(published(BLOB, url, bytes=None), tmp_path) == BLOB


def test_a_spoilt_partial_file_is_replaced(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    (tmp_path / "blob.bin.partial").write_bytes(bytes(200_000))
    (tmp_path / "blob.bin.partial.json").write_text(json.dumps({"url": url}))
    assert get(published(BLOB, url), tmp_path) == BLOB
    assert server.ranges_of("blob.bin") == ["bytes=200000-", None]


def test_redirects_are_followed(server: FileServer, tmp_path: Path) -> None:
    there = server.give("blob.bin", BLOB)
    url = server.give("moved", b"", redirect=there)
    assert get(published(BLOB, url), tmp_path) == BLOB


def test_passing_faults_are_waited_for(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB, faults=[503, 429])
    assert get(published(BLOB, url), tmp_path) == BLOB


def test_a_silent_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB, faults=["silent:150000"])
    assert get(published(BLOB, url), tmp_path) == BLOB
    assert len(server.asked) == 2


def test_a_length_that_no_one_declares(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB, length=False, faults=["drop:150000"])
    assert get(published(BLOB, url), tmp_path) == BLOB


def test_progress_ends_at_the_whole(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    calls: list[tuple[str, int, int]] = []
    download(
        published(BLOB, url),
        [url],
        tmp_path / "blob.bin",
        IMPATIENT,
        lambda stage, done, total: calls.append((stage, done, total)),
    )
    assert ("blob.bin", len(BLOB), len(BLOB)) in calls
    assert ("checking blob.bin.partial", len(BLOB), len(BLOB)) in calls
    assert all(done <= total for _, done, total in calls)


def test_no_thread_is_left_behind(server: FileServer, tmp_path: Path) -> None:
    before = threading.active_count()
    url = server.give("blob.bin", BLOB, faults=["drop:1000", 503])
    get(published(BLOB, url), tmp_path)
    assert threading.active_count() <= before + 1  # the server's own
