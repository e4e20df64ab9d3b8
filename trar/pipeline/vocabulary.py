"""The token tables and the answer dictionaries of a store: each made once, then frozen with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError, StoreError
from trar.features.answers import AnswerDictionary
from trar.features.reader import LXMERT_SCHEME, SCHEME, TOKENIZER
from trar.features.schema import AnswersEntry, StoreMeta, VocabularyEntry
from trar.features.text import Vocabulary, encode_questions
from trar.features.word_pieces import WordPieces, vocabulary_from_json
from trar.fileio import disk_errors
from trar.pipeline.sources import Source
from trar.pipeline.wordpieces import PieceCutter


@dataclass(frozen=True)
class Answers:
    """What turns answers into labels, and what ``store.json`` says of it."""

    dictionary: AnswerDictionary
    entry: AnswersEntry


@dataclass(frozen=True)
class Words:
    """What turns questions into token ids, and what ``store.json`` says of it."""

    vocabulary: Vocabulary
    entry: VocabularyEntry

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
        """Token ids and offsets of all questions, never cut, and how many ids are of no word; as
        ``text.encode_questions``."""
        if isinstance(self.vocabulary, WordPieces):
            return self._cutter.encode(texts)
        return encode_questions(self.vocabulary, texts)

    @cached_property
    def _cutter(self) -> PieceCutter:
        assert isinstance(self.vocabulary, WordPieces)
        return PieceCutter(self.vocabulary)


def vocabulary_file(tokenizer: str) -> str:
    """Where a store keeps the tokens of a tokenizer."""
    return f"vocabulary-{tokenizer}.json"


def build_answers(source: Source, answers_file: Path | None, scheme: str = SCHEME) -> Answers:
    """From the train and val answers that are there, or a given file.

    LXMERT's own list has the order of a Python 2 dictionary, which nobody can build again: without
    its file the same answers come in order of first appearance.

    Raises:
        RawDataError: no annotations and no file, or no answer that is frequent enough.
    """
    rule = "raw" if scheme == LXMERT_SCHEME and source.rule == "vqa" else source.rule
    if answers_file is not None:
        answers, made_from = read_answers(answers_file), [answers_file.name]
    else:
        made_from = source.answer_splits()
        if not made_from:
            raise RawDataError(
                "no train or val annotations to make the answer dictionary from: add them below "
                f"--raw, or give the published dictionary with --answers FILE --targets {scheme}"
            )
        majority = itertools.chain.from_iterable(source.majority(split) for split in made_from)
        answers = AnswerDictionary.build(majority, min_count=source.min_count, rule=rule)
        if not len(answers):
            raise RawDataError(
                f"no answer of {' and '.join(made_from)} occurs {source.min_count} times, so the "
                "answer dictionary would be empty: give one with --answers FILE "
                f"--targets {scheme}"
            )
    entry = AnswersEntry(
        f"answers-{scheme}.json", len(answers), answers.digest, rule, source.min_count, made_from
    )
    return Answers(answers, entry)


def build_words(source: Source) -> Words:
    """From every question file present, in the dataset's order."""
    texts = {split: source.texts(split) for split in source.present()}
    vocabulary = Vocabulary.build(texts)
    entry = VocabularyEntry(
        vocabulary_file(TOKENIZER),
        len(vocabulary),
        vocabulary.digest,
        {split: len(lines) for split, lines in texts.items()},
    )
    return Words(vocabulary, entry)


def load_answers(
    folder: Path, meta: StoreMeta, answers_file: Path | None, scheme: str = SCHEME
) -> Answers:
    """Those of a finished store, unchanged.

    Raises:
        StoreError: they cannot be read, or another answer dictionary is asked for.
    """
    entry = meta.answer_schemes[scheme]
    answers = AnswerDictionary.from_json(_read_json(folder, entry.file))
    if answers_file is not None and read_answers(answers_file).digest != answers.digest:
        raise StoreError(
            f"{folder}: its answer dictionary ({len(answers):,} answers) is frozen and is not that "
            f"of {answers_file}; leave --answers out, or prepare into another --store"
        )
    return Answers(answers, entry)


def load_words(folder: Path, meta: StoreMeta, tokenizer: str = TOKENIZER) -> Words:
    """Those of a finished store, unchanged.

    Raises:
        StoreError: they cannot be read.
    """
    entry = meta.vocabularies[tokenizer]
    where = str(folder / entry.file)
    return Words(vocabulary_from_json(_read_json(folder, entry.file), where=where), entry)


def _read_json(folder: Path, name: str) -> Any:
    try:
        return msgspec.json.decode((folder / name).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(
            f"{folder / name}: cannot be read ({error}); run trar-data verify"
        ) from error


def read_answers(path: Path) -> AnswerDictionary:
    """``answer_dict.json`` of the openvqa family, or LXMERT's ``trainval_ans2label.json``,
    ``trainval_label2ans.json`` or, of its pre-training, ``all_ans.json``: the labels' order is kept
    as it is.

    Raises:
        RawDataError: missing, not JSON, or no dictionary.
    """
    try:
        with disk_errors(path):
            data = path.read_bytes()
        value = msgspec.json.decode(data)
    except FileNotFoundError:
        raise RawDataError(f"{path}: no such file; --answers takes an answer_dict.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RawDataError(
            f"{path}: not valid JSON ({error}); --answers takes an answer_dict.json: "
            "[answer to index, index to answer]"
        ) from None
    if isinstance(value, dict):  # answer -> label; the other half follows from it
        value = [value, {str(label): answer for answer, label in value.items()}]
    elif isinstance(value, list) and all(isinstance(one, dict) and "ans" in one for one in value):
        value = [one["ans"] for one in value]
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = [
            {answer: label for label, answer in enumerate(value)},
            {str(label): answer for label, answer in enumerate(value)},
        ]
    return AnswerDictionary.from_json(value, where=str(path), error=RawDataError)
