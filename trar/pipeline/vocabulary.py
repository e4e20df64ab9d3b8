"""The token table and the answer dictionary of a store: made once, then frozen with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from trar.errors import RawDataError, StoreError
from trar.features.answers import AnswerDictionary
from trar.features.reader import SCHEME, TOKENIZER
from trar.features.schema import AnswersEntry, StoreMeta, VocabularyEntry
from trar.features.text import Vocabulary
from trar.fileio import disk_errors
from trar.pipeline.sources import Source

VOCABULARY_FILE = f"vocabulary-{TOKENIZER}.json"
ANSWERS_FILE = f"answers-{SCHEME}.json"


@dataclass(frozen=True)
class Dictionaries:
    """What turns texts into ids and answers into labels, and what ``store.json`` says of it."""

    vocabulary: Vocabulary
    vocabulary_entry: VocabularyEntry
    answers: AnswerDictionary
    answers_entry: AnswersEntry


def build_dictionaries(source: Source, answers_file: Path | None) -> Dictionaries:
    """From every question file present, and from the train and val answers or a given file."""
    texts = {split: source.texts(split) for split in source.present()}
    vocabulary = Vocabulary.build(texts)
    if answers_file is not None:
        answers, made_from = _read_answers(answers_file), [answers_file.name]
    else:
        made_from = source.answer_splits()
        if not made_from:
            raise RawDataError(
                "no train or val annotations to make the answer dictionary from: add them below "
                "--raw, or give the published dictionary with --answers FILE"
            )
        majority = [one for split in made_from for one in source.majority(split)]
        answers = AnswerDictionary.build(majority, min_count=source.min_count, rule=source.rule)
        if not len(answers):
            raise RawDataError(
                f"no answer of {' and '.join(made_from)} occurs {source.min_count} times, so the "
                "answer dictionary would be empty: give one with --answers FILE"
            )
    return Dictionaries(
        vocabulary,
        VocabularyEntry(
            VOCABULARY_FILE,
            len(vocabulary),
            vocabulary.digest,
            {split: len(lines) for split, lines in texts.items()},
        ),
        answers,
        AnswersEntry(
            ANSWERS_FILE, len(answers), answers.digest, source.rule, source.min_count, made_from
        ),
    )


def load_dictionaries(folder: Path, meta: StoreMeta, answers_file: Path | None) -> Dictionaries:
    """Those of a finished store, unchanged.

    Raises:
        StoreError: they cannot be read, or another answer dictionary is asked for.
    """
    vocabulary_entry = meta.vocabularies[TOKENIZER]
    answers_entry = meta.answer_schemes[SCHEME]
    try:
        vocabulary = Vocabulary.from_json(
            msgspec.json.decode((folder / vocabulary_entry.file).read_bytes())
        )
        answers = AnswerDictionary.from_json(
            msgspec.json.decode((folder / answers_entry.file).read_bytes())
        )
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(
            f"{folder}: its vocabulary or answers cannot be read ({error}); run trar-data verify"
        ) from error
    if answers_file is not None and _read_answers(answers_file).digest != answers.digest:
        raise StoreError(
            f"{folder}: its answer dictionary ({len(answers):,} answers) is frozen and is not that "
            f"of {answers_file}; leave --answers out, or prepare into another --store"
        )
    return Dictionaries(vocabulary, vocabulary_entry, answers, answers_entry)


def _read_answers(path: Path) -> AnswerDictionary:
    try:
        with disk_errors(path):
            data = path.read_bytes()
        return AnswerDictionary.from_json(
            msgspec.json.decode(data), where=str(path), error=RawDataError
        )
    except FileNotFoundError:
        raise RawDataError(f"{path}: no such file; --answers takes an answer_dict.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RawDataError(
            f"{path}: not valid JSON ({error}); --answers takes an answer_dict.json: "
            "[answer to index, index to answer]"
        ) from None
