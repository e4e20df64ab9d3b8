"""CLEVR, tables and Visual Genome, from raw files through prepare into a store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from raw_data import image_ids, write_features

from trar.errors import ConfigError, RawDataError
from trar.features import FeatureStore, verify_store
from trar.features.answers import normalize_answer
from trar.pipeline import PrepareConfig, prepare
from trar.pipeline.deep_verify import compare_with_raw

DATA = Path(__file__).parents[1] / "data"
WIDTH = 8


def clevr_features(split: str, index: int) -> np.ndarray:
    seed = {"train": 0, "val": 1000, "test": 2000}[split] + index
    return np.random.default_rng(seed).random((196, WIDTH), np.float32) + 0.1


@pytest.fixture
def clevr(tmp_path: Path) -> Path:
    """TRAR's tree with nine real CLEVR v1.0 questions as val, the first of them as train, and
    test questions without answers. Indices restart in every split."""
    folder = tmp_path / "data/clevr/raw/questions"
    folder.mkdir(parents=True)
    real = json.loads((DATA / "kexinyi-ns-vqa/orig-val.json").read_text())
    for split, rows in (("train", 6), ("val", 9), ("test", 4)):
        value = {"info": {**real["info"], "split": split}, "questions": []}
        for row in real["questions"][:rows]:
            kept = {**row, "split": split}
            if split == "test":
                kept = {key: one for key, one in kept.items() if key not in ("answer", "program")}
            value["questions"].append(kept)
        (folder / f"CLEVR_{split}_questions.json").write_text(json.dumps(value))
        images = {row["image_index"] for row in value["questions"]}
        features = tmp_path / f"data/clevr/feats/{split}"
        features.mkdir(parents=True)
        for index in range(max(images) + 1):
            np.savez(features / f"{index}.npz", x=np.asfortranarray(clevr_features(split, index)))
    return tmp_path / "data"


def test_clevr_splits_do_not_share_images(clevr: Path) -> None:
    result = prepare(
        PrepareConfig(
            dataset="clevr", raw=clevr, store=clevr / "s", split="train+val+test", workers=0
        )
    )
    assert result.made == ["train", "val", "test"]
    assert verify_store(clevr / "s") == []
    store = FeatureStore(clevr / "s")
    assert store.meta.feature.grid == (14, 14)
    for split in ("train", "val", "test"):
        table = store.questions(split)
        features = store.read(split, table.image_row).features
        for row, image in enumerate(table.image_row.tolist()):
            expected = clevr_features(split, image).astype(np.float16)
            np.testing.assert_array_equal(features[row], expected)


def test_clevr_functions_answers_and_longest_question(clevr: Path) -> None:
    prepare(PrepareConfig(dataset="clevr", raw=clevr, store=clevr / "s", workers=0))
    store = FeatureStore(clevr / "s")
    real = json.loads((DATA / "kexinyi-ns-vqa/orig-val.json").read_text())["questions"]
    table = store.questions("val")
    functions = [table.type_names[number] for number in table.type.tolist()]
    assert functions == [one["program"][-1]["function"] for one in real]
    answers = list(dict.fromkeys(one["answer"] for one in [*real[:6], *real]))
    assert list(store.answers.answers) == answers
    targets = store.targets("val")
    assert [answers[label] for label in targets.label] == [one["answer"] for one in real]
    assert set(targets.score.tolist()) == {1.0}
    assert store.meta.answer_schemes["openvqa"].rule == "exact"
    longest = max(len(one["question"].replace(";", "").split()) for one in real)
    assert store.meta.longest_question == longest


def test_clevr_hdf5_features_per_split(clevr: Path) -> None:
    shutil.rmtree(clevr / "clevr/feats")
    for split in ("train", "val"):
        with h5py.File(clevr / f"clevr/{split}_features.h5", "w") as file:
            maps = np.stack([clevr_features(split, index).T for index in range(1)])
            file["features"] = maps.reshape(1, WIDTH, 14, 14)
    prepare(PrepareConfig(dataset="clevr", raw=clevr, store=clevr / "s", workers=0))
    store = FeatureStore(clevr / "s")
    expected = clevr_features("val", 0).astype(np.float16)
    np.testing.assert_array_equal(store.read("val", [0]).features[0], expected)


def test_deep_verification_reads_the_raw_images_again(clevr: Path) -> None:
    config = PrepareConfig(dataset="clevr", raw=clevr, store=clevr / "s", workers=0)
    prepare(config)
    store = FeatureStore(clevr / "s")
    result = compare_with_raw(store, config)
    assert (result.compared, result.problems) == (2, [])
    changed = clevr_features("val", 0)
    changed[7, 3] += 0.25
    np.savez(clevr / "clevr/feats/val/0.npz", x=changed)
    (problem,) = compare_with_raw(store, config).problems
    assert problem.where == "val, image 0"
    assert "differs from" in problem.what
    assert "0.npz by up to 0.25" in problem.what
    (clevr / "clevr/feats/val/0.npz").rename(clevr / "clevr/feats/val/5.npz")
    (gone,) = compare_with_raw(store, config).problems
    assert gone.what == "its raw file is gone"


def write_table(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(["cat.jpg", "dog.jpg", "sub/owl.png"]):
        path = folder / "features" / Path(image).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((64, WIDTH), number + 1, np.float32))
    (folder / name).write_text(text)
    return folder


def test_table_with_names_for_images(tmp_path: Path) -> None:
    raw = write_table(
        tmp_path / "mine",
        "questions.csv",
        "image,question,answer,split\n"
        "dog.jpg,What is it?,dog,train\n"
        'cat.jpg,"Is it big, or small?",None,train\n'
        "sub/owl.png,What is it?,owl,val\n",
    )
    prepare(PrepareConfig(dataset="table", raw=raw, store=tmp_path / "s", workers=0))
    assert verify_store(tmp_path / "s") == []
    store = FeatureStore(tmp_path / "s")
    assert store.meta.answer_schemes["openvqa"].rule == "exact"
    assert list(store.answers.answers) == ["dog", "None", "owl"]
    assert list(store.image_names("images")) == ["cat.jpg", "dog.jpg", "sub/owl.png"]
    assert store.read("images", store.questions("val").image_row).features[0, 0, 0] == 3.0
    table = store.questions("train")
    assert store.read("images", table.image_row).features[:, 0, 0].tolist() == [2.0, 1.0]
    assert table.texts[1] == "Is it big, or small?"


def test_table_with_ten_answers_follows_the_rule_of_vqa(tmp_path: Path) -> None:
    rows = [
        {"image": "cat.jpg", "question": "What?", "answers": ["cat"] * 7 + ["a cat", "dog", "dog"]},
        {"image": "dog.jpg", "question": "What?", "answers": ["dog"] * 10},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    raw = write_table(tmp_path / "mine", "train.jsonl", text)
    prepare(PrepareConfig(dataset="table", raw=raw, store=tmp_path / "s", workers=0))
    store = FeatureStore(tmp_path / "s")
    assert store.meta.answer_schemes["openvqa"].rule == "vqa"
    targets = store.targets("train")
    found = [store.answers.answers[label] for label in targets.label]
    assert found == ["cat", "dog", "dog"]
    assert targets.score.tolist() == pytest.approx([1.0, 0.6, 1.0])


def test_raw_visual_genome_is_brought_to_coco(vqa_raw: Path, tmp_path: Path) -> None:
    """One answer kept by the dictionary, one outside it, one image that is not COCO's."""
    raw = tmp_path / "data"
    shutil.copytree(vqa_raw, raw)
    answer = next(
        one["multiple_choice_answer"]
        for one in json.loads((raw / "vqa/raw/v2_mscoco_val2014_annotations.json").read_text())[
            "annotations"
        ]
        if one["answer_type"] == "other"
    )
    coco = image_ids("val2014")[4]
    qas = [
        {"id": 1, "qas": [
            {"qa_id": 986769, "image_id": 1, "question": "What is there?",
             "answer": f"{answer.capitalize()}."},
            {"qa_id": 986768, "image_id": 1, "question": "Who?", "answer": "Zyxwv."}]},
        {"id": 2, "qas": [
            {"qa_id": 986770, "image_id": 2, "question": "Where?", "answer": f"{answer}."}]},
    ]  # fmt: skip
    images = [{"image_id": 1, "coco_id": coco}, {"image_id": 2, "coco_id": None}]
    (raw / "vqa/raw/question_answers.json").write_text(json.dumps(qas))
    (raw / "vqa/raw/image_data.json").write_text(json.dumps(images))
    config = PrepareConfig(
        raw=raw, store=tmp_path / "s", split="train+val+vg", workers=0, shard_images=20
    )
    published = config.model_copy(update={"answers": DATA / "answers/answer_dict.json"})
    expected = 0.3
    for weight in ("as_counted", "one"):
        store_root = tmp_path / weight
        update = {"store": store_root, "vg_answer_weight": weight}
        result = prepare(published.model_copy(update=update))
        store = FeatureStore(store_root)
        table = store.questions("vg")
        assert table.ids.tolist() == [986769]
        assert store.meta.question_splits["vg"].source == "vg"
        split = store.meta.question_splits["vg"].image_splits[table.image_split[0]]
        assert store.image_ids(split)[table.image_row[0]] == coco
        targets = store.targets("vg")
        assert store.answers.answers[targets.label[0]] == normalize_answer(answer)
        assert targets.score[0] == pytest.approx(expected)
        assert any("their targets are 0.3" in one for one in result.warnings) == (expected == 0.3)
        assert verify_store(store_root) == []
        expected = 1.0
    with pytest.raises(Exception, match="another --vg-answer-weight then"):
        prepare(published.model_copy(update={"store": tmp_path / "one"}))


