"""spaCy's division of a word into its own tokens: "dont" is "do" and "nt".

A pipeline's folder has the settings of its tokenizer in ``tokenizer``, msgpack: regular expressions
for what is split off, and exceptions, which map a word to its pieces. spaCy 2 wrote the same, with
lemmas and tags in the exceptions, which spaCy 3 refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from trar.errors import RawDataError
from trar.fileio import disk_errors

Tokenizer = Callable[[str], list[str]]
"""A word to its pieces, never none."""

_LONGEST_WORD = 256  # the time grows with the square of a word of signs
_ORTH = 65  # spaCy's number of the attribute "text of a token", as its files hold it


def saved_tokenizer(folder: Path, lang: str) -> Tokenizer:
    """The tokenizer that the pipeline in ``folder`` was saved with, or where it has none (or one
    of another kind than spaCy's usual), its language's.

    Raises:
        RawDataError: a language that spaCy does not have.
    """
    from spacy.tokenizer import Tokenizer as SpacyTokenizer  # seconds to import

    blank = _blank(lang)
    saved = _read_saved(folder / "tokenizer")
    return _pieces(blank.tokenizer if saved is None else SpacyTokenizer(blank.vocab, **saved))


def blank_tokenizer(lang: str = "en") -> Tokenizer:
    """spaCy's own tokenizer of a language: "dont" becomes "do", "nt".

    Raises:
        RawDataError: a language that spaCy does not have.
    """
    return _pieces(_blank(lang).tokenizer)


def _blank(lang: str) -> Any:
    import spacy  # seconds to import

    try:
        if not re.fullmatch("[a-z]{2,3}", lang):
            raise ValueError("not a language code")
        return spacy.blank(lang)
    except (ImportError, ValueError) as error:
        raise RawDataError(
            f"spaCy has no tokenizer for the language {lang!r} ({one_line(error)})"
        ) from None


def _pieces(tokenizer: Any) -> Tokenizer:
    def pieces(word: str) -> list[str]:
        return [word] if len(word) > _LONGEST_WORD else [one.orth_ for one in tokenizer(word)]

    return pieces


def _read_saved(path: Path) -> dict[str, Any] | None:
    """The arguments of spaCy's Tokenizer as a pipeline's ``tokenizer`` file holds them; None where
    there is no such file, or another kind of tokenizer wrote it."""
    try:
        with disk_errors(path):
            saved = msgspec.msgpack.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError, TypeError):
        saved = None
    if not isinstance(saved, dict) or not isinstance(saved.get("exceptions"), dict):
        return None
    try:
        compiled = {
            name: getattr(re.compile(saved[name]), method)
            for name, method in (
                ("prefix_search", "search"),
                ("suffix_search", "search"),
                ("infix_finditer", "finditer"),
                ("token_match", "match"),
                ("url_match", "match"),
            )
            if isinstance(saved.get(name), str)
        }
    except (re.error, OverflowError, RecursionError, MemoryError):  # written by spaCy 2.0
        return None
    rules = {word: _rule(word, pieces) for word, pieces in saved["exceptions"].items()}
    return {**compiled, "rules": {word: rule for word, rule in rules.items() if rule}}


def _rule(word: Any, pieces: Any) -> list[dict[int, str]]:
    """One exception, without the lemmas and tags that spaCy 2 kept there; empty if it is none."""
    if not isinstance(word, str) or not isinstance(pieces, list):
        return []
    found = [one.get(_ORTH, one.get("ORTH")) for one in pieces if isinstance(one, dict)]
    orths = [one for one in found if isinstance(one, str) and one]
    fits = len(orths) == len(pieces) and "".join(orths) == word
    return [{_ORTH: one} for one in orths] if fits else []


def one_line(said: object) -> str:
    """What a library says, short and on one line."""
    return " ".join(str(said).split())[:200] or type(said).__name__
