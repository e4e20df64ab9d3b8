"""What is wrong with a mirror is said; the next one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_server import FileServer
from published_files import BLOB, get, published

from trar.errors import RawDataError


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"always": 403}, "HTTP 403 Forbidden"),
        ({"always": 503}, "HTTP 503 Service Unavailable; 0 of 300,000 bytes came"),
        ({"content_type": "text/html; charset=utf-8"}, "a web page .text/html. instead of the"),
        ({"redirect": "https://127.0.0.1:1/login"}, "refused"),
        ({"redirect": "ftp://example.org/x"}, "No connection adapters"),
    ],
)  # fmt: skip
def test_the_reason_of_a_mirror(
    server: FileServer, tmp_path: Path, how: dict[str, object], reason: str
) -> None:
    url = server.give("blob.bin", BLOB, **how)
    with pytest.raises(RawDataError, match=rf"blob.bin: no mirror gave it \({url}: .*{reason}"):
        get(published(BLOB, url), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BLOB[:-20], "it offers 299,980 bytes, expected 300,000: truncated, or another"),
        (BLOB + b"x", "wrong size: it offers 300,001 bytes, expected 300,000: another file"),
        (BLOB[::-1], "wrong digest: sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (b"<!DOCTYPE html><title>Sign in</title>".ljust(len(BLOB)), "a web page .its content."),
    ],
)  # fmt: skip
def test_wrong_content(server: FileServer, tmp_path: Path, data: bytes, reason: str) -> None:
    url = server.give("blob.bin", data)
    with pytest.raises(RawDataError, match=reason):
        get(published(BLOB, url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_stops_is_stopped(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB * 3, length=False)
    with pytest.raises(RawDataError, match="sends more than the 300,000 bytes expected"):
        get(published(BLOB, url), tmp_path)


def test_what_a_server_says_stays_on_one_line(server: FileServer, tmp_path: Path) -> None:
    odd = "No\x1b[2J\rsuch file"
    url = server.give("blob.bin", BLOB, always=404, reason=odd)
    with pytest.raises(RawDataError, match=r"HTTP 404 No\?\[2J.?such file\)"):
        get(published(BLOB, url), tmp_path)


@pytest.mark.parametrize("header", ["9" * 5000, "-5", "²", "1e3"])
def test_absurd_headers_are_no_crash(server: FileServer, tmp_path: Path, header: str) -> None:
    url = server.give(
        "blob.bin", BLOB, length=False, extra={"Content-Range": f"bytes 0-1/{header}"}
    )
    assert get(published(BLOB, url), tmp_path) == BLOB


def test_the_next_mirror_goes_on_where_the_first_stopped(
    server: FileServer, tmp_path: Path
) -> None:
    first = server.give("a/blob.bin", BLOB, faults=["drop:200000", 410])
    second = server.give("b/blob.bin", BLOB, etag='"of its own"')
    assert get(published(BLOB, first, second), tmp_path) == BLOB
    (begin,) = server.ranges_of("b/blob.bin")
    assert begin is not None
    assert int(begin[6:-1]) > 0


def test_mirrors_without_a_digest_are_never_mixed(server: FileServer, tmp_path: Path) -> None:
    first = server.give("a/blob.bin", BLOB[::-1], faults=["drop:200000", 410])
    second = server.give("b/blob.bin", BLOB)
    assert get(published(BLOB, first, second, sha256=[]), tmp_path) == BLOB
    assert server.ranges_of("b/blob.bin") == [None]


def test_mixed_mirrors_that_disagree_are_told_apart_by_the_digest(
    server: FileServer, tmp_path: Path
) -> None:
    first = server.give("a/blob.bin", BLOB[::-1], faults=["drop:200000", 410])
    second = server.give("b/blob.bin", BLOB)
    assert get(published(BLOB, first, second), tmp_path) == BLOB
    assert [one is None for one in server.ranges_of("b/blob.bin")] == [False, True]


def test_every_mirror_is_named_with_its_reason(server: FileServer, tmp_path: Path) -> None:
    urls = [
        server.give("a/blob.bin", BLOB, always=404),
        server.give("b/blob.bin", BLOB[:-1]),
        server.give("c/blob.bin", BLOB[::-1]),
        "http://127.0.0.1:1/blob.bin",
    ]
    with pytest.raises(RawDataError) as caught:
        get(published(BLOB, *urls), tmp_path)
    for url, reason in zip(urls, ("404", "wrong size", "wrong digest", "refused"), strict=True):
        assert f"{url}: " in str(caught.value)
        assert reason in str(caught.value).split(f"{url}: ")[1]
    good = server.give("d/blob.bin", BLOB)
    assert get(published(BLOB, *urls, good), tmp_path) == BLOB