def test_options_of_other_datasets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="easy-vqa has its own files"):
        prepare(PrepareConfig(dataset="easy-vqa", raw=tmp_path, features=tmp_path))
    with pytest.raises(ConfigError, match="a table is one file"):
        prepare(PrepareConfig(dataset="table", raw=tmp_path, questions=(tmp_path, tmp_path)))
    with pytest.raises(RawDataError, match="no such file"):
        prepare(PrepareConfig(raw=tmp_path, questions=(tmp_path / "none.json",)))


def test_two_files_of_one_kind_are_refused(vqa_raw: Path, tmp_path: Path) -> None:
    source = vqa_raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json"
    shutil.copy(source, tmp_path / "a.json")
    shutil.copy(source, tmp_path / "b.json")
    given = (tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(RawDataError, match="both hold the questions of split val; give one"):
        prepare(PrepareConfig(raw=tmp_path, questions=given))
    (tmp_path / "c.json").write_text('{"questions": [{"question_id": 1}]}')
    with pytest.raises(RawDataError, match=r"which split is it of\?"):
        prepare(PrepareConfig(raw=tmp_path, questions=(tmp_path / "c.json",)))
    write_features(tmp_path, "val2014", 1, 2)
    with pytest.raises(RawDataError, match=r"not a question file|neither|\.npy"):
        prepare(PrepareConfig(raw=tmp_path, questions=(tmp_path / "1.npy",)))
