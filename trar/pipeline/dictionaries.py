"""The tokenizers and target schemes of a store beside each other.

Every store has those of openvqa; word pieces and LXMERT's answers are added when they are asked
for, at once or later, and from then on every split has their tokens and targets too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trar.errors import ConfigError, StoreError
from trar.features.reader import LXMERT_SCHEME, WORD_PIECES
from trar.features.schema import StoreMeta, VocabularyEntry
from trar.pipeline.config import PrepareConfig
from trar.pipeline.sources import Source
from trar.pipeline.vocabulary import (
    Answers,
    Words,
    build_answers,
    load_answers,
    load_words,
    vocabulary_file,
)
from trar.pipeline.wordpieces import read_word_pieces

_LXMERT_FOLDERS = ("vqa", "lxmert/vqa", "vqa/lxmert", "data/vqa", ".")
_LXMERT_NAMES = ("trainval_label2ans.json", "trainval_ans2label.json")


@dataclass(frozen=True)
class Dictionaries:
    """All that a store has: words by tokenizer, answers by scheme."""

    words: dict[str, Words] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.words or self.answers)

    def names(self) -> list[str]:
        """For people: ``wordpiece``, ``targets lxmert``."""
        return [*self.words, *(f"targets {name}" for name in self.answers)]

    def __or__(self, other: Dictionaries) -> Dictionaries:
        return Dictionaries(self.words | other.words, self.answers | other.answers)

    def missing_from(self, meta: StoreMeta) -> Dictionaries:
        """Those that a store does not have."""
        return Dictionaries(
            {name: one for name, one in self.words.items() if name not in meta.vocabularies},
            {name: one for name, one in self.answers.items() if name not in meta.answer_schemes},
        )


def find_added(
    config: PrepareConfig, source: Source, folder: Path, existing: StoreMeta | None
) -> Dictionaries:
    """Those beside openvqa's: what a finished store has, unchanged, and what is asked for.

    Raises:
        ConfigError: word pieces without a file.
        RawDataError: a file is missing, or is none of its kind.
        StoreError: the store has others than those asked for.
    """
    added = Dictionaries()
    if existing is not None and WORD_PIECES in existing.vocabularies:
        added.words[WORD_PIECES] = load_words(folder, existing, WORD_PIECES)
    if config.tokenizer == WORD_PIECES:
        stored = added.words.get(WORD_PIECES)
        added.words[WORD_PIECES] = _word_pieces(config.wordpiece_vocab, stored, folder)
    elif config.wordpiece_vocab is not None:
        raise ConfigError("--wordpiece-vocab goes with --tokenizer wordpiece")
    given = config.answers if config.targets == LXMERT_SCHEME else None
    if existing is not None and LXMERT_SCHEME in existing.answer_schemes:
        added.answers[LXMERT_SCHEME] = load_answers(folder, existing, given, LXMERT_SCHEME)
    elif config.targets == LXMERT_SCHEME:
        if given is None and config.dataset == "vqa":
            given = find_lxmert_answers(config.raw)
        added.answers[LXMERT_SCHEME] = build_answers(source, given, LXMERT_SCHEME)
    return added


def _word_pieces(file: Path | None, stored: Words | None, folder: Path) -> Words:
    if file is None and stored is None:
        raise ConfigError(
            "--tokenizer wordpiece needs a table of word pieces: give the vocab.txt or "
            "tokenizer.json of bert-base-uncased with --wordpiece-vocab FILE"
        )
    if file is None:
        assert stored is not None
        return stored
    pieces = read_word_pieces(file)
    if stored is None:
        name = vocabulary_file(WORD_PIECES)
        entry = VocabularyEntry(name, len(pieces), pieces.digest, pieces.sources)
        return Words(pieces, entry)
    if pieces.digest != stored.vocabulary.digest:
        raise StoreError(
            f"{folder}: its word pieces ({len(stored.vocabulary):,} from "
            f"{', '.join(stored.entry.made_from)}) are frozen and are not those of {file}; leave "
            "--wordpiece-vocab out, or prepare into another --store"
        )
    return stored


def order_notes(new: Dictionaries, source: Source) -> list[str]:
    """A warning where LXMERT's answers were not given, and so are not in its order."""
    lxmert = new.answers.get(LXMERT_SCHEME)
    if lxmert is None or not set(lxmert.entry.made_from) <= set(source.splits):
        return []
    return [
        "the answers of --targets lxmert are in an order of our own: LXMERT's is in its "
        "trainval_label2ans.json alone; give that with --answers to use weights trained with it"
    ]


def find_lxmert_answers(raw: Path) -> Path | None:
    """LXMERT's list of answers in its own order, where its tree has it below ``raw``."""
    places = (raw / folder / name for folder in _LXMERT_FOLDERS for name in _LXMERT_NAMES)
    return next((path for path in places if path.is_file()), None)
