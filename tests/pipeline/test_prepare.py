"""Raw files to store, on real questions: what is stored, and what every interruption leaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from disk import fill
from raw_data import edit_json, grid_features, image_ids, tree

from trar.errors import ConfigError, DiskError, RawDataError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.answers import normalize_answer
from trar.features.text import tokenize
from trar.pipeline import PrepareConfig, prepare


def config(raw: Path, store: Path, **changes) -> PrepareConfig:
    settings = {"raw": raw, "store": store, "shard_images": 20, "workers": 0, **changes}
    return PrepareConfig(**settings)


@pytest.fixture
def raw(vqa_raw: Path, tmp_path: Path) -> Path:
    """Raw files that the test may change."""
    shutil.copytree(vqa_raw, tmp_path / "data")
    return tmp_path / "data"


def annotations(raw: Path, image_split: str) -> list[dict]:
    path = raw / f"vqa/raw/v2_mscoco_{image_split}_annotations.json"
    return json.loads(path.read_text())["annotations"]


def test_features_of_every_form_are_stored_alike(vqa_store: Path) -> None:
    store = FeatureStore(vqa_store)
    for image_split in ("train2014", "val2014"):
        ids = store.image_ids(image_split).tolist()
        assert ids == image_ids(image_split)
        features = store.read(image_split, range(len(ids))).features
        expected = np.stack([grid_features(one) for one in ids]).astype(np.float16)
        np.testing.assert_array_equal(features, expected)


def test_vocabulary_is_first_seen_over_train_then_val(vqa_raw: Path, vqa_store: Path) -> None:
    seen: dict[str, None] = {}
    for image_split in ("train2014", "val2014"):
        path = vqa_raw / f"vqa/raw/v2_OpenEnded_mscoco_{image_split}_questions.json"
        for question in json.loads(path.read_text())["questions"]:
            seen.update(dict.fromkeys(tokenize(question["question"])))
    store = FeatureStore(vqa_store)
    assert list(store.vocabulary.tokens) == ["PAD", "UNK", "CLS", *seen]
    tokens, texts = store.tokens("val"), store.questions("val").texts
    for row in range(len(texts)):
        ids = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        assert store.vocabulary.decode(ids) == tokenize(texts[row])


def test_targets_are_the_rule_of_the_originals(vqa_raw: Path, vqa_store: Path) -> None:
    """Written out anew: counts of normalised answers, .3 .6 .9 1, dictionary answers only."""
    both = annotations(vqa_raw, "train2014") + annotations(vqa_raw, "val2014")
    counts = Counter(normalize_answer(one["multiple_choice_answer"]) for one in both)
    kept = [answer for answer in dict.fromkeys(counts) if counts[answer] >= 9]
    store = FeatureStore(vqa_store)
    assert list(store.answers.answers) == kept
    soft = {1: 0.3, 2: 0.6, 3: 0.9}
    for split, image_split in (("train", "train2014"), ("val", "val2014")):
        of = {one["question_id"]: one for one in annotations(vqa_raw, image_split)}
        targets, ids = store.targets(split), store.questions(split).ids.tolist()
        for row, question_id in enumerate(ids):
            given = Counter(normalize_answer(a["answer"]) for a in of[question_id]["answers"])
            expected = {kept.index(a): soft.get(n, 1.0) for a, n in given.items() if a in kept}
            part = slice(targets.offsets[row], targets.offsets[row + 1])
            found = dict(zip(targets.label[part].tolist(), targets.score[part], strict=True))
            assert found == pytest.approx(expected)
    raw_answers = store.answers_of("val")
    first = annotations(vqa_raw, "val2014")[0]
    row = store.questions("val").ids.tolist().index(first["question_id"])
    assert raw_answers.lists()[row] == [answer["answer"] for answer in first["answers"]]
    assert raw_answers.majority[row] == first["multiple_choice_answer"]


def test_published_dictionary_is_taken_as_it_is(vqa_raw: Path, tmp_path: Path) -> None:
    published = Path(__file__).parents[1] / "data/answers/answer_dict.json"
    prepare(config(vqa_raw, tmp_path / "s", split="val", answers=published))
    store = FeatureStore(tmp_path / "s")
    assert len(store.answers) == 3129
    assert json.loads((tmp_path / "s/vqa/answers-openvqa.json").read_text()) == json.loads(
        published.read_text()
    )
    assert verify_store(tmp_path / "s") == []


def test_frozen_dictionary_is_not_replaced(vqa_raw: Path, vqa_store: Path, tmp_path: Path) -> None:
    published = Path(__file__).parents[1] / "data/answers/answer_dict.json"
    shutil.copytree(vqa_store, tmp_path / "s")
    with pytest.raises(StoreError, match=r"answer dictionary \(\d+ answers\) is frozen"):
        prepare(config(vqa_raw, tmp_path / "s", answers=published))


def test_workers_and_order_of_splits_give_the_same_bytes(
    vqa_raw: Path, vqa_store: Path, tmp_path: Path
) -> None:
    prepare(config(vqa_raw, tmp_path / "workers", workers=2))
    assert tree(tmp_path / "workers") == tree(vqa_store)
    prepare(config(vqa_raw, tmp_path / "parts", split="train"))
    before = tree(tmp_path / "parts")
    result = prepare(config(vqa_raw, tmp_path / "parts", split="train+val"))
    assert (result.made, result.kept) == (["val"], ["train"])
    assert tree(tmp_path / "parts") == tree(vqa_store)
    assert before.items() - tree(tmp_path / "parts").items() == {
        ("vqa/store.json", before["vqa/store.json"])
    }


def test_workers_start_beside_another_dask_cluster(vqa_raw: Path, tmp_path: Path) -> None:
    """Its dashboard holds port 8787; ours must neither want it nor be open to the network."""
    with contextlib.closing(socket.socket()) as other:
        with contextlib.suppress(OSError):  # somebody else has it: just as good
            other.bind(("0.0.0.0", 8787))
            other.listen()
        prepare(config(vqa_raw, tmp_path / "s", split="val", workers=2))
    assert verify_store(tmp_path / "s") == []


def test_second_run_does_nothing(vqa_raw: Path, tmp_path: Path) -> None:
    prepare(config(vqa_raw, tmp_path / "s", split="val"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}
    assert prepare(config(vqa_raw, tmp_path / "s", split="val")).made == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")} == before


def test_limit_takes_the_first_images_and_their_questions(vqa_raw: Path, tmp_path: Path) -> None:
    prepare(config(vqa_raw, tmp_path / "s", limit=7))
    store = FeatureStore(tmp_path / "s")
    assert store.image_ids("val2014").tolist() == image_ids("val2014")[:7]
    assert set(store.questions("val").image_row.tolist()) == set(range(7))
    assert len(store.vocabulary) == len(FeatureStore(tmp_path / "s").vocabulary)
    with pytest.raises(StoreError, match=r"made with other options \(--limit 7 then, None now\)"):
        prepare(config(vqa_raw, tmp_path / "s"))


def test_visual_genome_questions_reach_both_image_splits(raw: Path, tmp_path: Path) -> None:
    """An id equal to a VQA id stays another question: identity is (source, id)."""
    clash = annotations(raw, "train2014")[0]["question_id"]
    images = [image_ids("train2014")[3], image_ids("val2014")[5]]
    entries = [
        {"question_id": clash + n, "image_id": image, "question": f"What is thing {n}?"}
        for n, image in enumerate(images)
    ]
    answers = [
        {"question_id": one["question_id"], "image_id": one["image_id"],
         "answers": [{"answer": "A zebra."}]}
        for one in entries
    ]  # fmt: skip
    (raw / "vqa/raw/VG_questions.json").write_text(json.dumps({"questions": entries}))
    (raw / "vqa/raw/VG_annotations.json").write_text(json.dumps({"annotations": answers}))
    result = prepare(config(raw, tmp_path / "s", split="train+val+vg"))
    assert any("vg: questions with only 1 answers" in line for line in result.warnings)
    store = FeatureStore(tmp_path / "s")
    table = store.questions("vg")
    assert table.image_split.tolist() == [0, 1]
    assert table.image_row.tolist() == [3, 5]
    assert list(table.texts) == ["What is thing 0?", "What is thing 1?"]
    assert store.questions("train").texts[0] != table.texts[0]
    assert "thing" in store.vocabulary.tokens
    assert verify_store(tmp_path / "s") == []


def test_vocabulary_stays_frozen_when_a_split_is_added(raw: Path, tmp_path: Path) -> None:
    questions = raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json"
    hidden = questions.read_bytes()
    questions.unlink()
    result = prepare(config(raw, tmp_path / "s", split="train"))
    assert any("made without the questions of val, test, vg" in line for line in result.warnings)
    frozen = FeatureStore(tmp_path / "s").vocabulary.digest
    questions.write_bytes(hidden)
    result = prepare(config(raw, tmp_path / "s", split="val"))
    store = FeatureStore(tmp_path / "s")
    assert store.vocabulary.digest == frozen
    assert store.meta.question_splits["val"].unknown_tokens > 0
    assert any("are not in the vocabulary" in line for line in result.warnings)


PREPARE = """
import sys
from pathlib import Path
from trar.pipeline import PrepareConfig, prepare
prepare(PrepareConfig(raw=Path(sys.argv[1]), store=Path(sys.argv[2]), shard_images=20, workers=0))
"""


def start_prepare(raw: Path, store: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(raw), str(store)], stderr=subprocess.DEVNULL
    )


def test_killed_prepare_is_no_store_and_goes_on(
    vqa_raw: Path, vqa_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    shards = store / "vqa/arrays.zarr/images/train2014/features/c"
    process = start_prepare(vqa_raw, store)
    while len(list(shards.glob("*/0/0"))) < 2:  # a moment in the middle of the features
        assert process.poll() is None, "prepare ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (store / "vqa/store.json").exists()
    with pytest.raises(StoreError, match="unfinished store"):
        FeatureStore(store)
    finished = {path: path.stat().st_mtime_ns for path in shards.glob("*/0/0")}
    receipts = len(list((store / "vqa/.prepare").glob("train2014-*.json")))
    prepare(config(vqa_raw, store))
    assert tree(store) == tree(vqa_store)
    kept = sum(path.stat().st_mtime_ns == moment for path, moment in finished.items())
    assert kept >= receipts >= 1


def test_second_prepare_on_the_same_store_is_refused(vqa_raw: Path, tmp_path: Path) -> None:
    from trar.features.writer import StoreWriter

    refused = pytest.raises(StoreError, match="another trar-data is writing this dataset")
    with StoreWriter(tmp_path / "s/vqa"), refused:
        prepare(config(vqa_raw, tmp_path / "s"))
    prepare(config(vqa_raw, tmp_path / "s", split="val", limit=3))


def change_feature(raw: Path, change) -> Path:
    folder = raw / "vqa/feats/train2014"
    path = sorted(folder.glob("*.npy"))[2]
    change(path)
    return path


def save(array):
    return lambda path: np.save(path, array)


def nan_grid() -> np.ndarray:
    values = grid_features(1)
    values[20, 3] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (save(np.zeros((256, 12), np.float32)), r"shape \(256, 12\), expected .*16x16 grid"),
        (save(np.zeros((64, 13), np.float32)), r"13 channels a cell, expected 12"),
        (save(nan_grid()), r"1 of 768 values are NaN or infinite"),
        (save(np.full((64, 12), 1e9, np.float32)), r"largest value 1e\+09, float16 holds at most"),
        (save(np.zeros((64, 12), np.int32)), r"dtype int32, expected float16"),
        (save(np.array([{}] * 64, object)), r"an object array; loading it would run code"),
        (lambda path: path.write_bytes(b""), r"an empty file, expected features as"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"the file holds"),
        (lambda path: path.write_bytes(b"junk" * 99), r"text that begins 'junkjunk"),
    ],
)
def test_bad_feature_file_is_named_and_leaves_no_store(
    raw: Path, tmp_path: Path, change, message: str
) -> None:
    path = change_feature(raw, change)
    with pytest.raises(RawDataError, match=message) as error:
        prepare(config(raw, tmp_path / "s"))
    assert str(path) in str(error.value)
    assert not (tmp_path / "s/vqa/store.json").exists()
    assert not list((tmp_path / "s").rglob("*.partial"))


def test_error_of_a_worker_process_arrives_whole(raw: Path, tmp_path: Path) -> None:
    path = change_feature(raw, save(nan_grid()))
    with pytest.raises(RawDataError, match="1 of 768 values are NaN or infinite") as error:
        prepare(config(raw, tmp_path / "s", workers=2))
    assert str(path) in str(error.value)
    assert not (tmp_path / "s/vqa/store.json").exists()


@pytest.mark.parametrize(
    "changes", [{"dtype": "float32"}, {"limit": 30}, {"shard_images": 7}, {"split": "train"}]
)
def test_other_options_after_a_stop_remake_what_does_not_fit(
    raw: Path, tmp_path: Path, changes: dict
) -> None:
    bad = raw / "vqa/feats/train2014" / f"{image_ids('train2014')[55]}.npy"
    for path in bad.parent.glob(f"*{image_ids('train2014')[55]:012}*"):
        path.unlink()
    (bad.parent / f"{image_ids('train2014')[55]}.npz").unlink(missing_ok=True)
    np.save(bad, nan_grid())
    with pytest.raises(RawDataError, match="NaN"):
        prepare(config(raw, tmp_path / "s"))
    assert len(list((tmp_path / "s/vqa/.prepare").glob("*.json"))) == 2
    np.save(bad, grid_features(image_ids("train2014")[55]))
    prepare(config(raw, tmp_path / "s", **changes))
    prepare(config(raw, tmp_path / "new", **changes))
    assert tree(tmp_path / "s") == tree(tmp_path / "new")
    assert verify_store(tmp_path / "s") == []


def test_failure_before_the_first_shard_leaves_nothing(raw: Path, tmp_path: Path) -> None:
    change_feature(raw, save(nan_grid()))
    for store in (tmp_path / "s", tmp_path / "mine"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        with pytest.raises(RawDataError, match="NaN"):
            prepare(config(raw, store, shard_images=None))
    assert not (tmp_path / "s").exists()
    assert list((tmp_path / "mine").iterdir()) == []


def questions_file(raw: Path, image_split: str = "train2014") -> Path:
    return raw / f"vqa/raw/v2_OpenEnded_mscoco_{image_split}_questions.json"


def annotations_file(raw: Path) -> Path:
    return raw / "vqa/raw/v2_mscoco_train2014_annotations.json"


BAD_RAW = {
    "missing questions": (
        lambda raw: questions_file(raw).unlink(),
        r"no questions file for split 'train': expected one of .*v2_Questions_Train_mscoco.zip",
    ),
    "missing annotations": (
        lambda raw: annotations_file(raw).unlink(),
        r"no annotations file for split 'train'",
    ),
    "empty": (lambda raw: questions_file(raw).write_text(""), r"an empty file"),
    "cut": (
        lambda raw: questions_file(raw).write_bytes(questions_file(raw).read_bytes()[:999]),
        r"not valid JSON .*cut short or damaged",
    ),
    "not utf-8": (
        lambda raw: questions_file(raw).write_bytes(b'{"questions": "\xff\xfe"}'),
        r"not valid JSON|not a file of questions",
    ),
    "another kind": (
        lambda raw: shutil.copy(annotations_file(raw), questions_file(raw)),
        r"not a file of questions \(.*\); its keys are annotations",
    ),
    "a list": (
        lambda raw: questions_file(raw).write_text("[]"),
        r"not a file of questions .*it holds a list",
    ),
    "another split": (
        lambda raw: shutil.copy(questions_file(raw, "val2014"), questions_file(raw)),
        r"its header says val2014, expected train2014",
    ),
    "repeated question": (
        lambda raw: edit_json(
            questions_file(raw), lambda value: value["questions"].append(value["questions"][0])
        ),
        r"question id \d+ occurs twice",
    ),
    "bad record": (
        lambda raw: edit_json(
            questions_file(raw), lambda value: value["questions"][4].update(image_id="x")
        ),
        r"record 4: Expected `int`, got `str` - at `\$.image_id`",
    ),
    "annotation lost": (
        lambda raw: edit_json(annotations_file(raw), lambda value: value["annotations"].pop(3)),
        r"do not belong together: 1 questions without annotation, 0 annotations",
    ),
    "annotation of another image": (
        lambda raw: edit_json(
            annotations_file(raw), lambda value: value["annotations"][3].update(image_id=1)
        ),
        r"is about image 1, .* says image",
    ),
    "no answers": (
        lambda raw: edit_json(
            annotations_file(raw), lambda value: value["annotations"][3].update(answers=[])
        ),
        r"has an empty list of answers",
    ),
    "feature missing": (
        lambda raw: sorted((raw / "vqa/feats/train2014").iterdir())[5].unlink(),
        r"questions of split 'train' have no image: features of 1 images are missing",
    ),
    "feature folder missing": (
        lambda raw: shutil.rmtree(raw / "vqa/feats/train2014"),
        r"no image features of train2014: expected one of",
    ),
    "feature folder of something else": (
        lambda raw: [
            path.rename(path.with_suffix(".txt"))
            for path in (raw / "vqa/feats/train2014").iterdir()
        ],
        r"no feature files; expected .npy, .npz or .pth .*found \d+ .txt",
    ),
    "two files of an image": (
        lambda raw: np.savez(
            raw / f"vqa/feats/train2014/{image_ids('train2014')[0]:09}.npz", x=grid_features(1)
        ),
        r"two files for image \d+",
    ),
    "file of another split": (
        lambda raw: np.save(
            raw / "vqa/feats/train2014/COCO_val2014_000000000001.npy", grid_features(1)
        ),
        r"a file of val2014 in the folder of train2014",
    ),
}


@pytest.mark.parametrize("case", BAD_RAW)
def test_bad_raw_file_is_named_before_anything_is_written(
    raw: Path, tmp_path: Path, case: str
) -> None:
    damage, message = BAD_RAW[case]
    damage(raw)
    with pytest.raises(RawDataError, match=message):
        prepare(config(raw, tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_options_that_do_not_fit(vqa_raw: Path, vqa_store: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"split": "train+dev"}, r"'dev' is no split of this dataset; it has train, val, test, vg"),
        ({"split": "train+train"}, r"a split is named twice"),
        ({"feature_dim": 2048}, r"--feature-dim 2048: .* has 12 channels"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(config(vqa_raw, tmp_path / "s", **changes))
    with pytest.raises(RawDataError, match=r"for a 16x16 grid"):
        prepare(config(vqa_raw, tmp_path / "s", grid=16))
    with pytest.raises(RawDataError, match=r"no such file; --answers takes"):
        prepare(config(vqa_raw, tmp_path / "s", answers=tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text('[{"yes": 0}, {"0": "no"}]')
    with pytest.raises(RawDataError, match=r"bad.json"):
        prepare(config(vqa_raw, tmp_path / "s", answers=tmp_path / "bad.json"))
    shutil.copytree(vqa_store, tmp_path / "old")
    message = r"holds 8x8 cells x 12, float16, this prepare would add .* float32"
    with pytest.raises(StoreError, match=message):
        prepare(config(vqa_raw, tmp_path / "old", split="val", dtype="float32"))


def test_too_small_disk_is_refused_before_the_first_byte(vqa_raw: Path, small_disk: Path) -> None:
    ballast = fill(small_disk)
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - 200_000)
    with pytest.raises(DiskError, match=r"this store needs [\d.]+ MiB, [\d.]+ KiB are free"):
        prepare(config(vqa_raw, small_disk / "s"))
    assert not (small_disk / "s").exists()


def test_disk_that_fills_midway_keeps_finished_shards(
    vqa_raw: Path, vqa_store: Path, small_disk: Path
) -> None:
    def fill_at_image_50(stage: str, done: int, total: int) -> None:
        if done == 50:
            fill(small_disk)

    with pytest.raises(DiskError, match=r"No space left on device; free some space"):
        prepare(config(vqa_raw, small_disk / "s"), fill_at_image_50)
    (small_disk / "ballast").unlink()
    store = small_disk / "s/vqa"
    assert not (store / "store.json").exists()
    assert not list(store.rglob("*.partial"))
    shards = store / "arrays.zarr/images/train2014/features/c"
    finished = {path: path.stat().st_mtime_ns for path in shards.glob("*/0/0")}
    assert len(finished) == 2
    prepare(config(vqa_raw, small_disk / "s"))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert tree(small_disk / "s") == tree(vqa_store)


def test_read_only_disk(vqa_raw: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DiskError, match="Read-only file system; that file system is mounted"):
        prepare(config(vqa_raw, small_disk / "s"))


def test_store_path_that_is_a_file(vqa_raw: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(DiskError, match="a part of that path is a file"):
        prepare(config(vqa_raw, tmp_path / "s"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(vqa_raw: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o500)
    with pytest.raises(DiskError, match="Permission denied; the user running this command"):
        prepare(config(vqa_raw, tmp_path / "s"))
