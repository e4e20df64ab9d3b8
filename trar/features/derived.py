"""What a store derives from its own texts and answers: tokens and targets, whatever the tokenizer
and the scheme. Both can be made and checked without the raw files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np

from trar.features.answers import AnswerDictionary, labelled_targets, sparse_targets
from trar.features.columns import Lists
from trar.features.questions import AnswerTable, Ragged, SparseTargets
from trar.features.schema import TargetRule
from trar.features.text import Vocabulary, encode_questions
from trar.features.word_pieces import FIRST_PIECE, LAST_PIECE, WordPieces


def derive_targets(
    answers: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]] | None,
    dictionary: AnswerDictionary,
    rule: TargetRule,
    weight_one: bool,
) -> SparseTargets:
    """What the rule makes of the annotated answers of questions, or their stated scores where they
    have any; see ``answers.sparse_targets``."""
    if scores is not None:
        return SparseTargets(*labelled_targets(answers, scores, dictionary))
    return SparseTargets(*sparse_targets(answers, dictionary, rule, weight_one))


def stored_targets(
    table: AnswerTable, dictionary: AnswerDictionary, rule: TargetRule, weight_one: bool
) -> SparseTargets:
    """``derive_targets`` of a split's table."""
    scores = None
    if table.scores is not None:
        scores = Lists(cast(Sequence[float], table.scores), table.offsets)
    answers = Lists(table.texts, table.offsets)
    return derive_targets(answers, scores, dictionary, rule, weight_one)


def token_problem(tokens: Ragged, texts: Iterable[str], vocabulary: Vocabulary) -> str | None:
    """Why stored tokens, whose ids and offsets are in range, are not those of their questions.

    Word pieces of a question that is not plain ASCII are looked at for [CLS] and [SEP] alone.
    """
    if not isinstance(vocabulary, WordPieces):
        ids, offsets, _ = encode_questions(vocabulary, texts)
        same = np.array_equal(ids, tokens.ids) and np.array_equal(offsets, tokens.offsets)
        return None if same else "not the tokens of these questions"
    ends = vocabulary.encode((FIRST_PIECE, LAST_PIECE))
    for row, text in enumerate(texts):
        found = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        expected = vocabulary.cut_ascii(text)
        if found != expected if expected is not None else [*found[:1], *found[1:][-1:]] != ends:
            return f"not the word pieces of these questions; the first is that of row {row}"
    return None
