"""A small table of word pieces in the form of bert-base-uncased's, over the words of the sample."""

from __future__ import annotations

import json
import string
from collections import Counter
from pathlib import Path

from raw_data import SAMPLE

SPECIALS = ("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ENDINGS = ("s", "ing", "er", "ed", "ly", "man", "board", "ball", "th", "in", "on")


def sample_texts() -> list[str]:
    """The questions of the sample."""
    return [
        question["question"]
        for path in sorted(SAMPLE.glob("*questions.json"))
        for question in json.loads(path.read_text())["questions"]
    ]


def pieces() -> list[str]:
    """The frequent words of the sample, endings, letters and signs; no ``z`` and no ``##z``, so
    that some words come out as [UNK]."""
    words = Counter(word for text in sample_texts() for word in text.lower().split())
    known = [word for word, count in words.items() if count > 2 and word.isalnum()]
    letters = [one for one in string.ascii_lowercase + string.digits if one != "z"]
    table = [*SPECIALS, *string.punctuation, *letters, *known, "é", "中"]
    table += [f"##{one}" for one in (*letters, *_ENDINGS)]
    return list(dict.fromkeys(table))


def write_vocab(folder: Path) -> Path:
    """As ``vocab.txt`` in ``folder``."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(pieces()) + "\n", encoding="utf-8")
    return path
