"""The lines of word vectors in text form, plain, gzipped or in a zip: streamed, never unpacked."""

from __future__ import annotations

import contextlib
import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from trar.errors import RawDataError
from trar.fileio import disk_errors, human_bytes

MAX_LINE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_SUFFIXES = (".txt", ".vec")
# Numbers in text shrink to a third or so; what grows more than this was made to fill memory.
_LARGEST_RATIO = 100
_ALWAYS_ALLOWED_BYTES = 64 << 20
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # of the first member, or of an empty archive
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class TextFile:
    """A file of vectors, or one in a zip (``member``; None = the only one)."""

    path: Path
    member: str | None = None


def find_text(source: str) -> TextFile | None:
    """The file that ``source`` names: a file, or FILE.zip/MEMBER. None where there is none."""
    path = Path(source)
    try:
        if path.is_file():
            return TextFile(path)
        for parent in path.parents:
            if parent.is_file():
                return TextFile(parent, path.relative_to(parent).as_posix())
    except OSError:  # a name that no file can have, or a folder that may not be read
        return None
    return None


def text_name(text: TextFile) -> str:
    """The name of the text file without folders; in a zip, the member's.

    Raises:
        RawDataError: a zip without one such member.
    """
    with open_lines(text) as (name, _, _):
        return name


@contextlib.contextmanager
def open_lines(text: TextFile) -> Iterator[tuple[str, str, Iterator[list[bytes]]]]:
    """The name of the text file without folders, where it stands for messages, and its lines, many
    at a time, without their line ends.

    Raises:
        RawDataError: a zip without one such member; damaged, cut short, or packed so tightly that
            it is no file of vectors: here, or while the lines are read.
    """
    path, name, where = text.path, text.path.name, str(text.path)
    with contextlib.ExitStack() as stack:
        with _damage(where), disk_errors(path):
            file = stack.enter_context(path.open("rb"))
            size_bytes = path.stat().st_size
            magic = file.read(4)
            file.seek(0)
            if magic in _ZIP_MAGIC:
                archive = stack.enter_context(zipfile.ZipFile(file))
                member = _member(archive, text)
                stream: IO[bytes] = stack.enter_context(archive.open(member))
                name = PurePosixPath(member.filename).name
                where = f"{where}, member {_printable(member.filename)}"
                limit = _limit(member.compress_size)
            elif text.member is not None:
                raise RawDataError(f"{where}: no zip file, so there is no {text.member} in it")
            elif magic.startswith(b"\x1f\x8b"):
                stream = cast(IO[bytes], gzip.GzipFile(fileobj=file))
                limit = _limit(size_bytes)
            else:
                stream, limit = file, size_bytes + _ALWAYS_ALLOWED_BYTES
        yield name, where, _lines(stream, where, limit)


def _lines(stream: IO[bytes], where: str, limit_bytes: int) -> Iterator[list[bytes]]:
    tail, total = b"", 0
    while True:
        with _damage(where):
            block = stream.read(_BLOCK_BYTES)
        if not block:
            break
        total += len(block)
        if total > limit_bytes:
            raise RawDataError(
                f"{where}: unpacks to more than {human_bytes(limit_bytes)}, over "
                f"{_LARGEST_RATIO} times its size: no file of vectors does; download it again"
            )
        lines = (tail + block).split(b"\n")
        tail = lines.pop()
        if len(tail) > MAX_LINE_BYTES:
            raise RawDataError(
                f"{where}: a line of more than {human_bytes(MAX_LINE_BYTES)}; expected a word and "
                "its numbers in each: is it another kind of file?"
            )
        if lines:
            yield lines
    if tail:
        yield [tail]


def _limit(packed_bytes: int) -> int:
    return max(_ALWAYS_ALLOWED_BYTES, packed_bytes * _LARGEST_RATIO)


def _member(archive: zipfile.ZipFile, text: TextFile) -> zipfile.ZipInfo:
    """The text file asked for, or the only one there is."""
    every = [one for one in archive.infolist() if not one.filename.endswith("/")]
    found = [
        one
        for one in every
        if one.filename.lower().endswith(_SUFFIXES) and not one.filename.startswith("__MACOSX/")
    ]
    if text.member is not None:
        found = [one for one in every if one.filename == text.member]
    if len(found) != 1:
        have = ", ".join(_printable(one.filename) for one in every[:8]) or "nothing"
        if text.member is None and found:
            raise RawDataError(
                f"{text.path}: {len(found)} text files in it ({have}); choose one: "
                f"{text.path}/{_printable(found[-1].filename)}"
            )
        expected = text.member or "a .txt file"
        raise RawDataError(f"{text.path}: expected {expected} in it once; it holds {have}")
    member = found[0]
    parts = PurePosixPath(member.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise RawDataError(f"{text.path}: a member named {member.filename!r} is refused")
    if member.flag_bits & 1 or member.compress_type not in _METHODS:
        raise RawDataError(
            f"{text.path}: {_printable(member.filename)} is encrypted or packed in another way "
            "than deflate; unpack it and give the .txt file"
        )
    return member


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


@contextlib.contextmanager
def _damage(where: str) -> Iterator[None]:
    """Whatever the archive libraries raise for damaged bytes, as one line."""
    try:
        yield
    except FileNotFoundError:
        raise RawDataError(f"{where}: no such file") from None
    except (
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        RuntimeError,
        MemoryError,
        KeyError,
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise RawDataError(
            f"{where}: cannot be unpacked ({error}): cut short or damaged; download it again"
        ) from None
