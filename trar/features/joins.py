"""Finds what digests cannot: a store that was written wrong, or edited and sealed again.

Every table is held against the sizes that ``store.json`` states and against both sides of its
joins: questions and images, tokens and vocabulary, targets and answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError
from trar.features.answers import AnswerDictionary
from trar.features.backend import Backend
from trar.features.chunk_table import read_chunk_table
from trar.features.containers import open_backend
from trar.features.derived import stored_targets, token_problem
from trar.features.problem import Problem
from trar.features.questions import AnswerTable, QuestionTable, Ragged, SparseTargets
from trar.features.schema import StoreMeta, TargetRule
from trar.features.text import Vocabulary
from trar.features.vectors import read_vectors
from trar.features.word_pieces import vocabulary_from_json


def check_joins(folder: Path, meta: StoreMeta) -> Iterator[Problem]:
    """Every table that contradicts another one or ``store.json``, or cannot be read."""
    backend = open_backend(folder, meta.container)
    for split in meta.image_splits:
        yield from _check_images(folder, backend, meta, split)
    dictionaries = _Dictionaries.read(folder, meta)
    for name, problem in dictionaries.problems.items():
        yield Problem(name, problem)
    for split in meta.question_splits:
        yield from _check_questions(backend, meta, split, dictionaries)
    for name, entry in meta.vectors.items():
        tokens = {one.tokens for one in meta.vocabularies.values()}
        if entry.tokens not in tokens:
            yield Problem(entry.file, f"{entry.tokens} vectors for {sorted(tokens)} tokens")
        try:
            read_vectors(folder, entry)
        except StoreError as error:
            yield Problem(f"vectors {name}", str(error))


def _check_images(folder: Path, backend: Backend, meta: StoreMeta, split: str) -> Iterator[Problem]:
    spec, images = meta.feature, meta.image_splits[split]
    name = f"{meta.arrays}/images/{split}"
    try:
        table = backend.read_images_table(split, spec)
        stored = read_chunk_table(folder, split, images.chunks(spec))
        resolved = backend.resolve_chunks(split)
    except (StoreError, OSError) as error:
        yield Problem(name, str(error))
        return
    if len(table.ids) != images.images:
        yield Problem(f"{name}/ids", f"{len(table.ids)} ids, expected {images.images}")
    if repeats := _repeats(table.ids):
        yield Problem(f"{name}/ids", f"{repeats} duplicated images")
    if table.cells is not None:
        if len(table.cells) != images.images:
            yield Problem(f"{name}/cells", f"{len(table.cells)} rows, expected {images.images}")
        if int((~table.cells).sum()) != images.masked_cells:
            yield Problem(f"{name}/cells", "not the number of masked cells that store.json states")
    if table.offsets is not None:
        where = f"{name}/offsets"
        yield from _check_ragged(where, table.offsets, images.flat_rows, images.images)
        if np.diff(table.offsets).max(initial=0) > spec.rows:
            yield Problem(where, f"an image has more than {spec.rows} regions")
    if table.sizes is not None and table.sizes.shape != (images.images, 2):
        yield Problem(f"{name}/sizes", f"shape {table.sizes.shape}, expected ({images.images}, 2)")
    if spec.boxes:
        yield from _check_boxes(backend, meta, split)
    if not stored.equals(resolved):
        yield Problem(f"chunk-table of {split}", "differs from the shards' own indexes")


def _check_boxes(backend: Backend, meta: StoreMeta, split: str) -> Iterator[Problem]:
    spec, images = meta.feature, meta.image_splits[split]
    where = f"{meta.arrays}/images/{split}/boxes"
    try:
        boxes = backend.read_boxes(split)
    except (StoreError, OSError) as error:
        yield Problem(where, str(error))
        return
    shape = (images.flat_rows, 4) if spec.ragged else (images.images, spec.rows, 4)
    if boxes.shape != shape:
        yield Problem(where, f"shape {boxes.shape}, expected {shape}")
    elif not np.isfinite(boxes).all():
        yield Problem(where, "a box is NaN or infinite")


@dataclass(frozen=True)
class _Dictionaries:
    """What texts and answers are checked against, as far as it can be read."""

    vocabularies: dict[str, Vocabulary]
    answers: dict[str, AnswerDictionary]
    problems: dict[str, str]

    @classmethod
    def read(cls, folder: Path, meta: StoreMeta) -> _Dictionaries:
        found = cls({}, {}, {})
        for tokenizer, words in meta.vocabularies.items():
            try:
                data = msgspec.json.decode((folder / words.file).read_bytes())
                found.vocabularies[tokenizer] = vocabulary_from_json(data)
            except (StoreError, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                found.problems[words.file] = str(error)
        for scheme, entry in meta.answer_schemes.items():
            try:
                data = msgspec.json.decode((folder / entry.file).read_bytes())
                found.answers[scheme] = AnswerDictionary.from_json(data)
            except (StoreError, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                found.problems[entry.file] = str(error)
        return found


def _check_questions(
    backend: Backend, meta: StoreMeta, split: str, dictionaries: _Dictionaries
) -> Iterator[Problem]:
    expected = meta.question_splits[split]
    name = f"{meta.arrays}/questions/{split}"
    try:
        table = QuestionTable.from_columns(backend.read_table(f"questions/{split}"))
    except (StoreError, OSError, KeyError) as error:
        yield Problem(name, str(error))
        return
    for column in ("ids", "image_split", "image_row", "type", "texts"):
        if (found := len(getattr(table, column))) != expected.questions:
            yield Problem(name, f"column {column} has {found} rows, expected {expected.questions}")
            return
    if _repeats(table.ids):
        yield Problem(f"{name}/ids", "question ids occur twice")
    yield from _questions_without_image(meta, split, table)
    if len(table) and table.type.max() >= len(table.type_names):
        yield Problem(f"{name}/type", "a question type has no name")
    for tokenizer, vocabulary in meta.vocabularies.items():
        where = f"{meta.arrays}/tokens/{tokenizer}/{split}"
        try:
            tokens = Ragged.from_columns(backend.read_table(f"tokens/{tokenizer}/{split}"))
        except (StoreError, OSError, KeyError) as error:
            yield Problem(where, str(error))
            continue
        yield from _check_ragged(where, tokens.offsets, len(tokens.ids), len(table))
        yield from _check_range(where, "token id", tokens.ids, vocabulary.tokens, "the vocabulary")
        words = dictionaries.vocabularies.get(tokenizer)
        what = None if words is None else token_problem(tokens, table.texts, words)
        if what is not None:
            yield Problem(where, what)
    if expected.answered:
        yield from _check_answers(backend, meta, split, len(table), dictionaries)


def _check_answers(
    backend: Backend, meta: StoreMeta, split: str, questions: int, dictionaries: _Dictionaries
) -> Iterator[Problem]:
    try:
        answers = AnswerTable.from_columns(backend.read_table(f"answers/{split}"))
        where = f"{meta.arrays}/answers/{split}"
        yield from _check_ragged(where, answers.offsets, len(answers.texts), questions)
        for scheme, entry in meta.answer_schemes.items():
            where = f"{meta.arrays}/targets/{scheme}/{split}"
            targets = SparseTargets.from_columns(backend.read_table(f"targets/{scheme}/{split}"))
            yield from _check_ragged(where, targets.offsets, len(targets.label), questions)
            yield from _check_range(
                where, "label", targets.label, entry.answers, "the answer dictionary"
            )
            if not ((targets.score > 0) & (targets.score <= 1)).all():
                yield Problem(f"{where}/score", "a score lies outside (0, 1]")
            if scheme in dictionaries.answers and len(answers) == questions:
                known = dictionaries.answers[scheme]
                if not _follow(answers, targets, known, entry.rule, meta, split):
                    yield Problem(where, "not the labels of these answers")
    except (StoreError, OSError, KeyError) as error:
        yield Problem(f"answers of {split}", str(error))


def _follow(
    answers: AnswerTable,
    targets: SparseTargets,
    known: AnswerDictionary,
    rule: TargetRule,
    meta: StoreMeta,
    split: str,
) -> bool:
    """Whether the targets are what the rule makes of the annotated answers."""
    expected = stored_targets(answers, known, rule, meta.weight_one(split))
    return (
        np.array_equal(expected.offsets, targets.offsets)
        and np.array_equal(expected.label, targets.label)
        and np.array_equal(expected.score, targets.score)
    )


def _questions_without_image(
    meta: StoreMeta, split: str, table: QuestionTable
) -> Iterator[Problem]:
    images = meta.question_splits[split].image_splits
    rows = np.array([meta.image_splits[name].images for name in images], np.int64)
    bad = table.image_split >= len(rows)
    bad[~bad] = (table.image_row[~bad] < 0) | (
        table.image_row[~bad] >= rows[table.image_split[~bad]]
    )
    if bad.any():
        first = int(np.argmax(bad))
        yield Problem(
            f"{meta.arrays}/questions/{split}",
            f"{int(bad.sum())} questions without an image; the first is question "
            f"{table.ids[first]}, which points at row {table.image_row[first]}",
        )


def _repeats(ids: NDArray[np.int64]) -> int:
    """How many ids stand before already. (numpy 2.4 sorts whole numbers in a twelfth of the time
    in which ``np.unique`` hashes them.)"""
    return int(np.count_nonzero(np.diff(np.sort(ids)) == 0))


def _check_ragged(
    where: str, offsets: NDArray[np.int64], values: int, rows: int
) -> Iterator[Problem]:
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != values:
        yield Problem(where, f"offsets do not span {values} values of {rows} questions")
    elif (np.diff(offsets) < 0).any():
        yield Problem(where, "offsets run backwards")


def _check_range(
    where: str, what: str, values: NDArray[np.int32], size: int, of: str
) -> Iterator[Problem]:
    bad = (values < 0) | (values >= size)
    if bad.any():
        yield Problem(
            where,
            f"{int(bad.sum())} {what}s outside {of} (size {size}); the first is "
            f"{values[np.argmax(bad)]}",
        )
