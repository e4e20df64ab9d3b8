"""The VQA accuracy, by the official rules and by those that the original repositories ship.

A prediction is scored against each of the ten annotators: min(1, matches among the OTHER nine / 3),
averaged. The rules differ in what is made comparable before (data-formats 6.1):

* "official", GT-Vision-Lab/VQA vqaEval.py since commit a013f00 (2021-03-11): unless the annotators
  are unanimous, their answers and the prediction are brought to normal form;
* "legacy", the same script in 2016 (458a8b2), vendored by openvqa, MCAN, TRAR and RWSAN: the
  prediction always is, the annotators' answers only lose punctuation, so a true "none" never
  matches the prediction "0".

The scripts change the annotations in place, so that a second run differs from the first. Here
nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Literal

from trar.errors import ScoreError
from trar.features.answers import normalize_answer, process_punctuation
from trar.trainer.metrics.result import VqaScore, collect
from trar.trainer.metrics.vqa_files import (
    JsonSource,
    annotated_texts,
    annotators_of,
    name_of,
    read_annotations,
    read_question_ids,
    read_results,
)

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
    _same_ids(given, truth, name_of(results, "results"), where)
    asked = read_question_ids(questions)
    if lost := [question_id for question_id in truth if question_id not in asked]:
        raise ScoreError(
            f"{name_of(questions, 'questions')}: {len(lost):,} of {len(truth):,} annotated "
            f"questions are not in it, first {_some(lost)}; expected the questions file of the "
            "same split as the annotations: give the matching pair"
        )
    rows = [truth[question_id] for question_id in given]
    return score_columns(
        list(given),
        list(given.values()),
        (annotated_texts(row, where) for row in rows),
        (row["question_type"] for row in rows),
        (row["answer_type"] for row in rows),
        rules,
        annotators=map(annotators_of, rows),
    )


def score_columns(
    question_ids: Sequence[int],
    predictions: Sequence[str],
    answers: Iterable[Sequence[str]],
    question_types: Iterable[str],
    answer_types: Iterable[str],
    rules: Rules = "official",
    *,
    annotators: Iterable[Sequence[Hashable] | None] | None = None,
) -> VqaScore:
    """Score columns of equal length, row i being one question with its annotated answers.

    ``annotators`` says who gave each answer, where that is in doubt: two equal answers of the same
    annotator are one opinion and do not support each other (see ``score``). None, for all or for a
    question, means that every answer is another annotator's.

    Raises:
        ScoreError: unknown rules, a question without answers, or a question given twice.
    """
    if rules not in _COMPARABLE:
        raise ScoreError(f"no such rules: {rules!r}; choose official or legacy")
    comparable = _COMPARABLE[rules]()
    accuracies = []
    doubtful = 0
    for question_id, prediction, truth, who in zip(
        question_ids,
        predictions,
        answers,
        annotators or repeat(None, len(question_ids)),
        strict=True,
    ):
        distinct = set(truth)
        if not distinct:
            raise ScoreError(
                f"question {question_id} has no annotated answers, expected ten; score a split "
                "that has annotations"
            )
        guess, forms = comparable(prediction, distinct)
        if who is not None:
            records = [(one, forms[answer]) for one, answer in zip(who, truth, strict=True)]
            accuracies.append(_accuracy_of_records(guess, records))
            doubtful += len(set(who)) < len(who)
            continue
        matches = 0
        for answer in distinct:
            if forms[answer] == guess:
                matches += truth.count(answer)
        if matches >= _ENOUGH:
            accuracies.append(1.0)
        elif matches:
            accuracies.append(_accuracy(tuple([forms[answer] == guess for answer in truth])))
        else:
            accuracies.append(0.0)
    notes: tuple[str, ...] = ()
    if doubtful:
        notes = (
            f"{doubtful:,} questions have annotators that nothing tells apart (no answer_id, or "
            "one twice): by the official rules their equal answers do not count for each other",
        )
    return collect(rules, question_ids, accuracies, question_types, answer_types, notes)


_ENOUGH = 4  # matches from which every annotator has three others that agree


class _Forms(dict[str, str]):
    """A form of each text, worked out once: the two million answers of val2014 repeat."""

    def __init__(self, form: Callable[[str], str]) -> None:
        self._form = form

    def __missing__(self, text: str) -> str:
        form = self[text] = self._form(text)
        return form


class _Official:
    """The prediction, and the forms of the distinct answers, as the 2021 rules compare them."""

    def __init__(self) -> None:
        self._trimmed = _Forms(_trim)
        self._normal = _Forms(lambda text: normalize_answer(_trim(text)))

    def __call__(self, prediction: str, truth: set[str]) -> tuple[str, _Forms]:
        trimmed = self._trimmed
        if len(truth) == 1 or len({trimmed[answer] for answer in truth}) == 1:
            return trimmed[prediction], trimmed
        return self._normal[prediction], self._normal


class _Legacy:
    """The same as the 2016 rules compare them."""

    def __init__(self) -> None:
        self._raw = _Forms(str)
        self._normal = _Forms(lambda text: normalize_answer(_trim(text)))
        self._unpunctuated = _Forms(process_punctuation)

    def __call__(self, prediction: str, truth: set[str]) -> tuple[str, _Forms]:
        return self._normal[prediction], self._raw if len(truth) == 1 else self._unpunctuated


_COMPARABLE: dict[str, Callable[[], _Official | _Legacy]] = {
    "official": _Official,
    "legacy": _Legacy,
}


def _trim(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 12)
def _accuracy(matches: tuple[bool, ...]) -> float:
    """Mean over annotators of min(1, matches among the others / 3), summed in their order."""
    total = sum(matches)
    each = [min(1, float(total - match) / 3) for match in matches]
    return float(sum(each)) / len(each)


def _accuracy_of_records(guess: str, records: Sequence[tuple[Hashable, str]]) -> float:
    """The same where records may be equal: "the others" are those that differ from this one.

    The official script compares whole records. Ten equal answers without ``answer_id`` are one
    record, have no others, and a right prediction gets 0.
    """
    each = []
    for record in records:
        others = [answer for other, answer in records if (other, answer) != record]
        each.append(min(1, float(others.count(guess)) / 3))
    return float(sum(each)) / len(each)


def _same_ids(
    given: dict[int, str], truth: Mapping[int, object], where: str, annotations: str
) -> None:
    missing = [question_id for question_id in truth if question_id not in given]
    foreign = [question_id for question_id in given if question_id not in truth]
    if missing:
        raise ScoreError(
            f"{where}: {len(missing):,} of the {len(truth):,} questions in {annotations} have no "
            f"answer, first {_some(missing)}"
            + (f"; and {len(foreign):,} answers are to other questions" if foreign else "")
            + "; expected one answer to each: predict the whole split, then score again"
        )
    if foreign:
        raise ScoreError(
            f"{where}: {len(foreign):,} of {len(given):,} answers are to questions that are not in "
            f"{annotations}, first {_some(foreign)}; expected answers to its {len(truth):,} "
            "questions alone: score with the annotations of the predicted split"
        )


def _some(question_ids: Sequence[int]) -> str:
    return ", ".join(map(str, question_ids[:5]))
