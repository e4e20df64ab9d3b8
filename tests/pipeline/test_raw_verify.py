"""Raw files of VQA v2.0 against the manifest: faults are named, and a part of it is no fault."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_data import SAMPLE
from raw_folder import TRAIN, TRAIN_ANSWERS, VAL, VAL_ANSWERS, change, copy_sample, told

from trar.errors import ConfigError
from trar.pipeline.raw_verify import verify_raw


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return copy_sample(tmp_path)


def test_a_part_of_the_real_files_warns_of_counts_alone(raw: Path) -> None:
    findings = verify_raw(raw, "vqa")
    part = "questions, the published file has"
    assert told(findings) == [
        (TRAIN, f"402 {part} 443,757: a part of it"),
        (TRAIN_ANSWERS, "402 annotations, the published file has 443,757: a part of it"),
        (VAL, f"200 {part} 214,354: a part of it"),
        (VAL_ANSWERS, "200 annotations, the published file has 214,354: a part of it"),
    ]
    assert {one.status for one in findings if one.status not in ("ok", "absent")} == {"warning"}
    assert [name for name, _ in told(findings, "absent")] == [
        "v2_OpenEnded_mscoco_test2015_questions.json",
        "v2_OpenEnded_mscoco_test-dev2015_questions.json",
        "VG_questions.json",
        "VG_annotations.json",
    ]
    assert ("val: questions and annotations", "the same questions") in told(findings, "ok")


def test_only_the_splits_asked_for(raw: Path) -> None:
    findings = verify_raw(raw, "vqa", ["val"])
    assert {Path(one.file).name for one in findings} == {
        VAL,
        VAL_ANSWERS,
        "val: questions and annotations",
    }
    with pytest.raises(ConfigError, match="no split 'trian' here; there are train, val, test"):
        verify_raw(raw, "vqa", ["trian"])
    with pytest.raises(ConfigError, match="unknown dataset 'coco'; there are vqa, clevr"):
        verify_raw(raw, "coco")


def test_the_file_of_another_split_under_this_name(raw: Path) -> None:
    for name, other in ((TRAIN, VAL), (TRAIN_ANSWERS, VAL_ANSWERS)):
        shutil.copy(SAMPLE / other, raw / "vqa/raw" / name)
    errors = told(verify_raw(raw, "vqa"), "error")
    assert [name for name, _ in errors] == [TRAIN, TRAIN_ANSWERS]
    for _, what in errors:
        assert what.startswith("its header says val2014, expected train2014")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (TRAIN, b"", "empty"),
        (TRAIN, b'{"questions": [{"question_id": 1', "not valid JSON"),
        (TRAIN, b'{"annotations": []}', "not a file of questions"),
        (TRAIN_ANSWERS, b'{"annotations": [{"question_id": "x"}]}', "record 0"),
        (TRAIN_ANSWERS, b"[" * 100_000, "not "),
        (VAL_ANSWERS, b"<html>sign in</html>", "a web page"),
    ],
)
def test_files_that_cannot_be_read(raw: Path, name: str, data: bytes, message: str) -> None:
    (raw / "vqa/raw" / name).write_bytes(data)
    ((file, what),) = told(verify_raw(raw, "vqa"), "error")
    assert file == name
    assert message in what
    assert str(raw) not in what


def test_an_older_issue_is_named(raw: Path) -> None:
    def edit(value: Any) -> None:
        value["info"]["date_created"] = "2017-03-01 10:00:00"

    ((file, what),) = change(raw, TRAIN, edit)
    assert (file, what) == (
        TRAIN,
        "of 2017-03-01: the files were corrected on 2017-04-26; fetch them again",
    )


@pytest.mark.parametrize("info", [None, 3, "x", [], {"date_created": 5}, {"date_created": "May"}])
def test_an_info_of_another_form_is_no_fault(raw: Path, info: object) -> None:
    for name in (TRAIN, TRAIN_ANSWERS):
        assert change(raw, name, lambda value: value.update(info=info)) == []


def test_a_missing_header_is_a_fact(raw: Path) -> None:
    ((_, what),) = change(raw, TRAIN, lambda value: value.pop("data_subtype"))
    assert what == "has no header that names its split"


def test_ids_that_break_the_rule_of_images(raw: Path) -> None:
    def edit(value: Any) -> None:
        value["questions"][3]["question_id"] = 5
        value["questions"][9]["question_id"] = 6

    rule, *join = change(raw, TRAIN, edit)
    assert rule[1].startswith("2 of 402 questions (first: 5) (0.5%) have an id that is not")
    assert [what.split(") ")[1].split(":")[0] for _, what in join] == [
        "have no annotation",
        "are annotated but not asked",
    ]


def test_progress_reaches_its_end(raw: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    verify_raw(raw, "vqa", progress=lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2]


def test_the_published_answer_dictionary_is_known(raw: Path) -> None:
    shutil.copy(SAMPLE.parent / "answers/answer_dict.json", raw / "vqa/raw")
    findings = [one for one in verify_raw(raw, "vqa") if one.file.endswith("answer_dict.json")]
    assert [(one.status, one.what) for one in findings] == [
        ("ok", "answers of train+val, as many as published"),
        ("ok", "109,890 bytes, sha256 as published"),
    ]


def test_kinds_that_are_only_counted(raw: Path) -> None:
    (raw / "vg").mkdir()
    (raw / "vg/image_data.json").write_text(json.dumps([{"image_id": 1}]))
    (raw / "vg/question_answers.json").write_text(json.dumps([{"id": 1, "qas": []}]))
    (raw / "vqa/raw/v2_mscoco_train2014_complementary_pairs.json").write_text("{}")
    said = dict(told(verify_raw(raw, "vqa"), "warning", "error"))
    assert said["image_data.json"] == "1 genome, the published file has 108,077: a part of it"
    pairs = said["v2_mscoco_train2014_complementary_pairs.json"]
    assert "not a file of pairs" in pairs
    assert "question_answers.json" not in said


JSON_PIECES = [
    b"null", b"-1", b"1e400", b"9" * 25, b'"', b"[", b"]", b"{}", b"\xff", b"\0", b'"\\ud800"',
    b"true", b'"7"', b'"image_id":', b'"answer_id":"', b"[[[[[[[[",
]  # fmt: skip


@functools.cache
def small_sample(name: str) -> bytes:
    """The first five records of a sample file."""
    value = json.loads((SAMPLE / name).read_text())
    key = "questions" if "questions" in value else "annotations"
    value[key] = value[key][:5]
    return json.dumps(value).encode()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_findings_never_crashes(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        name = data.draw(st.sampled_from([VAL, VAL_ANSWERS]))
        value = bytearray(small_sample(name))
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(value) - 1))
            length = data.draw(st.integers(0, 12))
            value[place : place + length] = data.draw(
                st.one_of(st.binary(max_size=12), st.sampled_from(JSON_PIECES))
            )
        for other in (VAL, VAL_ANSWERS):
            (raw / other).write_bytes(bytes(value) if other == name else small_sample(other))
        findings = verify_raw(raw, "vqa", ["val"])
        assert {one.status for one in findings} <= {"ok", "absent", "info", "warning", "error"}
        assert all("\n" not in one.what for one in findings)
