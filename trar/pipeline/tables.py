"""From one split's questions to the columns of the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trar.features.answers import labelled_targets, sparse_targets
from trar.features.questions import (
    ANSWER_TYPES,
    AnswerTable,
    QuestionTable,
    Ragged,
    SparseTargets,
    Texts,
)
from trar.features.reader import SCHEME, TOKENIZER
from trar.features.schema import QuestionSplit
from trar.features.text import encode_questions
from trar.features.writer import StoreWriter
from trar.pipeline.plan import QuestionPlan
from trar.pipeline.sources import Questions
from trar.pipeline.vocabulary import Answers, Words


@dataclass(frozen=True)
class _Answers:
    table: AnswerTable
    targets: SparseTargets
    fewest: int


def write_questions(
    writer: StoreWriter,
    plan: QuestionPlan,
    words: Words,
    answers: Answers,
    source: str,
    *,
    weight_one: bool = False,
) -> QuestionSplit:
    """Write a split's tables; returns what ``store.json`` says of it.

    ``weight_one``: every annotated answer has target 1, however often it was given.
    """
    split, questions = plan.split, plan.questions
    type_names = list(dict.fromkeys(questions.types))
    number = {name: position for position, name in enumerate(type_names)}
    table = QuestionTable(
        ids=np.asarray(questions.ids, np.int64),
        image_split=plan.image_split,
        image_row=plan.image_row,
        type=np.array([number[name] for name in questions.types], np.uint16),
        type_names=Texts.pack(type_names),
        texts=Texts.pack(questions.texts),
    )
    ids, offsets, unknown = encode_questions(words.vocabulary, questions.texts)
    writer.write_table(f"questions/{split}", table.columns())
    writer.write_table(f"tokens/{TOKENIZER}/{split}", Ragged(ids, offsets).columns())
    annotated = _answers(questions, answers, weight_one)
    if annotated is not None:
        writer.write_table(f"answers/{split}", annotated.table.columns())
        writer.write_table(f"targets/{SCHEME}/{split}", annotated.targets.columns())
    return QuestionSplit(
        questions=len(questions),
        source=source,
        image_splits=plan.image_splits,
        answers_per_question=annotated.fewest if annotated else 0,
        tokens=len(ids),
        unknown_tokens=unknown,
        longest_question=int(np.diff(offsets).max()),
        without_target=int((np.diff(annotated.targets.offsets) == 0).sum()) if annotated else 0,
        labelled=questions.scores is not None,
    )


def _answers(questions: Questions, answers: Answers, weight_one: bool) -> _Answers | None:
    if questions.answers is None:
        return None
    counts = [len(given) for given in questions.answers]
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    types = {name: position for position, name in enumerate(ANSWER_TYPES)}
    stated = None
    if questions.scores is not None:
        stated = np.array([one for scores in questions.scores for one in scores], np.float32)
    table = AnswerTable(
        offsets=offsets,
        texts=Texts.pack([answer for given in questions.answers for answer in given]),
        type=np.array([types.get(name, 0) for name in questions.answer_types], np.uint8),
        majority=Texts.pack(questions.majority),
        scores=stated,
    )
    if questions.scores is not None:
        targets = labelled_targets(questions.answers, questions.scores, answers.dictionary)
    else:
        rule = answers.entry.rule
        targets = sparse_targets(questions.answers, answers.dictionary, rule, weight_one)
    return _Answers(table, SparseTargets(*targets), min(counts))
