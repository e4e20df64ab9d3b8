"""Raw files to store, on real questions: what is stored, and what a second prepare adds."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from raw_data import grid_features, image_ids, prepare_config, tree

from trar.errors import StoreError
from trar.features import FeatureStore, verify_store
from trar.features.answers import normalize_answer
from trar.features.text import tokenize
from trar.pipeline import prepare


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
    prepare(prepare_config(vqa_raw, tmp_path / "s", split="val", answers=published))
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
        prepare(prepare_config(vqa_raw, tmp_path / "s", answers=published))


def test_workers_and_order_of_splits_give_the_same_bytes(
    vqa_raw: Path, vqa_store: Path, tmp_path: Path
) -> None:
    prepare(prepare_config(vqa_raw, tmp_path / "workers", workers=2))
    assert tree(tmp_path / "workers") == tree(vqa_store)
    prepare(prepare_config(vqa_raw, tmp_path / "parts", split="train"))
    before = tree(tmp_path / "parts")
    result = prepare(prepare_config(vqa_raw, tmp_path / "parts", split="train+val"))
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
        prepare(prepare_config(vqa_raw, tmp_path / "s", split="val", workers=2))
    assert verify_store(tmp_path / "s") == []


def test_second_run_does_nothing(vqa_raw: Path, tmp_path: Path) -> None:
    prepare(prepare_config(vqa_raw, tmp_path / "s", split="val"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}
    assert prepare(prepare_config(vqa_raw, tmp_path / "s", split="val")).made == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")} == before


def test_limit_takes_the_first_images_and_their_questions(vqa_raw: Path, tmp_path: Path) -> None:
    prepare(prepare_config(vqa_raw, tmp_path / "s", limit=7))
    store = FeatureStore(tmp_path / "s")
    assert store.image_ids("val2014").tolist() == image_ids("val2014")[:7]
    assert set(store.questions("val").image_row.tolist()) == set(range(7))
    assert len(store.vocabulary) == len(FeatureStore(tmp_path / "s").vocabulary)
    with pytest.raises(StoreError, match=r"made with other options \(--limit 7 then, None now\)"):
        prepare(prepare_config(vqa_raw, tmp_path / "s"))


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
    result = prepare(prepare_config(raw, tmp_path / "s", split="train+val+vg"))
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
    result = prepare(prepare_config(raw, tmp_path / "s", split="train"))
    assert any("made without the questions of val, test, vg" in line for line in result.warnings)
    frozen = FeatureStore(tmp_path / "s").vocabulary.digest
    questions.write_bytes(hidden)
    result = prepare(prepare_config(raw, tmp_path / "s", split="val"))
    store = FeatureStore(tmp_path / "s")
    assert store.vocabulary.digest == frozen
    assert store.meta.question_splits["val"].unknown_tokens > 0
    assert any("are not in the vocabulary" in line for line in result.warnings)
