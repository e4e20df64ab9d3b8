"""Downloads from a real server with real faults: the file whole and right, or the reason."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from disk import fill
from file_server import FileServer
from hypothesis import given, settings
from hypothesis import strategies as st

from trar.commands import fetch as command
from trar.errors import ConfigError, DiskError, RawDataError, TrarError
from trar.pipeline import download as downloading
from trar.pipeline import manifest
from trar.pipeline.download import Patience, download
from trar.pipeline.fetch import Fetched, fetch, plan_fetch
from trar.pipeline.manifest import Archive, DatasetFiles, RawFile
from trar.pipeline.published import check_published
from trar.pipeline.zip_archive import same_as_member, unpack_members

IMPATIENT = Patience(connect_s=2, silent_s=0.3, tries=3, pause_s=0.001)
BLOB = np.random.default_rng(7).bytes(300_000)  # several blocks long
QUESTIONS = json.dumps({"questions": [{"question": "Is it?"}] * 500}).encode()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


def zipped(**members: bytes) -> bytes:
    """A zip with these members; a name's ``__`` is a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def published(data: bytes, *urls: str, name: str = "blob.bin", **other: object) -> Archive:
    """An archive whose size and digest are known, unless ``other`` says otherwise."""
    facts: dict[str, object] = {"bytes": len(data), "sha256": [hashlib.sha256(data).hexdigest()]}
    return Archive(name=name, urls=list(urls), **{**facts, **other})  # type: ignore[arg-type]


def get(archive: Archive, folder: Path, patience: Patience = IMPATIENT) -> bytes:
    """Download to ``folder``; nothing else may be left there."""
    target = folder / archive.name
    download(archive, archive.urls, target, patience)
    assert [path.name for path in folder.iterdir()] == [archive.name]
    return target.read_bytes()


# ---- one file, one mirror


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


# ---- what is wrong with a mirror


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


def test_odd_member_names_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(**{"a\nb\x1b": b"1"}))
    with pytest.raises(RawDataError, match=r"no members are called q, .*; it holds a\?b\?\. Is"):
        unpack_members(path, {"q": tmp_path / "q"})


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


def test_any_accepted_digest_will_do_and_then_the_size_is_free(
    server: FileServer, tmp_path: Path
) -> None:
    again = BLOB[:1000]
    url = server.give("blob.bin", again)
    archive = published(BLOB, url)
    copies = Archive(
        archive.name, [url], len(BLOB), [*archive.sha256, hashlib.sha256(again).hexdigest()]
    )
    assert get(copies, tmp_path) == again


