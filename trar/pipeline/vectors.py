"""Word vectors cut to a vocabulary once, so that training reads a small table and no spaCy.

Two rules say which vector a token gets. ``spacy``, that of openvqa, MCAN and TRAR
(``spacy_tool(word).vector``): the mean over spaCy's own tokens of the word, in which an unknown one
counts as zeros: "dont" is the mean of "do" and "nt". ``plain``, that of RWSAN (torchtext's GloVe):
the word's own vector or zeros. The specials PAD, UNK and CLS get the vectors of those upper-case
words like any other token, as in the originals.

Either rule goes with either source, a spaCy pipeline or a text file; ``spacy`` is the default of
both: en_vectors_web_lg holds the vectors of half the words of glove.840B, so that text file gives
the published recipe without a spaCy model (and a vector to some rare words more).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.features.text import Vocabulary
from trar.pipeline.readers.glove_text import TextVectors, read_text_vectors
from trar.pipeline.readers.packed_text import TextFile, find_text, text_name
from trar.pipeline.readers.spacy_tokenizer import Tokenizer, blank_tokenizer, saved_tokenizer
from trar.pipeline.readers.spacy_vectors import (
    WITH_VECTORS,
    Pipeline,
    PipelineVectors,
    find_pipeline,
    installed_folder,
    read_pipeline_vectors,
)

Lookup = Literal["spacy", "plain"]

_LOW_COVERAGE = 0.8
_MISSING_SHOWN = 8
_RESERVED = ("auto", "none")  # values of the setting data.vectors
_OWN_VECTORS_SINCE = (3, 4)  # en_core_web_md and _lg have Explosion's own vectors, not GloVe
_PUBLISHED = (
    "the published results start from GloVe; for those take glove.840B.300d.zip, "
    "en_vectors_web_lg 2.x or en_core_web_lg up to 3.2"
)


@dataclass(frozen=True)
class CutVectors:
    """Vectors of a vocabulary of V tokens: ``table`` (V, w) float32 in id order, zeros for a token
    without one; ``covered`` counts the others, ``missing`` are the first of those without.

    ``name`` is a file name without suffix, ``made_from`` the source for people; ``notes`` are
    warnings.
    """

    name: str
    table: NDArray[np.float32]
    covered: int
    made_from: str
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """For people: ``glove.840B.300d.txt: 300 numbers a token, 19,870 of 20,573 tokens
        covered (96.6 %)``."""
        tokens, width = self.table.shape
        return (
            f"{self.made_from}: {width} numbers a token, {self.covered:,} of {tokens:,} tokens "
            f"covered ({100 * self.covered / tokens:.1f} %)"
        )


def cut_vectors(source: str, vocabulary: Vocabulary, lookup: Lookup = "spacy") -> CutVectors | None:
    """The vectors of every token of ``vocabulary``, from ``source``:

    - a text file of GloVe, word2vec or fastText: .txt, .txt.gz, .zip, or FILE.zip/MEMBER;
    - the folder of a spaCy pipeline, of spaCy 2 or 3, or of its package;
    - the name of an installed pipeline (a spaCy 2 package installs with ``pip --no-deps``);
    - ``none``: None.

    Raises:
        RawDataError: no such source, damaged, without vectors, or not one token covered.
    """
    if source == "none":
        return None
    text = find_text(source)
    if text is not None:
        cut = _from_text(text, vocabulary, lookup)
    else:
        cut = _from_pipeline(_pipeline(source), vocabulary, lookup)
    if not cut.covered:
        raise RawDataError(
            f"{source}: not one of the {len(vocabulary):,} tokens of the vocabulary has a vector "
            f"in it ({', '.join(cut.missing)}, …); is it of another language or of other units "
            "than words?"
        )
    return cut


def vectors_name(source: str, lookup: Lookup = "spacy") -> str | None:
    """The name that the vectors cut from ``source`` have in a store, found without reading them.

    Raises:
        RawDataError: no such source.
    """
    if source == "none":
        return None
    text = find_text(source)
    title = _stem(text_name(text)) if text is not None else _pipeline(source).title
    return _table_name(title, lookup)


def _pipeline(source: str) -> Pipeline:
    folder = Path(source) if source and _is_folder(source) else installed_folder(source)
    if folder is None:
        raise RawDataError(
            f"--vectors {source}: no such file or folder, and no installed spaCy pipeline of that "
            f"name; {WITH_VECTORS}, or none"
        )
    return find_pipeline(folder)


def _is_folder(source: str) -> bool:
    try:
        return Path(source).is_dir()
    except OSError:  # a name that no folder can have
        return False


def _from_text(text: TextFile, vocabulary: Vocabulary, lookup: Lookup) -> CutVectors:
    words = _words_of(vocabulary, blank_tokenizer()) if lookup == "spacy" else _whole(vocabulary)
    found = read_text_vectors(text, {piece for pieces in words for piece in pieces})
    notes = []
    if found.undecodable:
        notes.append(
            f"{found.file}: {found.undecodable:,} of its {found.words:,} words are not UTF-8 and "
            "were left out"
        )
    return _cut(_stem(found.file), found.file, words, found, vocabulary, lookup, notes)


def _stem(file: str) -> str:
    for suffix in (".gz", ".txt", ".vec"):
        file = file.removesuffix(suffix)
    return file


def _from_pipeline(pipeline: Pipeline, vocabulary: Vocabulary, lookup: Lookup) -> CutVectors:
    if lookup == "spacy":
        words = _words_of(vocabulary, saved_tokenizer(pipeline.folder, pipeline.lang))
    else:
        words = _whole(vocabulary)
    found = read_pipeline_vectors(pipeline, {piece for pieces in words for piece in pieces})
    notes = []
    if not _is_glove(pipeline):
        notes.append(f"{pipeline.name} has Explosion's own word vectors, not GloVe's; {_PUBLISHED}")
    elif found.vectors < found.words:
        notes.append(
            f"{pipeline.name}: {found.words:,} words share {found.vectors:,} vectors, so rare "
            f"words have the vector of another word; {_PUBLISHED}"
        )
    if found.unsure:
        notes.append(
            f"{pipeline.name} was made for spaCy {pipeline.spacy}, which numbers some words "
            f"otherwise; these have no vector, rather than that of another word: "
            f"{', '.join(found.unsure)}"
        )
    return _cut(pipeline.title, pipeline.name, words, found, vocabulary, lookup, notes)


def _cut(
    title: str,
    made_from: str,
    words: list[list[str]],
    found: TextVectors | PipelineVectors,
    vocabulary: Vocabulary,
    lookup: Lookup,
    notes: list[str],
) -> CutVectors:
    table = np.zeros((len(words), found.width), np.float32)
    for row, pieces in zip(table, words, strict=True):
        row[:] = _mean(pieces, found.rows, found.width)
    has = table.any(axis=1)
    covered = int(np.count_nonzero(has))
    missing = [vocabulary.tokens[i] for i in np.flatnonzero(~has)[:_MISSING_SHOWN]]
    if lookup == "plain":
        made_from += ", words looked up whole"
    if covered < _LOW_COVERAGE * len(words):
        notes.append(
            f"only {100 * covered / len(words):.0f} % of the {len(words):,} tokens have a vector "
            f"in {made_from} (none for {', '.join(missing)}, …); usual is 95 % and more"
        )
    name = _table_name(title, lookup)
    return CutVectors(name, table, covered, made_from, tuple(missing), tuple(notes))


def _mean(
    pieces: list[str], rows: Mapping[str, NDArray[np.float32]], width: int
) -> NDArray[np.float32]:
    """spaCy's ``Doc.vector`` to the bit: summed in order in float32, over the number of pieces."""
    total = np.zeros(width, np.float32)
    for piece in pieces:
        if piece in rows:
            total += rows[piece]
    return total / np.float32(len(pieces))


def _words_of(vocabulary: Vocabulary, tokenizer: Tokenizer) -> list[list[str]]:
    return [tokenizer(token) for token in vocabulary.tokens]


def _whole(vocabulary: Vocabulary) -> list[list[str]]:
    return [[token] for token in vocabulary.tokens]


def _is_glove(pipeline: Pipeline) -> bool:
    """False for spaCy's pipelines whose vectors are known to be others."""
    told = " ".join(pipeline.sources).lower()
    if "explosion vectors" in told or "oscar" in told:
        return False
    version = re.match(r"(\d{1,4})\.(\d{1,4})", pipeline.version)
    own = pipeline.title in ("en_core_web_md", "en_core_web_lg")
    return not (own and version and (int(version[1]), int(version[2])) >= _OWN_VECTORS_SINCE)


def _table_name(title: str, lookup: Lookup) -> str:
    return _file_name(title if lookup == "spacy" else f"{title}-plain")


def _file_name(title: str) -> str:
    """``title`` as a plain file name that is no word of the setting data.vectors."""
    plain = re.sub(r"[^\w.+-]", "-", title).lstrip(".-")[:100]
    return f"{plain}-vectors" if plain in _RESERVED else plain or "vectors"
