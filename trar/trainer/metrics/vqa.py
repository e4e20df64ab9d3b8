"""The VQA accuracy, by the official rules and by those that the original repositories ship.

A prediction is scored against each of the ten annotators: min(1, matches among the OTHER nine / 3),
averaged. The rules differ in what is made comparable before (data-formats 6.1):

* "official", GT-Vision-Lab/VQA vqaEval.py since commit a013f00 (2021-03-11): unless the annotators
  are unanimous, their answers and the prediction are brought to normal form;
* "legacy", the same script in 2016 (458a8b2), vendored by openvqa, MCAN, TRAR and RWSAN: the
  prediction always is, the annotators' answers only lose punctuation, so a true "none" never
  matches the prediction "0".

The scripts change the annotations in place, so that a second run differs from the first. Here
nothing is changed. Letters: q questions, a annotated answers of all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.answers import normalize_answer, process_punctuation
from trar.features.columns import CodedTexts, Codes, coded_lists
from trar.trainer.metrics.json_source import JsonSource, name_of
from trar.trainer.metrics.result import VqaScore, collect, same_length
from trar.trainer.metrics.vqa_files import read_annotations, read_question_ids, read_results

Rules = Literal["official", "legacy"]


def score(
    questions: JsonSource, annotations: JsonSource, results: JsonSource, rules: Rules = "official"
) -> VqaScore:
    """Score a results file as the official evaluation does.

    Each argument is a path or the parsed JSON of the official schema; ``results`` is a bare list of
    ``{"question_id", "answer"}`` that answers exactly the annotated questions. ``questions`` may
    hold more than those.

    Raises:
        ScoreError: a file that is not what its place promises, or ids that do not fit together.
    """
    truth = read_annotations(annotations)
    given = read_results(results)
    where = name_of(annotations, "annotations")
    ids = truth.ids.tolist()
    if list(given) != ids:  # a file that `predict` wrote is in the order of the split
        row_of = {question_id: row for row, question_id in enumerate(ids)}
        _same_ids(given, row_of, name_of(results, "results"), where)
        truth = truth.take(np.fromiter(map(row_of.__getitem__, given), np.int64, len(given)))
    asked = read_question_ids(questions)
    if not asked.issuperset(ids):
        lost = [question_id for question_id in ids if question_id not in asked]
        raise ScoreError(
            f"{name_of(questions, 'questions')}: {len(lost):,} of {len(ids):,} annotated "
            f"questions are not in it, first {_some(lost)}; expected the questions file of the "
            "same split as the annotations: give the matching pair"
        )
    return score_columns(
        truth.ids,
        list(given.values()),
        truth.answers,
        truth.question_types,
        truth.answer_types,
        rules,
        annotators=truth.annotators,
    )


def score_columns(
    question_ids: Sequence[int] | NDArray[np.int64],
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    question_types: Sequence[str],
    answer_types: Sequence[str],
    rules: Rules = "official",
    *,
    annotators: Mapping[int, Sequence[Hashable]] | None = None,
) -> VqaScore:
    """Score columns of equal length, row i being one question with its annotated answers.

    Columns of ``features.columns`` are taken as they are. ``annotators`` says of some rows who gave
    each answer, where that is in doubt: two equal answers of the same annotator are one opinion and
    do not support each other (see ``score``). Elsewhere every answer is another annotator's.

    Raises:
        ScoreError: unknown rules, a question without answers, or a question given twice.
    """
    if rules not in _FORMS:
        raise ScoreError(f"no such rules: {rules!r}; choose official or legacy")
    same_length(question_ids, predictions)
    annotated, offsets = coded_lists(answers)
    counts = np.diff(offsets)
    if len(empty := np.flatnonzero(counts == 0)):
        raise ScoreError(
            f"question {question_ids[empty[0]]} has no annotated answers, expected ten; score a "
            "split that has annotations"
        )
    question = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    guesses = CodedTexts.of(predictions)
    truth, guess = _comparable(_FORMS[rules], annotated, guesses, question, offsets)
    match = truth == guess[question]
    accuracies = _accuracies(match, question, counts)
    doubtful = 0
    for row, who in (annotators or {}).items():
        forms = truth[offsets[row] : offsets[row + 1]].tolist()
        accuracies[row] = _accuracy_of_records(int(guess[row]), list(zip(who, forms, strict=True)))
        doubtful += len(set(who)) < len(who)
    notes: tuple[str, ...] = ()
    if doubtful:
        notes = (
            f"{doubtful:,} questions have annotators that nothing tells apart (no answer_id, or "
            "one twice): by the official rules their equal answers do not count for each other",
        )
    return collect(rules, question_ids, accuracies, question_types, answer_types, notes)


Form = Callable[[str], str]


@dataclass(frozen=True)
class _Forms:
    """Two forms of a text, the second made from the first. Texts are compared in the first where it
    makes all annotated answers of a question the same, else in the second."""

    of_answers: tuple[Form, Form]
    of_predictions: tuple[Form, Form]


def _trim(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _normal(text: str) -> str:
    return normalize_answer(_trim(text))


_FORMS = {
    "official": _Forms((_trim, normalize_answer), (_trim, normalize_answer)),
    "legacy": _Forms((str, process_punctuation), (_normal, str)),
}


def _comparable(
    forms: _Forms,
    answers: CodedTexts,
    predictions: CodedTexts,
    question: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The annotated answers (a,) and the predictions (q,) as numbers, equal where texts match.

    Each form is worked out once for every text that differs: two million answers repeat.
    """
    number = Codes()

    def numbered(texts: CodedTexts, first: Form, second: Form) -> list[NDArray[np.int32]]:
        form = list(map(first, texts.known))
        return [
            np.array(list(map(number.__getitem__, known)), np.int32)[texts.codes]
            for known in (form, map(second, form))
        ]

    truth, divided_truth = numbered(answers, *forms.of_answers)
    guess, divided_guess = numbered(predictions, *forms.of_predictions)
    starts = offsets[:-1]
    divided = np.minimum.reduceat(truth, starts) != np.maximum.reduceat(truth, starts)
    np.copyto(truth, divided_truth, where=divided[question])
    np.copyto(guess, divided_guess, where=divided)
    return truth, guess


