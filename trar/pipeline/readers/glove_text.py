"""Word vectors in text form: GloVe's, word2vec's and fastText's, plain, gzipped or in a zip.

A line is a word and w numbers, separated by blanks; word2vec and fastText put a line "words w" in
front. glove.840B has words with blanks in them (". . .", "at name@domain.com"), so the numbers are
counted from the right. The files have gigabytes and millions of lines, of which a vocabulary wants
some ten thousand: they are streamed, never unpacked, and only a wanted line is parsed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.packed_text import TextFile, open_lines

MAX_WIDTH = 4096  # numbers of a word; a line of them stays far below MAX_LINE_BYTES


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


def read_text_vectors(text: TextFile, wanted: Collection[str]) -> TextVectors:
    """The vectors of the ``wanted`` words, which have no blanks in them; of a word that stands
    several times, the first.

    Raises:
        RawDataError: not such a file, damaged or cut short, a line of another length, or a wanted
            word whose numbers are not finite.
    """
    with open_lines(text) as (file, where, batches):
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
