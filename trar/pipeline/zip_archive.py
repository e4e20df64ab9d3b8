"""Published zip archives: whether one is whole, and its members by name.

A member is chosen by its own name, never by the path that the archive gives it, and unpacked to a
place that the caller names. What the directory at the archive's end claims bounds every read.
"""

from __future__ import annotations

import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from trar.errors import RawDataError
from trar.features.progress import Progress
from trar.fileio import atomic_write, disk_errors, human_bytes, need_space

_BLOCK = 1 << 20
_MEMBER = b"PK\x03\x04"  # what a zip begins with
_EMPTY = b"PK\x05\x06"
_DEFLATE_LIMIT = 1100  # deflate cannot pack tighter than 1 : 1032
_TEXT_LIMIT = 200  # JSON of questions packs 1 : 20
_SLACK = 1 << 20  # small members may be all one letter
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # an encrypted member; NotImplementedError, an unknown compression, is one too
    ValueError,
    OverflowError,
    struct.error,
    IndexError,
    KeyError,
    AttributeError,
)


def prove_zip(
    path: Path,
    progress: Progress = lambda *_: None,
    *,
    expected_bytes: int | None = None,
    contents: bool = True,
) -> None:
    """Read a zip's directory and, with ``contents``, every member against its CRC.

    Raises:
        RawDataError: truncated (with the bytes found and expected), no zip at all, or damaged.
        DiskError: it cannot be read.
    """
    with open_zip(path, expected_bytes) as archive:
        members = [info for info in archive.infolist() if not _is_folder(info)]
        total = sum(info.file_size for info in members)
        done = 0
        for info in members if contents else []:
            _refuse_impossible(path, info, _DEFLATE_LIMIT)
            for block in read_member(path, archive, info):
                done += len(block)
                progress(f"testing {path.name}", done, total)


def unpack_members(
    path: Path, targets: dict[str, Path], progress: Progress = lambda *_: None
) -> None:
    """Unpack the members called ``targets``' keys to its paths, each whole or not at all.

    Raises:
        RawDataError: a member is missing, there twice, damaged, or claims an absurd size.
        DiskError: no space, or a place that cannot be written.
    """
    with open_zip(path) as archive:
        members = {name: find_member(path, archive, name) for name in targets}
        for info in members.values():
            _refuse_impossible(path, info, _TEXT_LIMIT)
        total = sum(info.file_size for info in members.values())
        if targets:
            need_space(next(iter(targets.values())).parent, total, f"unpacking {path.name}")
        done = 0
        for name, info in members.items():
            with atomic_write(targets[name]) as file:
                for block in read_member(path, archive, info):
                    file.write(block)
                    done += len(block)
                    progress(f"unpacking {path.name}", done, total)


def same_as_member(path: Path, name: str, file: Path) -> bool:
    """Whether a file holds what the archive's member of this name does, by size and CRC.

    Raises:
        RawDataError: the archive is damaged, or has no such member.
        DiskError: one of the two cannot be read.
    """
    with open_zip(path) as archive:
        info = find_member(path, archive, name)
    with disk_errors(file), file.open("rb") as opened:
        if file.stat().st_size != info.file_size:
            return False
        checksum = 0
        while block := opened.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == info.CRC


@contextmanager
def open_zip(path: Path, expected_bytes: int | None = None) -> Iterator[zipfile.ZipFile]:
    """An archive whose directory has been read.

    Raises:
        RawDataError: no zip, a truncated one, or a damaged directory.
    """
    with disk_errors(path), path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except (*_ZIP_ERRORS, OSError) as error:
            _let_disk_faults_pass(error)
            raise RawDataError(_describe(path, file, expected_bytes, error)) from None
        with archive:
            yield archive


def find_member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The one member whose own name, or whose last folders and name, are ``name``.

    Raises:
        RawDataError: there is none, or more than one.
    """
    wanted = PurePosixPath(name).parts
    found = [
        info
        for info in archive.infolist()
        if not _is_folder(info) and PurePosixPath(info.filename).name == wanted[-1]
    ]
    if len(found) > 1:
        found = [
            info for info in found if PurePosixPath(info.filename).parts[-len(wanted) :] == wanted
        ]
    if len(found) != 1:
        inside = ", ".join(_shown(info) for info in archive.infolist()[:5]) or "nothing"
        raise RawDataError(
            f"{path}: {len(found) or 'no'} members are called {name}, expected one; it holds "
            f"{inside}. Is it another archive under this name?"
        )
    return found[0]


def read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's bytes in blocks; the last one is given only when the CRC is right.

    Raises:
        RawDataError: the member is damaged, encrypted, or of an unknown compression.
    """
    try:
        with archive.open(info) as member:
            while block := member.read(_BLOCK):
                yield block
    except (*_ZIP_ERRORS, OSError) as error:
        _let_disk_faults_pass(error)
        raise RawDataError(
            f"{path}: member {_shown(info)} is damaged ({error}); download it again"
        ) from None


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/")  # ZipInfo.is_dir fails on a name that is empty


def _shown(info: zipfile.ZipInfo) -> str:
    """A member's name on one line, whatever the archive calls it."""
    return "".join(c if c.isprintable() else "?" for c in info.filename[:120])


def _refuse_impossible(path: Path, info: zipfile.ZipInfo, limit: int) -> None:
    if info.file_size > limit * info.compress_size + _SLACK:
        raise RawDataError(
            f"{path}: member {_shown(info)} claims {human_bytes(info.file_size)} out of "
            f"{human_bytes(info.compress_size)}; no such data compresses so far: not unpacked"
        )


def _let_disk_faults_pass(error: Exception) -> None:
    """A seek to a nonsensical offset is the archive's fault; any other OSError is the disk's."""
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        raise error


def _describe(path: Path, file: BinaryIO, expected_bytes: int | None, error: Exception) -> str:
    file.seek(0)
    head = file.read(4)
    size = path.stat().st_size
    if head not in (_MEMBER, _EMPTY):
        return f"{path}: not a zip archive: it begins with {head!r}; {size:,} bytes"
    of = f" of {expected_bytes:,}" if expected_bytes is not None else ""
    if expected_bytes is None or size < expected_bytes:
        return (
            f"{path}: a truncated zip: {size:,}{of} bytes, and the directory at its end is "
            "missing; download the rest or all of it again"
        )
    return f"{path}: a damaged zip ({error}): {size:,}{of} bytes; download it again"
