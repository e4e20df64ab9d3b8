"""Word vectors in text form: GloVe's, word2vec's and fastText's, plain, gzipped or in a zip.

A line is a word and w numbers, separated by blanks; word2vec and fastText put a line "words w" in
front. glove.840B has words with blanks in them (". . .", "at name@domain.com"), so the numbers are
counted from the right. The files have gigabytes and millions of lines, of which a vocabulary wants
some ten thousand: they are streamed, never unpacked, and only a wanted line is parsed.
"""

from __future__ import annotations

import contextlib
import gzip
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.fileio import disk_errors, human_bytes

MAX_WIDTH = 4096  # numbers of a word; a line of them stays far below MAX_LINE_BYTES
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


@dataclass(frozen=True)
class TextVectors:
    """What a file has of the wanted words: ``rows`` word -> (width,) float32.

    ``file`` is the name of the text file without folders, ``words`` how many lines it has,
    ``undecodable`` how many of their words are not UTF-8 and can be no one's.
    """

    file: str
    width: int
    rows: dict[str, NDArray[np.float32]]
    words: int
    undecodable: int


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
    with _open(text) as (_, name, _, _):
        return name


def read_text_vectors(text: TextFile, wanted: Collection[str]) -> TextVectors:
    """The vectors of the ``wanted`` words, which have no blanks in them; of a word that stands
    several times, the first.

    Raises:
        RawDataError: not such a file, damaged or cut short, a line of another length, or a wanted
            word whose numbers are not finite.
    """
    with _open(text) as (stream, file, where, limit_bytes):
        batches = _lines(stream, where, limit_bytes)
        width, promised, rest = _begin(batches, where)
        left = {word.encode(): word for word in wanted}
        rows: dict[str, NDArray[np.float32]] = {}
        number = 0 if promised is None else 1
        words = undecodable = 0
        for batch in rest:
            for line in batch:
                number += 1
                if line.count(b" ") < width:
                    if not line.strip():
                        continue
                    raise RawDataError(
                        f"{where}, line {number}: {len(line.split())} columns, expected a word and "
                        f"{width} numbers: cut short or damaged; download it again"
                    )
                words += 1
                word = line[: line.find(b" ")]
                if word in left:
                    columns = line.rstrip().rsplit(b" ", width)
                    if columns[0] == word:  # else a longer word that begins so
                        rows[left.pop(word)] = _numbers(columns[1:], width, where, number)
                elif not word.isascii() and not _is_utf8(word):
                    undecodable += 1
    if promised is not None and words < promised:
        raise RawDataError(
            f"{where}: its first line promises {promised:,} words, it has {words:,}: cut short; "
            "download it again"
        )
    return TextVectors(file, width, rows, words, undecodable)


def _begin(
    batches: Iterator[list[bytes]], where: str
) -> tuple[int, int | None, Iterator[list[bytes]]]:
    """Numbers a line, the number of words that a first line promises, and the lines after it."""
    batch = next(batches, [])
    if not batch or not any(line.strip() for line in batch):
        raise RawDataError(f"{where}: an empty file; download it again")
    batch[0] = batch[0].removeprefix(b"\xef\xbb\xbf")
    columns = batch[0].split()
    promised = None
    if len(columns) == 2 and all(one.isdigit() and len(one) < 12 for one in columns):
        promised, width = int(columns[0]), int(columns[1])
        del batch[0]
    else:
        columns = batch[0].rstrip().split(b" ")
        numbers = 0
        while numbers < len(columns) - 1 and _is_number(columns[-1 - numbers]):
            numbers += 1
        width = numbers
    if width < 1:
        raise RawDataError(
            f"{where}: its first line is not a word and its numbers: {batch[0][:60]!r}; expected "
            "vectors in text form, such as glove.840B.300d.txt"
        )
    if width > MAX_WIDTH:
        raise RawDataError(
            f"{where}: {width} numbers a word, at most {MAX_WIDTH} are read; is it a file of word "
            "vectors?"
        )
    return width, promised, _first(batch, batches)


def _first(batch: list[bytes], rest: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    yield batch
    yield from rest


def _numbers(columns: list[bytes], width: int, where: str, number: int) -> NDArray[np.float32]:
    try:
        exact = np.array([float(one) for one in columns])
    except ValueError:
        wrong = next(one for one in columns if not _is_number(one))
        raise RawDataError(
            f"{where}, line {number}: {wrong[:40]!r} is not a number; expected {width} numbers "
            "after the word, in text form"
        ) from None
    with np.errstate(over="ignore"):
        values = exact.astype(np.float32)
    if len(values) != width or not np.isfinite(values).all():
        raise RawDataError(
            f"{where}, line {number}: {np.count_nonzero(~np.isfinite(values))} of its numbers are "
            "NaN or infinite; use a file without them"
        )
    return values


def _is_number(column: bytes) -> bool:
    try:
        float(column)
    except ValueError:
        return False
    return True


def _is_utf8(word: bytes) -> bool:
    try:
        word.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines(stream: IO[bytes], where: str, limit_bytes: int) -> Iterator[list[bytes]]:
    """The lines of a stream, many at a time, without their line ends."""
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


@contextlib.contextmanager
def _open(text: TextFile) -> Iterator[tuple[IO[bytes], str, str, int]]:
    """The stream of text, its file's name, where it stands for messages, and the bytes that it may
    have."""
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
        yield stream, name, where, limit


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


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
