"""Is this file the published one? By its size, its digest, or what its own format proves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from trar.errors import RawDataError
from trar.features.progress import Progress
from trar.fileio import disk_errors
from trar.pipeline.manifest import Archive
from trar.pipeline.zip_archive import prove_zip

_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Proof:
    """A file's size and sha256, whether a published digest ``verified`` it, and a line on that."""

    size_bytes: int
    sha256: str
    verified: bool
    proof: str


def check_published(
    path: Path, archive: Archive, progress: Progress = lambda *_: None, *, contents: bool = True
) -> Proof:
    """Compare a file with what is published of it: first its size, then a digest.

    Where no digest is published a zip is read through against its own checksums (with ``contents``,
    else only its directory), and JSON and gzip files must begin and end like one.

    Raises:
        RawDataError: another size or digest, truncated, or damaged.
        DiskError: it cannot be read.
    """
    with disk_errors(path):
        size = path.stat().st_size
    expected = archive.exact_bytes
    if expected is not None and size != expected:
        _name_truncation(path, archive)
        kind = "truncated" if size < expected else "another file"
        raise RawDataError(f"{path}: wrong size: {size:,} bytes, expected {expected:,}: {kind}")
    kinds = ["sha256"] if archive.sha256 or not archive.md5 else ["sha256", "md5"]
    sha256, *others = _digests(path, kinds, progress)
    if archive.sha256:
        if sha256 not in archive.sha256:
            _name_truncation(path, archive)
            raise RawDataError(
                f"{path}: wrong digest: sha256 {sha256}, expected {' or '.join(archive.sha256)}: "
                "damaged, or another file"
            )
        return Proof(size, sha256, True, "sha256 as published")
    if archive.md5:
        md5 = others[0]
        if md5 not in archive.md5:
            _name_truncation(path, archive)
            raise RawDataError(
                f"{path}: wrong digest: md5 {md5}, expected {' or '.join(archive.md5)}: damaged, "
                "or another file"
            )
        return Proof(size, sha256, True, f"md5 as published (sha256 {sha256})")
    check_form(path, archive.name, progress, contents=contents)
    return Proof(size, sha256, False, f"unverified: no published digest (sha256 {sha256})")


def check_form(
    path: Path, name: str, progress: Progress = lambda *_: None, *, contents: bool = True
) -> None:
    """What a file's own format proves: a zip against its directory and (``contents``) its CRCs;
    JSON and gzip files by how they begin and end.

    Raises:
        RawDataError: truncated, damaged, or of another format than its ``name`` says.
        DiskError: it cannot be read.
    """
    if name.endswith((".zip", ".whl")):
        prove_zip(path, progress, contents=contents)
        return
    with disk_errors(path), path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(64)
        file.seek(max(0, size - 64))
        tail = file.read()
    if name.endswith((".tgz", ".gz")) and not head.startswith(_GZIP):
        raise RawDataError(f"{path}: not a gzip archive: it begins with {head[:4]!r}")
    if name.endswith(".json") and (head.strip()[:1], tail.strip()[-1:]) not in (
        (b"[", b"]"),
        (b"{", b"}"),
    ):
        raise RawDataError(
            f"{path}: not whole JSON: {size:,} bytes, from {head.strip()[:1]!r} to "
            f"{tail.strip()[-1:]!r}: truncated, or another file"
        )


def _digests(path: Path, kinds: list[str], progress: Progress) -> list[str]:
    digests = [hashlib.new(kind, usedforsecurity=False) for kind in kinds]
    with disk_errors(path), path.open("rb") as file:
        total = path.stat().st_size
        while block := file.read(_BLOCK):
            for digest in digests:
                digest.update(block)
            progress(f"checking {path.name}", file.tell(), total)
    return [digest.hexdigest() for digest in digests]


def _name_truncation(path: Path, archive: Archive) -> None:
    """A zip that lacks its end is called truncated, whatever else is wrong with it."""
    if archive.name.endswith((".zip", ".whl")):
        prove_zip(path, expected_bytes=archive.bytes, contents=False)
