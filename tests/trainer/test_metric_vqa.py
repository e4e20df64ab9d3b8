"""The VQA accuracy against the official numbers, and its refusals."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import ScoreError
from trar.features.answers import process_digits_articles, process_punctuation
from trar.trainer.metrics import vqa

DATA = Path(__file__).parents[1] / "data"
RULES = {"official": "official", "legacy": "seed_variant"}


def public(name: str) -> Any:
    return json.loads(
        gzip.decompress((DATA / "metric" / f"metric_public_{name}.json.gz").read_bytes())
    )


QUESTIONS, ANNOTATIONS, RESULTS = public("questions"), public("annotations"), public("results")
EXPECTED = public("expected")


def case(answers: list[str], prediction: str, /, **extra: Any) -> tuple[Any, Any, Any]:
    """Questions, annotations and results of one question."""
    records = [{"answer": answer, "answer_id": i + 1} for i, answer in enumerate(answers)]
    annotation = {
        "question_id": 1000,
        "question_type": "what",
        "answer_type": "other",
        "answers": records,
    } | extra
    return (
        {"questions": [{"question_id": 1000}]},
        {"annotations": [annotation]},
        [{"question_id": 1000, "answer": prediction}],
    )


@pytest.mark.parametrize("rules", RULES)
def test_equal_to_the_reference_in_every_question(rules: Any) -> None:
    score = vqa.score(QUESTIONS, ANNOTATIONS, RESULTS, rules=rules)
    expected = EXPECTED[RULES[rules]]
    assert len(score.per_question) == 3000
    assert score.per_question == {int(k): v for k, v in expected["per_question"].items()}
    assert score.overall == expected["accuracy"]["overall"]
    assert score.per_question_type == expected["accuracy"]["perQuestionType"]
    assert score.per_answer_type == expected["accuracy"]["perAnswerType"]
    assert score.rules == rules
    assert score.notes == ()


def test_summary_names_the_rules() -> None:
    types = "(yes/no 52.94, number 53.24, other 52.39)"
    official = vqa.score(QUESTIONS, ANNOTATIONS, RESULTS)
    assert official.summary() == f"52.73 {types}, 3,000 questions, official VQA rules of 2021"
    legacy = vqa.score(QUESTIONS, ANNOTATIONS, RESULTS, rules="legacy")
    assert "legacy VQA rules of 2016" in legacy.summary()


@pytest.mark.parametrize("rules", RULES)
def test_scoring_changes_nothing_it_is_given(rules: Any) -> None:
    given = (QUESTIONS, ANNOTATIONS, RESULTS)
    before = copy.deepcopy(given)
    first = vqa.score(*given, rules=rules)
    assert given == before
    assert vqa.score(*given, rules=rules) == first


def test_paths_score_as_parsed_json(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("questions.json", "annotations.json", "results.json")]
    for path, value in zip(paths, (QUESTIONS, ANNOTATIONS, RESULTS), strict=True):
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(value).encode())
    parsed = vqa.score(QUESTIONS, ANNOTATIONS, RESULTS)
    assert vqa.score(*paths) == parsed
    assert vqa.score(*map(str, paths)) == parsed


def test_order_of_the_results_does_not_matter() -> None:
    turned = vqa.score(QUESTIONS, ANNOTATIONS, RESULTS[::-1])
    straight = vqa.score(QUESTIONS, ANNOTATIONS, RESULTS)
    assert turned.per_question == straight.per_question
    assert turned.overall == straight.overall


@pytest.mark.parametrize(
    ("answers", "prediction", "official", "legacy"),
    [
        (["none"] * 4 + ["0"] + ["x"] * 5, "0", 100.0, 30.0),  # 5 of 10; 2016 sees one "0"
        (["one way"] * 10, "1 way", 0.0, 0.0),  # unanimous: nothing is normalised
        (["one way"] * 10, "one way", 100.0, 0.0),  # ... 2016 still normalises the prediction
        (["u.s."] * 9 + ["us"], "The U.S.", 100.0, 100.0),
        (["red "] * 5 + [" red"] * 5, "red\n", 100.0, 0.0),  # trimmed, they are unanimous
        (["a"] * 1 + ["b1"] * 9, "", 30.0, 0.0),  # the article alone is the empty answer
        (["x"] * 9 + ["y"], "y", 30.0, 30.0),
        (["x"] * 8 + ["y"] * 2, "y", 60.0, 60.0),
        (["x"] * 7 + ["y"] * 3, "y", 90.0, 90.0),
        (["x"] * 6 + ["y"] * 4, "y", 100.0, 100.0),
    ],
)
def test_rules_on_known_cases(
    answers: list[str], prediction: str, official: float, legacy: float
) -> None:
    given = case(answers, prediction)
    assert vqa.score(*given).overall == official
    assert vqa.score(*given, rules="legacy").overall == legacy


def test_records_without_answer_id_collapse_as_in_the_official_script() -> None:
    questions, annotations, results = case(["red"] * 10, "red")
    for record in annotations["annotations"][0]["answers"]:
        del record["answer_id"]
    score = vqa.score(questions, annotations, results)
    assert score.overall == 0.0
    assert "1 questions have annotators that nothing tells apart" in score.notes[0]
    # Another field can tell them apart: five are "yes", five are "no".
    for i, record in enumerate(annotations["annotations"][0]["answers"]):
        record["answer_confidence"] = "yes" if i % 2 else "no"
    assert vqa.score(questions, annotations, results).overall == 100.0


@given(st.data())
def test_columns_equal_a_plain_reading_of_the_rule(data: st.DataObject) -> None:
    words = st.sampled_from(["none", "0", "the cat", "cat", "u.s.", "us", " red", "red", "a", ""])
    answers = data.draw(st.lists(words, min_size=1, max_size=10))
    prediction = data.draw(words)
    score = vqa.score_columns([5], [prediction], [answers], ["what"], ["other"])
    assert score.per_question == {5: plain_official(prediction, answers)}
    given = case(answers, prediction)
    assert list(vqa.score(*given).per_question.values()) == list(score.per_question.values())
    shuffled = data.draw(st.permutations(answers))
    other = vqa.score_columns([5], [prediction], [shuffled], ["what"], ["other"])
    assert other.overall == score.overall


@given(st.data())
def test_many_questions_of_any_number_of_answers_equal_the_plain_reading(
    data: st.DataObject,
) -> None:
    words = st.sampled_from(["none", "0", "the cat", "cat", "u.s.", "us", " red", "red", "a", ""])
    answers = data.draw(st.lists(st.lists(words, min_size=1, max_size=12), min_size=1, max_size=8))
    predictions = [data.draw(words) for _ in answers]
    names = [data.draw(st.sampled_from(["what", "is", ""])) for _ in answers]
    score = vqa.score_columns(range(len(answers)), predictions, answers, names, names)
    expected = list(map(plain_official, predictions, answers))
    assert list(score.per_question.values()) == expected
    lists = {name: [] for name in names}
    for name, value in zip(names, score.accuracies.tolist(), strict=True):
        lists[name].append(value)
    means = {name: round(100 * sum(one) / len(one), 2) for name, one in lists.items() if name}
    assert score.per_question_type == score.per_answer_type == means
    assert list(score.per_question_type) == list(means)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("numbers", [None, [1] * 10, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9], range(10)])
def test_files_and_parsed_json_agree_whatever_tells_annotators_apart(
    numbers: Any, rules: Any, tmp_path: Path
) -> None:
    questions, annotations, results = case(["red"] * 6 + ["blue"] * 4, "blue")
    for number, record in enumerate(annotations["annotations"][0]["answers"]):
        del record["answer_id"]
        if numbers is not None:
            record["answer_id"] = numbers[number]
    for name, value in (("q", questions), ("a", annotations), ("r", results)):
        (tmp_path / name).write_text(json.dumps(value))
    parsed = vqa.score(questions, annotations, results, rules)
    assert vqa.score(*(tmp_path / name for name in "qar"), rules) == parsed
    assert bool(parsed.notes) == (len(set(numbers or [])) < 10)


def plain_official(prediction: str, answers: list[str]) -> float:
    """The 2021 rules, one annotator after the other, without memory or short cuts."""

    def normal(text: str) -> str:
        return process_digits_articles(process_punctuation(text))

    def trim(text: str) -> str:
        return text.replace("\n", " ").replace("\t", " ").strip()

    truth, guess = [trim(answer) for answer in answers], trim(prediction)
    if len(set(truth)) > 1:
        truth, guess = [normal(answer) for answer in truth], normal(guess)
    total = 0.0
    for i in range(len(truth)):
        others = truth[:i] + truth[i + 1 :]
        total += min(1, others.count(guess) / 3)
    return round(100 * total / len(truth), 2)


def test_mean_is_rounded_once_over_unrounded_accuracies() -> None:
    three = [["x"] * 9 + ["y"], ["y"] * 10, ["x"] * 10]
    score = vqa.score_columns([1, 2, 3], ["y"] * 3, three, ["a", "b", "b"], ["other"] * 3)
    assert (score.overall, score.per_question_type) == (43.33, {"a": 30.0, "b": 50.0})


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ScoreError, match="no such rules: '2016'; choose official or legacy"):
        vqa.score(QUESTIONS, ANNOTATIONS, RESULTS, rules="2016")  # type: ignore[arg-type]


def test_a_question_without_answers_is_refused() -> None:
    with pytest.raises(ScoreError, match="question 1000 has no annotated answers"):
        vqa.score(*case([], "red"))


def drop(results: list[Any]) -> Any:
    return results[2:]


def add(results: list[Any]) -> Any:
    return [*results, {"question_id": 77, "answer": "x"}]


def swap(results: list[Any]) -> Any:
    return add(drop(results))


def double(results: list[Any]) -> Any:
    return [*results, {"question_id": 1001003, "answer": "eleven"}]


def entry(position: int, value: Any) -> Callable[[list[Any]], Any]:
    return lambda results: [*results[:position], value, *results[position + 1 :]]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (drop, ["2 of the 3,000 questions", "1000007, 1001003", "predict the whole split"]),
        (add, ["1 of 3,001 answers are to questions that are not in", "first 77", "predicted"]),
        (swap, ["2 of the 3,000", "and 1 answers are to other questions"]),
        (double, ["question 1001003 is answered twice", "'ten' in entry 1", "'eleven' in entry"]),
        (entry(4, {"question_id": 1, "answer": 3}), ["entry 4, question 1", "is 3", "a string"]),
        (entry(4, {"question_id": 1}), ["entry 4, question 1: the answer is None"]),
        (entry(0, {"question_id": "1", "answer": "x"}), ["entry 0", "'1'", "a whole number"]),
        (entry(0, {"question_id": True, "answer": "x"}), ["is True, expected a whole number"]),
        (entry(0, {"answer": "x"}), ['"question_id" is missing']),
        (entry(9, "yes"), ["entry 9 is 'yes', expected a bare list"]),
        (entry(9, ["yes"]), ["entry 9 is ['yes'], expected a bare list"]),
        (lambda results: {"results": results}, ["a bare list", "an object with the keys 'resul"]),
        (lambda results: 7, ["expected a bare list", "found 7"]),
        (lambda results: [], ["3,000 of the 3,000 questions"]),
    ],
)
def test_results_that_do_not_fit_are_refused(
    change: Callable[[list[Any]], Any], parts: list[str]
) -> None:
    with pytest.raises(ScoreError) as caught:
        vqa.score(QUESTIONS, ANNOTATIONS, change(RESULTS))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["the file is empty", "make it again"]),
        (b" \n", ["the file is empty"]),
        (b'{"question_id": 1, "answer": "x"}\n{"question_id": 2}\n', ["JSON lines", "one list"]),
        (b'[{"question_id": 1, "answer": "x"}, {"ques', ["not JSON", "cut short"]),
        (b"PK\x03\x04\xff", ["not JSON", "zipped"]),
        (b'[{"question_id": 1, "answer": "\xff"}]', ["not JSON"]),
    ],
)
def test_unreadable_files_are_refused_by_name(
    tmp_path: Path, content: bytes, parts: list[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ScoreError) as caught:
        vqa.score(QUESTIONS, ANNOTATIONS, path)
    assert str(caught.value).startswith(f"{path}: ")
    for part in [*parts, "a bare list", "expected"]:
        assert part in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="no such file"):
        vqa.score(QUESTIONS, ANNOTATIONS, tmp_path / "results.json")
    with pytest.raises(ScoreError, match="a folder"):
        vqa.score(QUESTIONS, ANNOTATIONS, tmp_path)


def test_files_given_in_the_wrong_place_are_refused() -> None:
    with pytest.raises(ScoreError, match=r'list "annotations", found an object with the keys .*"?'):
        vqa.score(QUESTIONS, QUESTIONS, RESULTS)
    with pytest.raises(ScoreError, match='list "annotations", found a list of 3,000 entries'):
        vqa.score(QUESTIONS, RESULTS, RESULTS)
    with pytest.raises(ScoreError, match='list "questions"'):
        vqa.score(ANNOTATIONS, ANNOTATIONS, RESULTS)


def test_questions_of_another_split_are_refused() -> None:
    questions = {"questions": QUESTIONS["questions"][1:]}
    with pytest.raises(ScoreError, match=r"1 of 3,000 annotated questions .* first 1000007"):
        vqa.score(questions, ANNOTATIONS, RESULTS)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"question_type": None}, 'question 1000: "question_type" is None, expected text'),
        ({"answers": None}, '"answers" is None, expected a list'),
        ({"answers": ["red"]}, "an annotated answer is 'red', expected"),
        ({"answers": [{"answer": 2}]}, "an annotated answer is {'answer': 2}"),
        ({"answers": [{"text": "x"}]}, "an annotated answer is {'text': 'x'}"),
        ({"answers": [{"answer": ["x"]}]}, "an annotated answer is {'answer': ['x']}"),
    ],
)
def test_trimmed_annotations_are_refused(extra: Any, message: str, tmp_path: Path) -> None:
    questions, annotations, results = case(["red"] * 10, "red", **extra)
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    for source in (annotations, tmp_path / "a.json"):
        with pytest.raises(ScoreError) as caught:
            vqa.score(questions, source, results)
        assert message in str(caught.value)
        assert "official annotations" in str(caught.value)


def test_an_id_beyond_64_bits_is_refused() -> None:
    questions, annotations, results = case(["red"] * 10, "red", question_id=1 << 64)
    with pytest.raises(ScoreError, match="question id 18446744073709551616 is too large"):
        vqa.score(questions, annotations, results)


def test_a_question_annotated_twice_is_refused() -> None:
    questions, annotations, results = case(["red"] * 10, "red")
    annotations["annotations"] *= 2
    with pytest.raises(ScoreError, match="question 1000 is annotated twice, in entries 0 and 1"):
        vqa.score(questions, annotations, results)
