"""What proves a downloaded file: published digests, or as much as its own form can."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from file_server import FileServer
from published_files import BLOB, IMPATIENT, QUESTIONS, get, published, zipped

from trar.errors import RawDataError
from trar.pipeline.download import download
from trar.pipeline.manifest import Archive


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
