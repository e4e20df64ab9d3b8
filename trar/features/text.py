"""Questions to token ids: the word rule and the frozen vocabulary.

The rule is that of openvqa, MCAN, TRAR and RWSAN (TRAR-VQA openvqa/datasets/vqa/vqa_loader.py,
``tokenize`` and ``proc_ques``). Embedding rows of a checkpoint have no names but the position of
their token, so ids depend on the order in which the question files were read: a vocabulary is
built once, kept with its sources and its digest, and never rebuilt behind the user's back.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.columns import Codes, Lists, int64s
from trar.fileio import sha256_json

PAD, UNK, CLS = range(3)
SPECIALS = ("PAD", "UNK", "CLS")

_DELETED = ".,'!?\"()*#:;"
_BLANKED = "-/"
_RULE = str.maketrans(_BLANKED, " " * len(_BLANKED), _DELETED)


def tokenize(question: str) -> list[str]:
    """Lower-case words of ``question``; may be empty.

    The signs ``. , ' ! ? " ( ) * # : ;`` vanish ("what's" is "whats"), ``-`` and ``/`` separate
    words, every other sign stays ("$125", "&"). Source: openvqa, data-formats section 8.
    """
    return question.lower().translate(_RULE).split()


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in id order, PAD 0, UNK 1, CLS 2 first.

    A question cannot yield a special: its words are lower case, the specials are upper case.
    ``sources`` names the question files that made the vocabulary, in reading order, with their
    numbers of questions. It is history: ``digest`` is over the tokens alone.
    """

    tokens: tuple[str, ...]
    source_counts: tuple[tuple[str, int], ...] = ()
    _id_of: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert self.tokens[: len(SPECIALS)] == SPECIALS, self.tokens[: len(SPECIALS)]
        object.__setattr__(self, "_id_of", {token: i for i, token in enumerate(self.tokens)})
        assert len(self._id_of) == len(self.tokens), "duplicate tokens"

    @classmethod
    def build(cls, question_texts_by_file: Mapping[str, Iterable[str]]) -> Vocabulary:
        """Ids by first appearance, over the files in the order given."""
        pieces: dict[str, None] = {}  # what stands between blanks; an old piece stays put
        sources = []
        for name, texts in question_texts_by_file.items():
            count = 0
            for text in texts:
                count += 1
                pieces.update(dict.fromkeys(text.split()))
            sources.append((name, count))
        tokens = dict.fromkeys(SPECIALS)
        for piece in pieces:
            tokens.update(dict.fromkeys(tokenize(piece)))
        return cls(tuple(tokens), tuple(sources))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sources(self) -> dict[str, int]:
        """Question file name -> number of questions read from it, in reading order."""
        return dict(self.source_counts)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the canonical JSON of the token list."""
        return sha256_json(list(self.tokens))

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """One id per token; UNK for a token that is not in the vocabulary."""
        id_of = self._id_of.get
        return [id_of(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The reverse of ``encode``; an unknown word comes back as "UNK"."""
        return [self.tokens[i] for i in ids]

    def to_json(self) -> dict[str, Any]:
        """What ``vocabulary-<tokenizer>.json`` holds."""
        return {"digest": self.digest, "sources": self.sources, "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, obj: Any, *, where: str = "vocabulary") -> Vocabulary:
        """The reverse of ``to_json``. ``where`` names the file in error messages.

        Raises:
            StoreError: not a vocabulary, specials out of place, a duplicate, another digest.
        """
        if not isinstance(obj, dict) or not isinstance(obj.get("tokens"), list):
            raise StoreError(
                f'{where}: expected an object with a list "tokens", found {_kind(obj)}; {_REMEDY}'
            )
        tokens: list[str] = obj["tokens"]
        _check_tokens(tokens, where)
        sources = obj.get("sources")
        if not isinstance(sources, dict) or not all(type(n) is int for n in sources.values()):
            raise StoreError(
                f'{where}: "sources" must map the names of question files to their numbers of '
                f"questions, found {sources!r:.80}; {_REMEDY}"
            )
        vocabulary = cls(tuple(tokens), tuple(sources.items()))
        if obj.get("digest") != vocabulary.digest:
            raise StoreError(
                f"{where}: the token list does not match its digest (expected "
                f"{obj.get('digest')!s:.12}…, found {vocabulary.digest:.12}…): edited or damaged; "
                f"{_REMEDY}"
            )
        return vocabulary


def encode_questions(
    vocabulary: Vocabulary, texts: Iterable[str]
) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """Token ids of all questions, never cut, and how many of them are UNK.

    Returns ids (total,) int32, offsets (q + 1,) int64: question i has
    ``ids[offsets[i]:offsets[i + 1]]``, possibly none.
    """
    piece_code, codes, ends = Codes(), array("i"), array("q", [0])
    for text in texts:
        codes.extend(map(piece_code.__getitem__, text.split()))
        ends.append(len(codes))
    # The rule never joins what a blank separates, so a question is the sum of its pieces; 1.5
    # million questions have some 40,000 of them ("What's" and "whats?" are two).
    piece_ids, piece_ends = array("i"), array("q", [0])
    for piece in piece_code:
        piece_ids.extend(vocabulary.encode(tokenize(piece)))
        piece_ends.append(len(piece_ids))
    pieces = Lists(piece_ids, int64s(piece_ends)).take(np.asarray(codes))
    ids = np.array(pieces.flat, np.int32)
    return ids, pieces.offsets[int64s(ends)], int(np.count_nonzero(ids == UNK))


_REMEDY = "prepare the store again, or restore this file from a copy"


def _check_tokens(tokens: Sequence[Any], where: str) -> None:
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise StoreError(f"{where}: token {i} is {token!r:.80}, expected text; {_REMEDY}")
    if tuple(tokens[: len(SPECIALS)]) != SPECIALS:
        raise StoreError(
            f"{where}: the first tokens must be {', '.join(SPECIALS)}, found "
            f"{', '.join(map(repr, tokens[: len(SPECIALS)])) or 'none'}; {_REMEDY}"
        )
    first: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if first.setdefault(token, i) != i:
            raise StoreError(
                f"{where}: token {token!r} stands twice, as {first[token]} and {i}; {_REMEDY}"
            )


def _kind(obj: Any) -> str:
    if isinstance(obj, dict):
        return f"an object with the keys {', '.join(map(repr, list(obj)[:5])) or '(none)'}"
    return f"a {type(obj).__name__}"
