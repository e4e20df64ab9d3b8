"""From one split's questions to the columns of the store, and from those to tokens and targets that
are added later."""

from __future__ import annotations

import numpy as np

from trar.features.columns import CodedTexts, coded_lists, int64s, number_lists
from trar.features.derived import derive_targets, stored_targets
from trar.features.questions import (
    ANSWER_TYPES,
    AnswerTable,
    QuestionTable,
    Ragged,
    Texts,
)
from trar.features.reader import SCHEME, TOKENIZER, FeatureStore
from trar.features.schema import QuestionSplit
from trar.features.writer import StoreWriter
from trar.pipeline.dictionaries import Dictionaries
from trar.pipeline.question_plan import QuestionPlan
from trar.pipeline.sources import Questions


def write_questions(
    writer: StoreWriter,
    plan: QuestionPlan,
    dictionaries: Dictionaries,
    source: str,
    *,
    weight_one: bool = False,
) -> QuestionSplit:
    """Write a split's tables, with the tokens and targets of all ``dictionaries``; returns what
    ``store.json`` says of it: words and targets are counted of openvqa's.

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
    writer.write_table(f"questions/{split}", table.columns())
    tokens, unknown = {}, {}
    for name, words in dictionaries.words.items():
        ids, offsets, unknown[name] = words.encode(questions.texts)
        tokens[name] = Ragged(ids, offsets)
        writer.write_table(f"tokens/{name}/{split}", tokens[name].columns())
    fewest = without_target = 0
    if questions.answers is not None:
        annotated = _answers(questions)
        writer.write_table(f"answers/{split}", annotated.columns())
        fewest = int(np.diff(annotated.offsets).min())
        for name, answers in dictionaries.answers.items():
            targets = derive_targets(
                questions.answers,
                questions.scores,
                answers.dictionary,
                answers.entry.rule,
                weight_one,
            )
            writer.write_table(f"targets/{name}/{split}", targets.columns())
            if name == SCHEME:
                without_target = int((np.diff(targets.offsets) == 0).sum())
    return QuestionSplit(
        questions=len(questions),
        source=source,
        image_splits=plan.image_splits,
        answers_per_question=fewest,
        tokens=len(tokens[TOKENIZER].ids),
        unknown_tokens=unknown[TOKENIZER],
        longest_question=int(np.diff(tokens[TOKENIZER].offsets).max()),
        without_target=without_target,
        labelled=questions.scores is not None,
    )


def add_tables(
    writer: StoreWriter,
    store: FeatureStore,
    split: str,
    dictionaries: Dictionaries,
    *,
    weight_one: bool = False,
) -> None:
    """Write only the tokens and targets of ``dictionaries``, of a split that the store has: the
    same bytes as ``write_questions`` would write."""
    texts = store.questions(split).texts
    for name, words in dictionaries.words.items():
        ids, offsets, _ = words.encode(texts)
        writer.write_table(f"tokens/{name}/{split}", Ragged(ids, offsets).columns())
    if not store.meta.question_splits[split].answered:
        return
    for name, answers in dictionaries.answers.items():
        targets = stored_targets(
            store.answers_of(split), answers.dictionary, answers.entry.rule, weight_one
        )
        writer.write_table(f"targets/{name}/{split}", targets.columns())


def _answers(questions: Questions) -> AnswerTable:
    assert questions.answers is not None
    flat, offsets = coded_lists(questions.answers)
    types = {name: position for position, name in enumerate(ANSWER_TYPES)}
    answer_types = CodedTexts.of(questions.answer_types)
    type_of_code = np.array([types.get(name, 0) for name in answer_types.known], np.uint8)
    stated = None
    if questions.scores is not None:
        stated = number_lists(questions.scores)[0].astype(np.float32)
    return AnswerTable(
        offsets=offsets,
        texts=Texts.pack(flat),
        type=type_of_code[answer_types.codes],
        majority=Texts.pack(CodedTexts.of(questions.majority)),
        scores=stated,
    )
