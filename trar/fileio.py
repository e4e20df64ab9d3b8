"""Durable file writes and digests shared by the store, the manifest and the checkpoints."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from trar.errors import DiskError

_BLOCK = 1 << 20


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that readers see the old file or the whole new one.

    The bytes go to a sibling ``.<name>.<uuid>.partial``, are fsynced, then renamed over
    ``path``. On any exception the partial file is removed and ``path`` is untouched. In an object
    store the bytes are kept in memory, and sent as one object at the end.

    Raises:
        DiskError: no space, no permission, or a missing folder.
    """
    if hasattr(path, "protocol"):  # features.place: not in a file system
        whole = io.BytesIO()
        yield whole
        path.write_bytes(whole.getvalue())
        return
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    with disk_errors(path):
        try:
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON with a final newline, keys as given."""
    with atomic_write(path) as file:
        file.write(indented_json(value))


def indented_json(value: Any) -> bytes:
    """What ``write_json`` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def sync_file(path: Path) -> None:
    """Make the contents of a file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the renames and new names inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals around ``path`` into a DiskError with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        where = error.filename or path
        raise DiskError(f"{where}: {error.strerror}; {remedy}") from error


_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk, then run the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space, then run the same command again",
    errno.EACCES: "the user running this command may not read or write there: change the "
    "permissions or choose another folder",
    errno.EPERM: "the operating system does not allow it: choose another folder",
    errno.EROFS: "that file system is mounted read-only: choose another folder",
    errno.ENOTDIR: "a part of that path is a file: choose another folder",
    errno.EIO: "the disk reported a read or write fault: check it before anything else",
}


def free_bytes(folder: Path) -> int:
    """Bytes that can be written below ``folder``, whether or not it exists yet."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def need_space(folder: Path, size_bytes: int, purpose: str) -> None:
    """Refuse before the first byte when ``folder``'s disk cannot hold ``size_bytes`` more.

    Raises:
        DiskError: with the bytes needed and free.
    """
    free = free_bytes(folder)
    if free < size_bytes:
        raise DiskError(
            f"{folder}: {purpose} needs {human_bytes(size_bytes)}, {human_bytes(free)} are free; "
            "free some space or choose another disk"
        )


def need_files(folder: Path, files: int, purpose: str) -> None:
    """Refuse before the first byte when ``folder``'s file system cannot hold ``files`` more files.

    Raises:
        DiskError: with the numbers of files needed and free.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    room = os.statvfs(existing)
    if room.f_files and room.f_favail < files:  # some file systems have no such limit
        raise DiskError(
            f"{folder}: {purpose} needs {files:,} files, {room.f_favail:,} more can be made there "
            "(no free inodes): delete some files or choose another disk"
        )


def human_bytes(size_bytes: float) -> str:
    """A size as a person reads it, in binary units: ``53.7 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON spelling of ``value`` that digests are taken over: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_json(value: Any) -> str:
    """Hex sha256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
