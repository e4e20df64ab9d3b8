"""The answer normal form, the dictionary, and soft targets."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError, StoreError
from trar.features.answers import (
    CONTRACTIONS,
    AnswerDictionary,
    labelled_targets,
    normalize_answer,
    process_digits_articles,
    process_punctuation,
    sparse_targets,
)

DATA = Path(__file__).parents[1] / "data"
VECTORS = json.loads((DATA / "normalisation" / "vqa_normalisation_vectors.json").read_text())
PUBLISHED = json.loads((DATA / "answers" / "answer_dict.json").read_text())
SIGNS = ';/[]"{}()=+\\_-><@`,?!'
TRICKY = st.text(st.sampled_from("aAn 1.,;/-_?!'`\t\nµé’"), max_size=20)


def annotations(split: str) -> list[dict[str, Any]]:
    path = DATA / "vqa-sample" / f"v2_mscoco_{split}_annotations.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text())["annotations"]
    return entries


SAMPLE = annotations("train2014") + annotations("val2014")
RAW = [[one["answer"] for one in entry["answers"]] for entry in SAMPLE]


def test_there_are_73_vectors_and_120_contractions() -> None:
    assert (len(VECTORS), len(CONTRACTIONS)) == (73, 120)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: repr(vector["input"])[:40])
def test_vector_of_the_original_scripts(vector: dict[str, str]) -> None:
    text = vector["input"]
    assert process_punctuation(text) == vector["official_punct"]
    assert process_digits_articles(process_punctuation(text)) == vector["official_processed"]
    assert normalize_answer(text) == vector["openvqa_prep_ans"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("n/a", "n"),  # a blank for the sign, then the article goes
        ("20,000 - 30", "20000 30"),  # one 1,000 and signs vanish; both blanks stay one
        ("u.s.", "us"),
        (".5", ".5"),
        ("3.", "3"),
        ("No One", "no 1"),
        ("?", ""),
        ("dont", "don't"),
        ("Im", "im"),  # a dead entry: the table has the capital, the text has lost it
        ("11:00", "11:00"),
    ],
)
def test_quirks_that_are_part_of_the_benchmark(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


def test_only_32_periods_are_removed() -> None:
    assert process_punctuation("." * 39) == "." * 7


def test_normal_form_is_idempotent_on_real_answers() -> None:
    for text in {answer for answers in RAW for answer in answers} | set(PUBLISHED[0]):
        normal = normalize_answer(text)
        assert normalize_answer(normal) == normal


@given(TRICKY | st.text(max_size=20))
def test_normal_form_is_the_official_processing(text: str) -> None:
    assert normalize_answer(text) == process_digits_articles(process_punctuation(text))


@given(TRICKY | st.text(st.sampled_from(SIGNS + "ab 1"), max_size=12))
def test_no_sign_survives_and_blanks_are_single(text: str) -> None:
    normal = normalize_answer(text)
    assert not set(normal) & set(SIGNS)
    assert normal == " ".join(normal.split())


def test_published_dictionary_round_trips() -> None:
    dictionary = AnswerDictionary.from_json(PUBLISHED)
    assert len(dictionary) == 3129
    assert dictionary.answers[:3] == ("net", "pitcher", "orange")
    assert [dictionary.index[a] for a in ("yes", "no", "0", "", "unknown")] == [3, 9, 82, 125, 545]
    assert dictionary.to_json() == PUBLISHED
    assert AnswerDictionary.from_json(json.loads(json.dumps(dictionary.to_json()))) == dictionary
    assert pickle.loads(pickle.dumps(dictionary)) == dictionary


def test_digest_depends_on_answers_and_order_alone() -> None:
    dictionary = AnswerDictionary(("b", "a"))
    assert dictionary.digest == hashlib.sha256(b'["b","a"]').hexdigest()
    assert AnswerDictionary(("a", "b")).digest != dictionary.digest


def test_labels_not_file_order_give_the_order() -> None:
    dictionary = AnswerDictionary.from_json([{"b": 1, "a": 0}, {"1": "b", "0": "a"}])
    assert dictionary.answers == ("a", "b")


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"yes": 0}, "found a dict"),
        ([{"yes": 0}], "found a list of 1"),
        ([{"yes": 0, "no": 1}, {"0": "yes"}], "2 answers have a label but 1 labels"),
        ([{"yes": 0, "no": 2}, {"0": "yes", "2": "no"}], 'label "1" of 2, it is missing'),
        ([{"yes": 0, "no": 1}, {0: "yes", 1: "no"}], 'label "0" of 2, it is missing'),
        ([{"yes": 0, "no": 1}, {"0": "yes", "1": 7}], "found 7"),
        ([{"yes": 1, "no": 0}, {"0": "yes", "1": "no"}], "answer 'yes', whose label is 1"),
        ([{"yes": 0, "no": True}, {"0": "yes", "1": "no"}], "whose label is True"),
        ([{"yes": 0, "no": 1}, {"0": "yes", "1": "yes"}], "answer 'yes', whose label is 0"),
    ],
)
def test_contradicting_dictionary_is_refused_with_the_entry(obj: Any, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        AnswerDictionary.from_json(obj, where="answers.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("answers.json: ")


def test_a_users_file_is_refused_as_raw_data() -> None:
    with pytest.raises(RawDataError):
        AnswerDictionary.from_json({}, error=RawDataError)


def test_build_counts_normal_forms_in_order_of_first_appearance() -> None:
    majority = ["Two", "red", "none", "2", "the red", "2", "blue"]
    assert AnswerDictionary.build(majority, min_count=2).answers == ("2", "red")
    assert AnswerDictionary.build(majority, min_count=3).answers == ("2",)
    assert AnswerDictionary.build(majority, min_count=1).answers == ("2", "red", "0", "blue")
    assert AnswerDictionary.build(["Two", "2"], min_count=1, rule="exact").answers == ("Two", "2")


def test_build_keeps_nine_or_more_by_default() -> None:
    assert AnswerDictionary.build(["a lot"] * 8 + ["no"] * 9).answers == ("no",)


def targets_of(
    answers: list[str], dictionary: AnswerDictionary, rule: Literal["vqa", "exact"] = "vqa"
) -> list[tuple[int, float]]:
    """(label, score) of each answer of one question that the dictionary has."""
    _, labels, scores = sparse_targets([answers], dictionary, rule)
    exact = (round(score, 6) for score in scores.tolist())  # 0.3 has no float32
    return list(zip(labels.tolist(), exact, strict=True))


@pytest.mark.parametrize(("count", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_score_by_number_of_annotators(count: int, score: float) -> None:
    dictionary = AnswerDictionary(("no", "yes"))
    answers = ["other"] * (10 - count) + ["Yes!"] * count
    assert targets_of(answers, dictionary) == [(1, score)]


def test_labels_come_in_order_of_first_appearance() -> None:
    dictionary = AnswerDictionary(("a1", "b1", "c1"))
    assert targets_of(["c1", "x", "a1", "c1"], dictionary) == [(2, 0.6), (0, 0.3)]
    assert targets_of(["x"], dictionary) == []


def test_one_answer_counts_full_under_the_exact_rule() -> None:
    dictionary = AnswerDictionary.build(["Two", "2"], min_count=1, rule="exact")
    assert targets_of(["Two"], dictionary, "exact") == [(0, 1.0)]
    assert targets_of(["two"], dictionary, "exact") == []


@pytest.mark.parametrize("kind", ["published", "own"])
def test_targets_of_real_questions_follow_the_plain_rule(kind: str) -> None:
    """data-formats 6.3: counts of prep_ans, dictionary answers only, .3 .6 .9 1."""
    if kind == "published":
        dictionary = AnswerDictionary.from_json(PUBLISHED)
    else:
        dictionary = AnswerDictionary.build(entry["multiple_choice_answer"] for entry in SAMPLE)
    offsets, labels, scores = sparse_targets(RAW, dictionary)
    assert (offsets.dtype, labels.dtype, scores.dtype) == (np.int64, np.int32, np.float32)
    assert len(offsets) == len(RAW) + 1
    assert offsets[-1] == len(labels) == len(scores)
    for i, answers in enumerate(RAW):
        forms = [
            process_digits_articles(process_punctuation(one)).replace(",", "") for one in answers
        ]
        expected = {
            dictionary.answers.index(form): {1: 0.3, 2: 0.6, 3: 0.9}.get(count, 1.0)
            for form, count in Counter(forms).items()
            if form in dictionary.answers
        }
        row = slice(offsets[i], offsets[i + 1])
        assert labels[row].tolist() == list(expected)
        assert scores[row].tolist() == [float(np.float32(score)) for score in expected.values()]


@given(st.permutations(RAW[0] + RAW[1]))
def test_order_of_annotators_changes_no_score(answers: list[str]) -> None:
    dictionary = AnswerDictionary.from_json(PUBLISHED)
    expected = dict(targets_of(RAW[0] + RAW[1], dictionary))
    assert dict(targets_of(answers, dictionary)) == expected


def test_no_questions_have_empty_columns() -> None:
    offsets, labels, scores = sparse_targets([], AnswerDictionary(("yes",)))
    assert (offsets.tolist(), labels.shape, scores.shape) == ([0], (0,), (0,))


ANSWERS = st.lists(
    st.lists(st.sampled_from(["Two", "2", "a cat", "cat", "", "red", "x!"]), max_size=12),
    max_size=8,
)
SOME = AnswerDictionary(("red", "2", "cat", "", "Two"))


@given(ANSWERS, st.sampled_from(["vqa", "exact"]), st.booleans())
def test_targets_of_many_questions_follow_the_plain_rules(
    lists: list[list[str]], rule: Literal["vqa", "exact"], weight_one: bool
) -> None:
    offsets, labels, scores = sparse_targets(lists, SOME, rule, weight_one)
    for number, answers in enumerate(lists):
        row = slice(offsets[number], offsets[number + 1])
        forms = answers if rule == "exact" else map(normalize_answer, answers)
        counts = Counter(form for form in forms if form in SOME.answers)
        assert labels[row].tolist() == [SOME.answers.index(form) for form in counts]
        one = weight_one or rule == "exact"
        expected = [1 if one else {1: 0.3, 2: 0.6, 3: 0.9}.get(n, 1) for n in counts.values()]
        assert scores[row].tolist() == np.array(expected, np.float32).tolist()
    assert offsets[-1] == len(labels)


def test_targets_are_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = AnswerDictionary.from_json(PUBLISHED)
    whole = sparse_targets(RAW, dictionary)
    monkeypatch.setattr("trar.features.answers._BLOCK_QUESTIONS", 7)
    for column, expected in zip(sparse_targets(RAW, dictionary), whole, strict=True):
        np.testing.assert_array_equal(column, expected)


@given(ANSWERS, st.data())
def test_stated_scores_are_taken_as_they_stand(lists: list[list[str]], data: st.DataObject) -> None:
    score = st.sampled_from([0.0, 0.3, 1.0])
    stated = [data.draw(st.lists(score, min_size=len(a), max_size=len(a))) for a in lists]
    offsets, labels, scores = labelled_targets(lists, stated, SOME)
    for number, (answers, given_scores) in enumerate(zip(lists, stated, strict=True)):
        row = slice(offsets[number], offsets[number + 1])
        kept = [
            (SOME.answers.index(answer), float(np.float32(score)))
            for answer, score in zip(answers, given_scores, strict=True)
            if answer in SOME.answers and score > 0
        ]
        assert list(zip(labels[row].tolist(), scores[row].tolist(), strict=True)) == kept
