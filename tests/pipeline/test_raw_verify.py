"""Raw files against the manifest: each fault is named, and a part of a dataset is no fault."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from raw_data import SAMPLE, edit_json

from trar.errors import ConfigError, RawDataError
from trar.pipeline.manifest import Archive, DatasetFiles, RawFile, load_manifest
from trar.pipeline.raw_records import Records, index_remarks, join_remarks
from trar.pipeline.raw_verify import RawFinding, verify_raw

TRAIN = "v2_OpenEnded_mscoco_train2014_questions.json"
VAL = "v2_OpenEnded_mscoco_val2014_questions.json"
TRAIN_ANSWERS = "v2_mscoco_train2014_annotations.json"
VAL_ANSWERS = "v2_mscoco_val2014_annotations.json"
TEN = [{"answer": "yes", "answer_id": one} for one in range(1, 11)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Real VQA v2.0 questions and annotations of train and val, a part of each."""
    folder = tmp_path / "vqa/raw"
    folder.mkdir(parents=True)
    for path in SAMPLE.glob("*.json"):
        shutil.copy(path, folder)
    return tmp_path


def told(findings: list[RawFinding], *statuses: str) -> list[tuple[str, str]]:
    """(file name, text) of the findings of these statuses; a path's last part is its name."""
    wanted = statuses or ("info", "warning", "error")
    return [(Path(one.file).name, one.what) for one in findings if one.status in wanted]


def change(raw: Path, name: str, edit: Callable[[Any], object]) -> list[tuple[str, str]]:
    """What is said after an edit that was not said before it."""
    before = told(verify_raw(raw, "vqa"))
    edit_json(raw / "vqa/raw" / name, edit)
    return [one for one in told(verify_raw(raw, "vqa")) if one not in before]


def everything(image_split: str) -> NDArray[np.int64]:
    """Features of every image that the sample asks about."""
    name = TRAIN if image_split == "train2014" else VAL
    questions = json.loads((SAMPLE / name).read_text())["questions"]
    return np.array([one["image_id"] for one in questions], np.int64)


# ---- VQA v2.0


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


def test_progress_reaches_its_end(raw: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    verify_raw(raw, "vqa", progress=lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2]


# ---- archives


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def judge(folder: Path, found: bytes, **facts: Any) -> RawFinding:
    """What is said of an archive, given what is published of it."""
    (folder / "a.zip").write_bytes(found)
    known = {"urls": [], "bytes": None, "sha256": [], **facts}
    archive = Archive(name=facts.pop("name", "a.zip"), **known)
    file = RawFile("train", "pairs", ["pairs.json"], None, archive)
    dataset = DatasetFiles("d", "CC0", "https://example.org", ["."], [file])
    (finding,) = verify_raw(folder, "vqa", files=dataset)
    return finding


def test_archives_are_judged_by_size_and_digest(tmp_path: Path) -> None:
    data = zipped("pairs.json", np.random.default_rng(0).bytes(5000))
    digest = hashlib.sha256(data).hexdigest()
    facts = {"bytes": len(data), "sha256": [digest]}
    good = judge(tmp_path, data, **facts)
    assert (good.status, good.what) == ("ok", f"{len(data):,} bytes, sha256 as published")
    unknown = judge(tmp_path, data)
    assert (unknown.status, unknown.what) == (
        "ok",
        f"{len(data):,} bytes; neither size nor digest are published",
    )
    again = judge(tmp_path, zipped("other.json", b"{}"), **facts)
    assert again.status == "warning"
    assert again.what.startswith(f"wrong size: 122 bytes, expected {len(data):,}")
    assert again.what.endswith("in itself it is sound: made anew by a mirror?")
    same_size = judge(tmp_path, data, bytes=len(data), sha256=["0" * 64])
    assert same_size.status == "warning"
    assert same_size.what.startswith(f"wrong digest: sha256 {digest}, expected {'0' * 64}")
    cut = judge(tmp_path, data[:3000], **facts)
    assert cut.status == "error"
    assert cut.what.startswith(f"a truncated zip: 3,000 of {len(data):,} bytes")
    assert judge(tmp_path, data[:3000]).what.startswith("a truncated zip: 3,000 bytes")
    flipped = bytearray(data)
    flipped[2500] ^= 1
    for published in (facts, {}):
        damaged = judge(tmp_path, bytes(flipped), **published)
        assert damaged.status == "error"
        assert "member pairs.json is damaged" in damaged.what


def test_an_archive_that_nobody_unpacked(tmp_path: Path) -> None:
    name = "v2_Questions_Val_mscoco.zip"
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa" / name).write_bytes(zipped(VAL, b"{}"))
    findings = verify_raw(tmp_path, "vqa", ["val"])
    absent = dict(told(findings, "absent"))
    assert absent[VAL].startswith("not unpacked; its archive is ")
    assert absent[VAL].endswith(f"{name}: `trar-data fetch` unpacks it")
    assert absent[VAL_ANSWERS] == "not here: the val annotations"
    ((file, what),) = told(findings, "warning")
    assert file == name
    assert "expected 3,494,929" in what


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


# ---- LXMERT


def write_labels(raw: Path, name: str, ids: list[int], label: bool = True) -> None:
    rows = [
        {
            "question_id": one,
            "img_id": f"COCO_val2014_{one // 1000:012}",
            "sent": "What?",
            **({"label": {"yes": 1.0}} if label else {}),
        }
        for one in ids
    ]
    (raw / "vqa/lxmert").mkdir(exist_ok=True, parents=True)
    (raw / "vqa/lxmert" / name).write_text(json.dumps(rows))


def test_the_halves_of_val_belong_together(tmp_path: Path) -> None:
    write_labels(tmp_path, "minival.json", [9001, 9002])
    write_labels(tmp_path, "nominival.json", [9002, 25001])
    texts = [what for _, what in told(verify_raw(tmp_path, "vqa"), "warning")]
    assert "1 questions are in both (first: 9002): a leak" in texts
    assert "4 questions together, val2014 has 214,354: a part of it" in texts


def test_labels_are_looked_at(tmp_path: Path) -> None:
    write_labels(tmp_path, "minival.json", [9001, 5], label=False)
    said = [what for _, what in told(verify_raw(tmp_path, "vqa"))]
    assert "its questions have no labels: the test file?" in said


# ---- CLEVR


def write_clevr(
    raw: Path, split: str, images: list[int], *, answer: bool = True, header: str | None = None
) -> None:
    rows = [
        {
            "image_index": image,
            "image_filename": f"CLEVR_{split}_{image:06}.png",
            "split": split,
            "question_index": number,
            "question": "Are there any things?",
            **({"answer": "yes"} if answer else {}),
        }
        for number, image in enumerate(images)
    ]
    folder = raw / "clevr/raw/questions"
    folder.mkdir(parents=True, exist_ok=True)
    value = {"info": {"split": header or split, "version": "1.0"}, "questions": rows}
    (folder / f"CLEVR_{split}_questions.json").write_text(json.dumps(value))


def test_clevr_indices_run_from_zero(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0, 0, 1, 2, 4])
    texts = [what for _, what in told(verify_raw(tmp_path, "clevr", ["val"]), "warning")]
    assert texts == [
        "5 questions, the published file has 149,991: a part of it",
        "4 images, published are 15,000",
        "their indices do not run from 0 without a gap: 3 is the first one missing",
    ]


