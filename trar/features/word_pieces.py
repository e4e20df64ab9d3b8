"""Word pieces: the token table of BERT, as a store keeps it.

A question is cut into words at blanks and around each sign, in lower case and without accents where
the table is uncased; a word is the longest piece of the table that it begins with, then the longest
"##" piece that goes on from there, or [UNK] where that comes to no end (Devlin et al., BERT, 2018;
Wu et al., Google's Neural Machine Translation System, 2016). Stored questions begin with [CLS] and
end with [SEP].

``pipeline.wordpieces`` cuts the questions, by the library that cuts for the published models. Here
stands what a store needs to be read and checked without it: ``cut_ascii`` does the same to texts of
plain ASCII, where no table of Unicode is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import msgspec

from trar.errors import StoreError, TrarError
from trar.features.text import Vocabulary
from trar.fileio import sha256_json

PAD_PIECE, UNKNOWN_PIECE, FIRST_PIECE, LAST_PIECE = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_KIND = "wordpiece"
_REMEDY = "prepare the store again, or restore this file from a copy"
_CONTROL = {code: None for code in (*range(32), 127) if chr(code) not in "\t\n\r"}
_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]")
_REMEMBERED = 1 << 16  # words: the questions of VQA-v2 have some 20,000


class PieceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How texts become words and words pieces, in the names of ``tokenizer.json``.
    ``strip_accents`` None: where ``lowercase`` is set. A word of more than
    ``max_input_chars_per_word`` characters is [UNK]."""

    lowercase: bool = True
    strip_accents: bool | None = None
    clean_text: bool = True
    handle_chinese_chars: bool = True
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100


@dataclass(frozen=True)
class WordPieces(Vocabulary):
    """Pieces in id order, [PAD] first, as batches are filled up with 0; ``sources`` is the file
    that they are from, with their number."""

    rule: PieceRule = field(default_factory=PieceRule)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_id_of", {token: i for i, token in enumerate(self.tokens)})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_cut"}

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the canonical JSON of the pieces and the rule."""
        return sha256_json([list(self.tokens), msgspec.to_builtins(self.rule)])

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """One id per piece; that of [UNK] for what is no piece of the table."""
        unknown = self._id_of[UNKNOWN_PIECE]
        return [self._id_of.get(token, unknown) for token in tokens]

    def cut_ascii(self, text: str) -> list[int] | None:
        """The ids of ``text`` from [CLS] to [SEP]; None where it is not plain ASCII."""
        if not text.isascii() or not self.rule.clean_text:
            return None
        text = text.translate(_CONTROL)
        words = _WORD.findall(text.lower() if self.rule.lowercase else text)
        first, last = self.encode((FIRST_PIECE, LAST_PIECE))
        return [first, *(piece for word in words for piece in self._cut(word)), last]

    @cached_property
    def _cut(self) -> Any:
        return lru_cache(_REMEMBERED)(self._cut_word)

    def _cut_word(self, word: str) -> list[int]:
        pieces: list[str] = []
        start = 0
        while start < len(word) <= self.rule.max_input_chars_per_word:
            prefix = self.rule.continuing_subword_prefix if start else ""
            for end in range(len(word), start, -1):
                if prefix + word[start:end] in self._id_of:
                    break
            else:
                break
            pieces.append(prefix + word[start:end])
            start = end
        return self.encode(pieces if start == len(word) else [UNKNOWN_PIECE])

    def to_json(self) -> dict[str, Any]:
        """What ``vocabulary-wordpiece.json`` holds."""
        rule = msgspec.to_builtins(self.rule)
        return {"tokenizer": _KIND, "rule": rule, **super().to_json()}


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    tokenizer: str
    rule: PieceRule
    digest: str
    sources: dict[str, int]
    tokens: list[str]


def check_pieces(
    tokens: Sequence[str], where: str, error: type[TrarError] = StoreError, remedy: str = _REMEDY
) -> None:
    """Refuse pieces that a model of the BERT family cannot be fed with.

    Raises:
        TrarError: of type ``error``: [PAD] is not the first, another special piece is missing, or
            a piece stands twice.
    """
    if not tokens or tokens[0] != PAD_PIECE:
        place = f"it is {tokens.index(PAD_PIECE)}" if PAD_PIECE in tokens else "there is none"
        raise error(
            f"{where}: expected {PAD_PIECE} to be 0, as batches are filled up with 0, but {place}; "
            f"{remedy}"
        )
    missing = [one for one in (UNKNOWN_PIECE, FIRST_PIECE, LAST_PIECE) if one not in tokens]
    if missing:
        raise error(
            f"{where}: no {', no '.join(missing)} among its {len(tokens):,} pieces; {remedy}"
        )
    first: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if first.setdefault(token, number) != number:
            what = f"the piece {token!r} stands twice, as {first[token]} and {number}"
            raise error(f"{where}: {what}; {remedy}")


def vocabulary_from_json(obj: Any, *, where: str = "vocabulary") -> Vocabulary:
    """The reverse of ``to_json``, of words or of word pieces. ``where`` names the file in messages.

    Raises:
        StoreError: neither, or damaged.
    """
    if not (isinstance(obj, dict) and obj.get("tokenizer") == _KIND):
        return Vocabulary.from_json(obj, where=where)
    try:
        said = msgspec.convert(obj, _Said)
    except msgspec.ValidationError as error:
        raise StoreError(f"{where}: no table of word pieces ({error}); {_REMEDY}") from None
    check_pieces(said.tokens, where)
    pieces = WordPieces(tuple(said.tokens), tuple(said.sources.items()), said.rule)
    if said.digest != pieces.digest:
        raise StoreError(
            f"{where}: the pieces do not match their digest (expected {said.digest:.12}…, found "
            f"{pieces.digest:.12}…): edited or damaged; {_REMEDY}"
        )
    return pieces