def test_md5_where_only_that_is_published(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    right = Archive("blob.bin", [url], None, [], [hashlib.md5(BLOB).hexdigest()])
    assert get(right, tmp_path) == BLOB
    (tmp_path / "blob.bin").unlink()
    wrong = Archive("blob.bin", [url], None, [], ["0" * 32])
    with pytest.raises(RawDataError, match=r"wrong digest: md5 [0-9a-f]{32}, expected 0{32}"):
        get(wrong, tmp_path)


# ---- files without a published digest


def unverified(server: FileServer, folder: Path, name: str, data: bytes, **how: object) -> str:
    url = server.give(name, data, **how)
    found = download(Archive(name, [url], None, []), [url], folder / name, IMPATIENT)
    assert not found.proof.verified
    return found.proof.proof


def test_without_a_digest_the_zip_proves_itself(server: FileServer, tmp_path: Path) -> None:
    data = zipped(questions=QUESTIONS)
    proof = unverified(server, tmp_path, "q.zip", data)
    digest = hashlib.sha256(data).hexdigest()
    assert proof == f"unverified: no published digest (sha256 {digest})"


def test_a_truncated_zip_is_named_as_such(server: FileServer, tmp_path: Path) -> None:
    data = zipped(questions=BLOB)
    with pytest.raises(RawDataError, match=r"a truncated zip: 200,000 bytes, and the directory"):
        unverified(server, tmp_path, "q.zip", data[:200_000], length=False)
    url = server.give("q.zip", data[:200_000])
    copies = Archive("q.zip", [url], len(data), ["0" * 64, "1" * 64])
    with pytest.raises(
        RawDataError, match=rf"a truncated zip: 200,000 of {len(data):,} bytes, and the directory"
    ):
        get(copies, tmp_path)


def test_a_damaged_member_is_named(server: FileServer, tmp_path: Path) -> None:
    data = bytearray(zipped(questions=BLOB))
    data[5000] ^= 1
    with pytest.raises(RawDataError, match="member questions is damaged"):
        unverified(server, tmp_path, "q.zip", bytes(data))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", b"Rar!" + BLOB, "not a zip archive: it begins with b'Rar!'"),
        ("a.tgz", BLOB, "not a gzip archive"),
        ("a.json", b'[{"question_id": 1}, {"ques', "not whole JSON: 27 bytes"),
    ],
)
def test_other_forms_prove_what_they_can(
    server: FileServer, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    with pytest.raises(RawDataError, match=message):
        unverified(server, tmp_path, name, data)
    assert list(tmp_path.iterdir()) == []


def test_sound_files_of_other_forms(server: FileServer, tmp_path: Path) -> None:
    assert "unverified" in unverified(server, tmp_path, "a.tgz", gzip.compress(BLOB))
    assert "unverified" in unverified(server, tmp_path, "a.json", b' [{"question_id": 1}]\n')


# ---- what stands in the way


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


def test_no_space_is_told_before_the_first_byte(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    huge = RawFile("train", "questions", ["q.json"], None, published(BLOB, url, bytes=1 << 60))
    with pytest.raises(DiskError, match=r"fetching mine needs 1048576.0 TiB"):
        fetch("mine", tmp_path, files=dataset(huge))
    assert server.asked == []


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


# ---- a dataset


def dataset(*files: RawFile, folders: tuple[str, ...] = ("vqa/raw", "raw", ".")) -> DatasetFiles:
    return DatasetFiles("a dataset", "CC0", "https://example.org", list(folders), list(files))


@pytest.fixture
def offered(server: FileServer) -> DatasetFiles:
    """Two questions files in one zip, annotations of unknown digest, features, and one by hand."""
    both = zipped(deep__test_questions=QUESTIONS, deep__dev_questions=QUESTIONS[:0] + b"[]")
    answers = zipped(answers=QUESTIONS)
    test = published(both, server.give("test.zip", both), name="test.zip")
    annotations = published(
        answers, server.give("answers.zip", answers), name="answers.zip", sha256=[], bytes=None
    )
    features = published(BLOB, server.give("f.zip", BLOB), name="f.zip")
    return dataset(
        RawFile("test", "questions", ["test_questions"], 500, test),
        RawFile("dev", "questions", ["sub/dev_questions"], 1, test),
        RawFile("train", "annotations", ["answers"], None, annotations),
        RawFile("vg", "questions", ["VG.json"], None, None, by_hand="the shared drive"),
        RawFile("train", "features", ["f.zip"], None, features, form="a", folders=["feats"]),
        RawFile("train", "features", ["g.tgz"], None, None, form="b", folders=["feats"]),
    )


def run(raw: Path, files: DatasetFiles, **choice: object) -> dict[str, Fetched]:
    results = fetch("mine", raw, files=files, patience=IMPATIENT, **choice)  # type: ignore[arg-type]
    return {one.wanted.name: one for one in results}


def statuses(results: dict[str, Fetched]) -> dict[str, str]:
    return {name: one.status for name, one in results.items()}


def test_questions_and_annotations_are_unpacked_where_prepare_looks(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    results = run(tmp_path, offered)
    assert statuses(results) == {
        "test.zip": "fetched",
        "answers.zip": "fetched",
        "VG.json": "by hand",
    }
    assert "the shared drive" in results["VG.json"].note
    assert results["answers.zip"].note.startswith("unverified: no published digest (sha256 ")
    raw = tmp_path / "vqa/raw"
    assert sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*")) == [
        "answers",
        "answers.zip",
        "sub",
        "sub/dev_questions",
        "test.zip",
        "test_questions",
    ]
    assert (raw / "test_questions").read_bytes() == QUESTIONS
    assert offered.find(tmp_path, "dev", "questions") == raw / "sub/dev_questions"
    asked = len(server.asked)
    again = run(tmp_path, offered)
    assert set(statuses(again).values()) == {"already there", "by hand"}
    assert len(server.asked) == asked


def test_only_the_chosen_members_and_the_rest_later(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    run(tmp_path, offered, splits=["test"])
    assert not (tmp_path / "vqa/raw/sub").exists()
    later = run(tmp_path, offered, splits=["dev"])
    assert statuses(later) == {"test.zip": "fetched"}
    assert (tmp_path / "vqa/raw/sub/dev_questions").read_bytes() == b"[]"
    assert len(server.asked) == 1


def test_features_stay_as_they_are(offered: DatasetFiles, tmp_path: Path) -> None:
    assert statuses(run(tmp_path, offered, what=["features:a"])) == {"f.zip": "fetched"}
    assert (tmp_path / "feats/f.zip").read_bytes() == BLOB


def test_files_without_their_archive_are_left_to_verify(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/answers").write_text("{}")
    results = run(tmp_path, offered, what=["annotations"])
    assert statuses(results) == {"answers.zip": "already there"}
    assert "only `trar-data verify --raw` can judge it" in results["answers.zip"].note
    assert server.asked == []


def test_an_archive_of_the_user_is_proved_and_used(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "test.zip").write_bytes(server.files["test.zip"].data)
    assert statuses(run(tmp_path, offered, splits=["test"])) == {"test.zip": "fetched"}
    assert (tmp_path / "vqa/raw/test_questions").read_bytes() == QUESTIONS
    assert server.asked == []


def test_a_wrong_archive_in_the_place_is_named_and_left(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "test.zip").write_bytes(b"PK\x03\x04half")
    results = run(tmp_path, offered, what=["questions", "annotations"], splits=["test", "train"])
    assert statuses(results) == {"test.zip": "failed", "answers.zip": "fetched"}
    size = len(server.files["test.zip"].data)
    assert f"a truncated zip: 8 of {size:,} bytes" in results["test.zip"].note
    assert "left alone: move it away" in results["test.zip"].note
    assert (tmp_path / "test.zip").read_bytes() == b"PK\x03\x04half"


def test_another_file_in_a_members_place_is_named_and_left(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "vqa/raw").mkdir(parents=True)
    mine = tmp_path / "vqa/raw/test_questions"
    for data in (b"mine", QUESTIONS[:-1] + b"!"):
        mine.write_bytes(data)
        results = run(tmp_path, offered, splits=["test", "dev"])
        assert statuses(results) == {"test.zip": "failed"}
        assert "test_questions: differs from test_questions in" in results["test.zip"].note
        assert mine.read_bytes() == data


def test_what_blocks_a_place_is_named(offered: DatasetFiles, tmp_path: Path) -> None:
    (tmp_path / "vqa").write_text("a file")
    with pytest.raises(DiskError, match="a part of that path is a file"):
        run(tmp_path, offered, splits=["test"])
    (tmp_path / "vqa").unlink()
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa/raw").write_text("a file")
    note = run(tmp_path, offered, splits=["test"])["test.zip"].note
    assert "a file is in the place of a folder" in note
    (tmp_path / "vqa/raw").unlink()
    (tmp_path / "vqa/raw/test_questions").mkdir(parents=True)
    note = run(tmp_path, offered, splits=["test"])["test.zip"].note
    assert "test_questions: in the way" in note


def test_members_are_found_by_name_and_never_leave_the_folder(
    server: FileServer, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    hostile = zipped(**{"..__..__evil": b"out", "..__answers": b"in", "__answers2": b"in2"})
    archive = published(hostile, server.give("h.zip", hostile), name="h.zip")
    files = dataset(
        RawFile("train", "annotations", ["answers"], None, archive),
        RawFile("val", "annotations", ["answers2"], None, archive),
    )
    assert statuses(run(raw, files)) == {"h.zip": "fetched"}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "answers",
        "answers2",
        "h.zip",
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other": b"x"}, "no members are called answers, expected one; it holds other"),
        ({"a__answers": b"x", "b__answers": b"y"}, "2 members are called answers"),
        ({"answers": bytes(10_000_000)}, "no such data compresses so far: not unpacked"),
    ],
)
def test_archives_that_hold_something_else(
    server: FileServer, tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    data = zipped(**members)
    archive = published(data, server.give("h.zip", data), name="h.zip")
    results = run(tmp_path, dataset(RawFile("train", "annotations", ["answers"], None, archive)))
    assert statuses(results) == {"h.zip": "failed"}
    assert message in results["h.zip"].note
    assert not (tmp_path / "vqa/raw/answers").exists()


def test_of_two_members_the_one_with_the_right_folder(server: FileServer, tmp_path: Path) -> None:
    data = zipped(top__train__q=b"1", top__test__q=b"2")
    archive = published(data, server.give("h.zip", data), name="h.zip")
    run(tmp_path, dataset(RawFile("test", "questions", ["test/q"], None, archive)))
    assert (tmp_path / "vqa/raw/test/q").read_bytes() == b"2"


def test_a_mirror_of_ones_own_comes_first(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    server.give("own/VG.json", b'{"questions": []}', content_type="application/json")
    results = run(tmp_path, offered, splits=["vg", "test"], mirror=server.url("own/"))
    assert statuses(results) == {"VG.json": "fetched", "test.zip": "fetched"}
    assert results["VG.json"].url == server.url("own/VG.json")
    assert [path for path, *_ in server.asked] == ["own/test.zip", "test.zip", "own/VG.json"]


def test_the_mirror_of_the_real_manifest_keeps_odd_names(tmp_path: Path) -> None:
    (one,) = plan_fetch("refcoco", tmp_path, ["refcoco-plus"], mirror="http://here/data")
    assert one.urls[0] == "http://here/data/refcoco+.zip"
    assert [file.names[0] for file in one.files] == [
        "refcoco+/refs(unc).p",
        "refcoco+/instances.json",
    ]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"splits": ["trian"]}, "no split 'trian' here; there are test, dev, train, vg"),
        ({"what": ["feature"]}, "nothing here is called 'feature'; there are questions, annot"),
        ({"what": ["features:c"]}, "nothing here is called 'features:c'"),
        ({"what": ["features"]}, "several forms; name one of features:a, features:b"),
        ({"splits": ["vg"], "what": ["annotations"]}, "no annotations of vg are known"),
    ],
)
def test_a_choice_that_fits_nothing(
    offered: DatasetFiles, tmp_path: Path, choice: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_fetch("mine", tmp_path, files=offered, **choice)  # type: ignore[arg-type]


# ---- the command


@pytest.fixture
def known(offered: DatasetFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command knows the served dataset as ``vqa``."""
    real = manifest.Manifest(1, {"vqa": offered})
    monkeypatch.setattr(manifest, "load_manifest", lambda: real)


@pytest.mark.usefixtures("known")
def test_the_command_lists_fetches_and_reports(tmp_path: Path) -> None:
    done = CliRunner().invoke(command.fetch, ["--raw", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["file", "bytes", "from", "holds"]
    assert "test questions, dev questions" in lines[1]
    assert "1 files of" in done.output
    assert f"test.zip: fetched, {tmp_path}/vqa/raw/test.zip: sha256 as published" in done.output
    assert "VG.json: by hand: no direct URL: the shared drive" in done.output


@pytest.mark.usefixtures("known")
def test_the_command_can_only_list(server: FileServer, tmp_path: Path) -> None:
    arguments = ["--raw", str(tmp_path), "--split", "test+dev", "--dry-run", "--json"]
    listed = CliRunner().invoke(command.fetch, arguments)
    (only,) = json.loads(listed.output)
    assert only["name"] == "test.zip"
    assert only["bytes"] == len(server.files["test.zip"].data)
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("known")
def test_the_command_fails_when_a_file_could_not_be_had(server: FileServer, tmp_path: Path) -> None:
    server.files["test.zip"].always = 404
    done = CliRunner().invoke(command.fetch, ["--raw", str(tmp_path), "--what", "questions"])
    assert isinstance(done.exception, RawDataError)
    assert str(done.exception) == "1 of 2 files could not be had: test.zip"
    assert "HTTP 404" in done.output
    server.files["test.zip"].always = None
    done = CliRunner().invoke(
        command.fetch, ["--raw", str(tmp_path), "--what", "questions", "--json"]
    )
    assert [one["status"] for one in json.loads(done.output)] == ["fetched", "by hand"]


@pytest.mark.usefixtures("known")
def test_the_command_stopped_says_how_to_go_on(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trar.pipeline.fetch.download", stop)
    done = CliRunner().invoke(command.fetch, ["--raw", str(tmp_path)])
    assert done.exit_code == 1
    assert "What came so far is kept: run the same command again to go on." in done.output


def test_no_thread_is_left_behind(server: FileServer, tmp_path: Path) -> None:
    before = threading.active_count()
    url = server.give("blob.bin", BLOB, faults=["drop:1000", 503])
    get(published(BLOB, url), tmp_path)
    assert threading.active_count() <= before + 1  # the server's own


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_zips_raise_nothing_else(data: st.DataObject) -> None:
    value = bytearray(zipped(a__answers=QUESTIONS, b=b"x" * 300, c=b""))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        if data.draw(st.booleans()):  # in the directory at the end, where the claims are
            place = max(0, len(value) - 1 - place % 300)
        value[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zip"
        path.write_bytes(bytes(value))
        for act in (
            lambda: check_published(path, Archive("a.zip", [], None, [])),
            lambda: unpack_members(path, {"answers": path.with_name("answers")}),
            lambda: same_as_member(path, "answers", path),
        ):
            with contextlib.suppress(TrarError):
                act()
        out = path.with_name("answers")
        assert not out.exists() or out.stat().st_size <= 200 * len(value) + (1 << 20)
