"""Zips and tars of members of known bytes."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from trar.pipeline.readers.archives import list_members
from trar.pipeline.readers.raw_file import RawFile

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


def zip_with(tmp_path: Path, data: bytes, change: Callable[[bytearray], None]) -> RawFile:
    """The one member of a zip whose bytes were changed."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("9.npy", data)
    changed = bytearray(path.read_bytes())
    change(changed)
    path.write_bytes(changed)
    [(_, file, _)] = list_members(path)
    return file
