"""Cuts questions into BERT's word pieces with the ``tokenizers`` library.

A table is read from any ``vocab.txt`` (a piece a line) or ``tokenizer.json`` of the BERT family,
such as those of bert-base-uncased. Of the file only the pieces and the rule are taken and kept in
the store, so that a split added later is cut the same way without it. What a question spells is
never a special: "[SEP]" typed by an annotator is cut like any other text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import ConfigError, RawDataError
from trar.features.columns import int64s
from trar.features.word_pieces import (
    FIRST_PIECE,
    LAST_PIECE,
    UNKNOWN_PIECE,
    PieceRule,
    WordPieces,
    check_pieces,
)
from trar.fileio import disk_errors

_BATCH = 4096  # texts that the library cuts at a time
_REMEDY = "give the vocab.txt or tokenizer.json of bert-base-uncased"


def read_word_pieces(path: Path, option: str = "--wordpiece-vocab") -> WordPieces:
    """The pieces and the rule of a ``vocab.txt`` or ``tokenizer.json``, given by ``option``.

    A ``vocab.txt`` does not say whether it is cased: it is where a piece has a capital letter.

    Raises:
        RawDataError: no such file, or not of the BERT family.
    """
    where = f"{option} {path}"
    try:
        with disk_errors(path):
            data = path.read_bytes()
        text = data.decode()
    except (FileNotFoundError, IsADirectoryError):
        raise RawDataError(f"{where}: no such file; {_REMEDY}") from None
    except UnicodeDecodeError as error:
        raise RawDataError(f"{where}: not UTF-8 text ({error}); {_REMEDY}") from None
    if text.lstrip().startswith("{"):
        tokens, rule = _from_json(data, where)
    else:
        tokens = text.replace("\r\n", "\n").rstrip("\n").split("\n")
        cased = any(one != one.lower() for one in tokens if not one.startswith("["))
        rule = PieceRule(lowercase=not cased)
    check_pieces(tokens, where, RawDataError, _REMEDY)
    return WordPieces(tuple(tokens), ((path.name, len(tokens)),), rule)


class PieceCutter:
    """Cuts texts by a table.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(self, pieces: WordPieces) -> None:
        self._tokenizer = _tokenizer(pieces)
        specials = (FIRST_PIECE, LAST_PIECE, UNKNOWN_PIECE)
        self._first, self._last, self._unknown = pieces.encode(specials)

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
        """Piece ids of all texts, never cut, each from [CLS] to [SEP]; how many are [UNK].

        Returns ids (total,) int32, offsets (q + 1,) int64: as ``text.encode_questions``.
        """
        ids, ends = array("i"), array("q", [0])
        for batch in _batches(texts):
            for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                ids.append(self._first)
                ids.extend(encoding.ids)
                ids.append(self._last)
                ends.append(len(ids))
        flat = np.array(ids, np.int32)
        return flat, int64s(ends), int(np.count_nonzero(flat == self._unknown))


def _tokenizer(pieces: WordPieces) -> Any:
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        raise ConfigError(
            "word pieces are cut by the library tokenizers, which is not installed; "
            "pip install 'trar[lxmert]'"
        ) from None
    rule = pieces.rule
    tokenizer = Tokenizer(
        models.WordPiece(
            {token: number for number, token in enumerate(pieces.tokens)},
            unk_token=UNKNOWN_PIECE,
            max_input_chars_per_word=rule.max_input_chars_per_word,
            continuing_subword_prefix=rule.continuing_subword_prefix,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=rule.clean_text,
        handle_chinese_chars=rule.handle_chinese_chars,
        strip_accents=rule.strip_accents,
        lowercase=rule.lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _Kind(msgspec.Struct):
    type: str = ""


class _Normalizer(_Kind):
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class _Model(_Kind):
    vocab: dict[str, int] | list[Any] = {}
    unk_token: str = UNKNOWN_PIECE
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100


class _File(msgspec.Struct):
    model: _Model
    normalizer: _Normalizer | None = None
    pre_tokenizer: _Kind | None = None


def _from_json(data: bytes, where: str) -> tuple[list[str], PieceRule]:
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.DecodeError as error:
        raise RawDataError(f"{where}: no tokenizer.json of BERT ({error}); {_REMEDY}") from None
    model, normalizer, pre = file.model, file.normalizer, file.pre_tokenizer
    for part, found, expected in (
        ("model", model.type or "WordPiece", "WordPiece"),
        ("unknown piece", model.unk_token, UNKNOWN_PIECE),
        ("normalizer", normalizer.type if normalizer else "none", "BertNormalizer"),
        ("pre-tokenizer", pre.type if pre else "none", "BertPreTokenizer"),
    ):
        if found != expected:
            raise RawDataError(f"{where}: its {part} is {found}, expected {expected}; {_REMEDY}")
    assert normalizer is not None
    assert isinstance(model.vocab, dict), "as a WordPiece model has"
    tokens = sorted(model.vocab, key=model.vocab.__getitem__)
    if [model.vocab[token] for token in tokens] != list(range(len(tokens))):
        raise RawDataError(f"{where}: its ids are not 0 to {len(tokens) - 1}; {_REMEDY}")
    rule = PieceRule(
        normalizer.lowercase,
        normalizer.strip_accents,
        normalizer.clean_text,
        normalizer.handle_chinese_chars,
        model.continuing_subword_prefix,
        model.max_input_chars_per_word,
    )
    return tokens, rule