def test_clevr_of_another_split(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0], header="train")
    ((_, what),) = told(verify_raw(tmp_path, "clevr", ["val"]), "error")
    assert "its header says split 'train', expected 'val'" in what


def test_clevr_answers_where_they_belong(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0], answer=False)
    write_clevr(tmp_path, "test", [0], answer=True)
    findings = verify_raw(tmp_path, "clevr", ["val", "test"])
    assert told(findings, "error") == [
        (
            "CLEVR_val_questions.json",
            "its questions have no answers: a test file under this name?",
        )
    ]
    assert ("CLEVR_test_questions.json", "has answers, which the published test file has not") in (
        told(findings, "info")
    )
    write_clevr(tmp_path, "test", [0], answer=False)
    assert not told(verify_raw(tmp_path, "clevr", ["test"]), "info", "error")


def test_clevr_images_that_are_missing_from_their_folder(tmp_path: Path) -> None:
    write_clevr(tmp_path, "val", [0])
    folder = tmp_path / "clevr/raw/images/val"
    folder.mkdir(parents=True)
    for name in ("CLEVR_val_000000", "CLEVR_val_000002", "CLEVR_train_000001"):
        (folder / f"{name}.png").touch()
    (folder / "notes.txt").touch()
    texts = [what for name, what in told(verify_raw(tmp_path, "clevr", ["val"])) if name == "val"]
    assert texts == [
        "2 images, published are 15,000",
        "their indices do not run from 0 without a gap: 1 is the first one missing",
        "1 files are images of another split",
    ]


def test_clevr_features_are_of_their_split(tmp_path: Path) -> None:
    write_clevr(tmp_path, "train", [0, 1])
    write_clevr(tmp_path, "val", [0])

    def ids(image_split: str) -> NDArray[np.int64]:
        return np.array([0], np.int64)

    ((file, what),) = told(verify_raw(tmp_path, "clevr", image_ids=ids), "error")
    assert file == "train questions and features of train"
    assert "1 questions are about 1 images that have no features (first: 1)" in what


def test_clevr_scenes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "CLEVR_val_scenes.json").write_text(json.dumps({"scenes": [{}] * 15_000}))
    findings = verify_raw(tmp_path, "clevr", ["val"])
    assert ("CLEVR_val_scenes.json", "scenes of val, as many as published") in told(findings, "ok")


# ---- the other datasets


def test_easy_vqa_questions_are_counted(tmp_path: Path) -> None:
    (tmp_path / "easy-vqa/train").mkdir(parents=True)
    rows = [["is it red?", "no", 0]] * 38_575
    (tmp_path / "easy-vqa/train/questions.json").write_text(json.dumps(rows))
    findings = verify_raw(tmp_path, "easy-vqa")
    assert told(findings, "ok") == [("questions.json", "questions of train, as many as published")]


def test_refcoco_and_glove_are_found(tmp_path: Path) -> None:
    (tmp_path / "refcoco/refcoco").mkdir(parents=True)
    (tmp_path / "refcoco/refcoco/refs(unc).p").write_bytes(b"pickle")
    ((name, what),) = told(verify_raw(tmp_path, "refcoco"), "ok")
    assert (name, what) == ("refs(unc).p", "6 bytes; its contents are not judged here")
    (tmp_path / "glove.840B.300d.txt").write_text("the 0.1")
    assert [name for name, _ in told(verify_raw(tmp_path, "glove"), "ok")] == [
        "glove.840B.300d.txt"
    ]


@pytest.mark.parametrize("dataset", list(load_manifest().datasets))
def test_an_empty_folder_is_absent_not_wrong(tmp_path: Path, dataset: str) -> None:
    findings = verify_raw(tmp_path, dataset)
    assert {one.status for one in findings} <= {"absent"}
    with pytest.raises(RawDataError, match="nowhere: no such folder; point --raw at"):
        verify_raw(tmp_path / "nowhere", dataset)


# ---- properties

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
