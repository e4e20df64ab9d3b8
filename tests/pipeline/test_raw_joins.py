"""Raw files against each other: questions, annotations, images, and the splits among themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from raw_data import SAMPLE
from raw_folder import TRAIN, TRAIN_ANSWERS, VAL, VAL_ANSWERS, change, copy_sample, told

from trar.errors import RawDataError
from trar.pipeline.raw_records import Records, index_remarks, join_remarks
from trar.pipeline.raw_verify import verify_raw


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return copy_sample(tmp_path)


def everything(image_split: str) -> NDArray[np.int64]:
    """Features of every image that the sample asks about."""
    name = TRAIN if image_split == "train2014" else VAL
    questions = json.loads((SAMPLE / name).read_text())["questions"]
    return np.array([one["image_id"] for one in questions], np.int64)


def test_an_id_twice(raw: Path) -> None:
    def edit(value: Any) -> None:
        value["questions"][1]["question_id"] = value["questions"][0]["question_id"]

    ((file, what),) = change(raw, TRAIN, edit)
    assert file == TRAIN
    assert "occurs twice" in what


def test_annotations_and_questions_of_different_releases(raw: Path) -> None:
    first = json.loads((SAMPLE / TRAIN).read_text())["questions"][0]["question_id"]
    ((file, what),) = [
        one
        for one in change(raw, TRAIN, lambda value: value["questions"].pop(0))
        if one[0] != TRAIN
    ]
    assert file == "train: questions and annotations"
    assert what == (
        f"1 of 402 questions (first: {first}) are annotated but not asked: use the two files of "
        "one release"
    )
    missing = change(raw, TRAIN_ANSWERS, lambda value: value["annotations"].pop(1))
    assert any("have no annotation" in what for _, what in missing)


def test_an_annotation_about_another_image(raw: Path) -> None:
    def edit(value: Any) -> None:
        value["annotations"][0]["image_id"] = 7
        del value["annotations"][1]["image_id"]  # allowed: it names none

    ((file, what),) = change(raw, VAL_ANSWERS, edit)
    assert file == "val: questions and annotations"
    assert what.startswith("1 of 200 questions (first: ")
    assert "about another image in their annotation" in what


@pytest.mark.parametrize(
    "edit",
    [
        lambda answers: answers.pop(),
        lambda answers: answers.reverse(),
        lambda answers: answers[4].update(answer_id=7),
        lambda answers: answers[4].update(answer_id="5"),
        lambda answers: answers[4].update(answer_id=10**30),
        lambda answers: answers[4].pop("answer_id"),
        lambda answers: answers.append({"answer": "x", "answer_id": 11}),
    ],
)
def test_other_answers_than_ten_in_order(raw: Path, edit: Callable[[Any], object]) -> None:
    first = json.loads((SAMPLE / VAL_ANSWERS).read_text())["annotations"][5]["question_id"]
    said = change(raw, VAL_ANSWERS, lambda value: edit(value["annotations"][5]["answers"]))
    assert said == [
        (
            VAL_ANSWERS,
            f"1 of 200 questions (first: {first}) have other answers than ten with ids 1 to 10",
        )
    ]


def test_a_question_without_any_answer_is_an_error(raw: Path) -> None:
    change(raw, VAL_ANSWERS, lambda value: value["annotations"][5].update(answers=[]))
    ((_, what),) = told(verify_raw(raw, "vqa"), "error")
    assert "1 of 200 questions" in what
    assert "have no answer at all" in what


def test_a_split_in_another_is_a_leak(raw: Path) -> None:
    def leak(key: str, count: int) -> Callable[[Any], None]:
        def edit(value: Any) -> None:
            other = json.loads(
                (SAMPLE / (TRAIN if key == "questions" else TRAIN_ANSWERS)).read_text()
            )
            value[key] += other[key][:count]

        return edit

    change(raw, VAL_ANSWERS, leak("annotations", 3))
    said = dict(change(raw, VAL, leak("questions", 3)))
    assert said["train and val"].startswith("3 questions are in both (first: ")


def test_test_dev_is_a_part_of_test(raw: Path) -> None:
    def write(name: str, subtype: str, ids: list[int]) -> None:
        rows = [{"question_id": one, "image_id": one // 1000, "question": "?"} for one in ids]
        path = raw / "vqa/raw" / f"v2_OpenEnded_mscoco_{name}_questions.json"
        path.write_text(json.dumps({"data_subtype": subtype, "questions": rows}))

    write("test2015", "test2015", [7001, 7002])
    write("test-dev2015", "test-dev2015", [7002])
    assert not [one for one in told(verify_raw(raw, "vqa")) if one[0] == "test-dev and test"]
    write("test-dev2015", "test-dev2015", [7002, 8001])
    said = dict(told(verify_raw(raw, "vqa"), "warning"))
    assert said["test-dev and test"] == "1 questions of test-dev are not in test (first: 8001)"


def write_genome(raw: Path, answers: int, ids: list[int]) -> None:
    questions = [{"question_id": one, "image_id": 9, "question": "What?"} for one in ids]
    annotations = [
        {"question_id": one, "image_id": 9, "answers": [{"answer": "boat"}] * answers}
        for one in ids
    ]
    (raw / "vqa/raw/VG_questions.json").write_text(json.dumps({"questions": questions}))
    (raw / "vqa/raw/VG_annotations.json").write_text(json.dumps({"annotations": annotations}))


@pytest.mark.parametrize(("answers", "warned"), [(1, True), (3, True), (4, False), (10, False)])
def test_visual_genome_answers_that_cannot_score_full(
    raw: Path, answers: int, warned: bool
) -> None:
    write_genome(raw, answers, [912402, 912403])
    warnings = [
        what for file, what in told(verify_raw(raw, "vqa"), "warning") if file.startswith("VG_")
    ]
    text = (
        "2 of 2 questions (first: 912402) have fewer than 4 answers: targets will be 0.3 where a "
        "single one is counted as it stands"
    )
    assert warnings == ([text] if warned else [])
    assert ("VG_questions.json", "2 questions of vg, no published count") in told(
        verify_raw(raw, "vqa"), "ok"
    )


def test_ids_that_visual_genome_shares_are_counted(raw: Path) -> None:
    train = json.loads((SAMPLE / TRAIN).read_text())["questions"]
    write_genome(raw, 10, [train[0]["question_id"], 5])
    said = dict(told(verify_raw(raw, "vqa"), "info"))
    assert said["train and vg"].startswith(
        f"1 Visual Genome ids are ids of train too (first: {train[0]['question_id']})"
    )
    assert "val and vg" not in said


def test_every_question_needs_its_image(raw: Path) -> None:
    findings = verify_raw(raw, "vqa", image_ids=everything)
    assert ("train questions and features of train2014", "402 questions, each with its image") in (
        told(findings, "ok")
    )
    assert not told(findings, "error")

    def some(image_split: str) -> NDArray[np.int64]:
        ids = everything(image_split)
        return np.setdiff1d(ids, np.unique(ids)[:7]) if image_split == "train2014" else ids

    ((file, what),) = told(verify_raw(raw, "vqa", image_ids=some), "error")
    gone = np.unique(everything("train2014"))[:7]
    questions = np.isin(everything("train2014"), gone).sum()
    assert file == "train questions and features of train2014"
    first = ", ".join(map(str, gone[:5]))
    assert what.startswith(
        f"{questions} questions are about 7 images that have no features (first: {first})"
    )


def test_features_without_a_question_are_a_fact(raw: Path) -> None:
    def more(image_split: str) -> NDArray[np.int64]:
        return np.append(everything(image_split), [5, 6])

    said = dict(told(verify_raw(raw, "vqa", image_ids=more), "info"))
    total = len(np.unique(everything("val2014"))) + 2
    assert said["features of val2014"] == f"2 of {total} images have no question (first: 5)"


def test_visual_genome_images_are_of_either_split(raw: Path) -> None:
    write_genome(raw, 10, [912402])  # about image 9, which no sample question is about

    def nine_in(place: str) -> Callable[[str], NDArray[np.int64]]:
        def ids(image_split: str) -> NDArray[np.int64]:
            return np.append(everything(image_split), [9] if image_split == place else [])

        return lambda image_split: ids(image_split).astype(np.int64)

    for place in ("train2014", "val2014"):
        assert not told(verify_raw(raw, "vqa", image_ids=nine_in(place)), "error")
    ((file, _),) = told(verify_raw(raw, "vqa", image_ids=everything), "error")
    assert file == "vg questions and features of train2014 and val2014"


def test_absent_features_are_said_once(raw: Path) -> None:
    def none(image_split: str) -> NDArray[np.int64]:
        raise RawDataError(f"no image features of {image_split}")

    findings = verify_raw(raw, "vqa", ["train"], image_ids=none)
    assert told(findings, "absent") == [("features of train2014", "no image features of train2014")]
    assert not told(findings, "error")


IDS = st.lists(st.integers(0, 60), unique=True)


@given(IDS, IDS)
def test_a_join_is_silent_exactly_when_the_ids_agree(left: list[int], right: list[int]) -> None:
    def records(ids: list[int]) -> Records:
        array = np.array(ids, np.int64)
        return Records(array, array * 2)

    remarks = join_remarks(records(left), records(right))
    assert len(remarks) == bool(set(left) - set(right)) + bool(set(right) - set(left))
    counts = [int(text.split(" ")[0]) for _, text in remarks]
    assert sum(counts) == len(set(left) ^ set(right))


@given(st.sets(st.integers(0, 30)))
def test_indices_are_whole_exactly_when_they_are_a_range(indices: set[int]) -> None:
    remarks = index_remarks(np.array(sorted(indices), np.int64), None, "images")
    assert (not remarks) == (indices == set(range(len(indices))))
    if remarks:
        first = next(one for one in range(40) if one not in indices)
        assert f": {first} is the first" in remarks[0][1]
