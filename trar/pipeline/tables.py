"""From one split's questions to the columns of the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trar.features.answers import labelled_targets, sparse_targets
from trar.features.columns import CodedTexts, coded_lists, int64s, number_lists
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
    types = CodedTexts.of(questions.types).renumbered()
    table = QuestionTable(
        ids=int64s(questions.ids),
        image_split=plan.image_split,
        image_row=plan.image_row,
        type=types.codes.astype(np.uint16),
        type_names=Texts.pack(types.known),
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
    flat, offsets = coded_lists(questions.answers)
    types = {name: position for position, name in enumerate(ANSWER_TYPES)}
    answer_types = CodedTexts.of(questions.answer_types)
    type_of_code = np.array([types.get(name, 0) for name in answer_types.known], np.uint8)
    stated = None
    if questions.scores is not None:
        stated = number_lists(questions.scores)[0].astype(np.float32)
        targets = labelled_targets(questions.answers, questions.scores, answers.dictionary)
    else:
        rule = answers.entry.rule
        targets = sparse_targets(questions.answers, answers.dictionary, rule, weight_one)
    table = AnswerTable(
        offsets=offsets,
        texts=Texts.pack(flat),
        type=type_of_code[answer_types.codes],
        majority=Texts.pack(CodedTexts.of(questions.majority)),
        scores=stated,
    )
    return _Answers(table, SparseTargets(*targets), int(np.diff(offsets).min()))