def _accuracies(
    match: NDArray[np.bool_], question: NDArray[np.int32], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The accuracy (q,) from which annotated answers ``match`` (a,) the prediction."""
    matches = np.bincount(question[match], minlength=len(counts))
    accuracies = (matches >= _ENOUGH).astype(np.float64)
    between = (matches > 0) & (matches < _ENOUGH)
    here = np.flatnonzero(between[question])
    each = np.minimum(1, (matches[question[here]] - match[here]) / 3)  # among the others
    # bincount adds one by one, in the annotators' order, as the script does
    totals = np.bincount(question[here], weights=each, minlength=len(counts))
    accuracies[between] = totals[between] / counts[between]
    return accuracies


_ENOUGH = 4  # matches from which every annotator has three others that agree


def _accuracy_of_records(guess: int, records: Sequence[tuple[Hashable, int]]) -> float:
    """The accuracy where records may be equal: "the others" are those that differ from this one.

    The official script compares whole records. Ten equal answers without ``answer_id`` are one
    record, have no others, and a right prediction gets 0.
    """
    each = []
    for record in records:
        others = [answer for other, answer in records if (other, answer) != record]
        each.append(min(1, float(others.count(guess)) / 3))
    return float(sum(each)) / len(each)


def _same_ids(
    given: Mapping[int, object], truth: Mapping[int, object], where: str, annotations: str
) -> None:
    if given.keys() == truth.keys():
        return
    missing = [question_id for question_id in truth if question_id not in given]
    foreign = [question_id for question_id in given if question_id not in truth]
    if missing:
        raise ScoreError(
            f"{where}: {len(missing):,} of the {len(truth):,} questions in {annotations} have no "
            f"answer, first {_some(missing)}"
            + (f"; and {len(foreign):,} answers are to other questions" if foreign else "")
            + "; expected one answer to each: predict the whole split, then score again"
        )
    raise ScoreError(
        f"{where}: {len(foreign):,} of {len(given):,} answers are to questions that are not in "
        f"{annotations}, first {_some(foreign)}; expected answers to its {len(truth):,} "
        "questions alone: score with the annotations of the predicted split"
    )


def _some(question_ids: Sequence[int]) -> str:
    return ", ".join(map(str, question_ids[:5]))
