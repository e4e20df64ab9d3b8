"""--tokenizer wordpiece and --targets lxmert: beside openvqa's, at once or later to the same bytes;
checked, shown, converted and repaired like them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lxmert_stores import LXMERT_ORDER, copied, run, with_both
from raw_data import edit_json, image_ids, tree
from raw_forms import folder_of_npz

from trar.cli import data
from trar.features import FeatureStore, verify_store
from trar.features.answers import normalize_answer
from trar.features.reader import SCHEME, TOKENIZER


def test_every_question_has_its_pieces_and_the_labels_of_lxmert(at_once: Path) -> None:
    store = FeatureStore(at_once)
    assert list(store.meta.vocabularies) == ["openvqa", "wordpiece"]
    assert list(store.meta.answer_schemes) == ["openvqa", "lxmert"]
    lxmert = store.using("wordpiece", "lxmert")
    order = json.loads(LXMERT_ORDER.read_text())
    assert list(lxmert.answers.answers) == order
    assert store.answers.answers != lxmert.answers.answers
    raw_labels = 0
    for split in ("train", "val"):
        tokens, texts = lxmert.tokens(split), store.questions(split).texts
        assert len(tokens.offsets) == len(texts) + 1
        for row, text in enumerate(texts):
            words = lxmert.vocabulary.decode(tokens.ids[slice(*tokens.offsets[row : row + 2])])
            assert (words[0], words[-1]) == ("[CLS]", "[SEP]")
            spelled = "".join(words[1:-1]).replace("##", "")
            if "[UNK]" not in spelled:
                assert spelled == "".join(text.lower().split())
        targets, annotated = lxmert.targets(split), store.answers_of(split).lists()
        for row, answers in enumerate(annotated):
            part = slice(*targets.offsets[row : row + 2])
            found = zip(targets.label[part].tolist(), targets.score[part].tolist(), strict=True)
            expected = {
                order.index(one): (0, 0.3, 0.6, 0.9, 1)[min(4, answers.count(one))]
                for one in answers
                if one in order
            }
            assert dict(found) == pytest.approx(expected)
            normal = [order.index(one) for one in map(normalize_answer, answers) if one in order]
            raw_labels += {*normal} != expected.keys()
    assert raw_labels > 0  # else nothing tells the two rules apart
    assert store.tokens("train").ids.max() < len(store.vocabulary)
    assert verify_store(at_once) == []


def test_a_second_prepare_makes_the_same_bytes(
    vqa_raw: Path, vocab: Path, zarr_store: Path, tmp_path: Path
) -> None:
    run(vqa_raw, tmp_path / "s", **with_both(vocab))
    assert tree(tmp_path / "s") == tree(zarr_store)


def test_added_later_they_are_the_same_bytes_and_no_image_is_read(
    vqa_raw: Path, vocab: Path, at_once: Path, tmp_path: Path
) -> None:
    container = FeatureStore(at_once).meta.container
    store = tmp_path / "later"
    run(vqa_raw, store, format=container)
    paths = [path for path in store.glob("vqa/**/images/**/*") if path.is_file()]
    moments = {path: path.stat().st_mtime_ns for path in paths}
    assert len(moments) > 4
    before = tree(store)
    raw = tmp_path / "raw"
    shutil.copytree(vqa_raw, raw, copy_function=shutil.copy2)
    for path in raw.glob("vqa/feats/val2014/*"):  # unreadable, of the same size and time
        moment = path.stat()
        path.write_bytes(b"?" * moment.st_size)
        os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    added = run(raw, store, split="train", tokenizer="wordpiece", wordpiece_vocab=vocab)
    assert (added.added, added.made, added.remade) == (["wordpiece"], [], [])
    assert FeatureStore(store).using("wordpiece", SCHEME).tokens("val").ids.any()
    assert verify_store(store) == []
    added = run(raw, store, targets="lxmert", answers=LXMERT_ORDER)
    assert added.added == ["targets lxmert"]
    after = tree(store)
    assert after == tree(at_once)
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {"vqa/store.json", "vqa/vqa.h5"}
    assert {path: path.stat().st_mtime_ns for path in moments} == moments


def test_a_split_added_later_gets_all_that_the_store_has(
    vqa_raw: Path, vocab: Path, zarr_store: Path, tmp_path: Path
) -> None:
    gone = copied(vocab.parent, tmp_path) / "vocab.txt"
    run(vqa_raw, tmp_path / "f", split="train", **with_both(gone))
    gone.unlink()
    assert run(vqa_raw, tmp_path / "f", split="train+val").made == ["val"]
    assert tree(tmp_path / "f") == tree(zarr_store)


def test_a_complete_store_is_left_alone(
    vqa_raw: Path, vocab: Path, zarr_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # not needed where nothing is cut
    moments = {path: path.stat().st_mtime_ns for path in zarr_store.rglob("*")}
    for settings in (with_both(vocab), {"tokenizer": "wordpiece"}, {"targets": "lxmert"}, {}):
        result = run(vqa_raw, zarr_store, **settings)
        assert (result.made, result.added, result.kept) == ([], [], ["train", "val"])
    assert {path: path.stat().st_mtime_ns for path in zarr_store.rglob("*")} == moments


def test_the_list_in_the_tree_of_lxmert_is_found(
    vqa_raw: Path, zarr_store: Path, vocab: Path, tmp_path: Path
) -> None:
    raw = copied(vqa_raw, tmp_path)
    shutil.copy(LXMERT_ORDER, raw / "vqa" / LXMERT_ORDER.name)
    settings = {**with_both(vocab), "answers": None}
    assert not any("order" in one for one in run(raw, tmp_path / "f", **settings).warnings)
    assert tree(tmp_path / "f") == tree(zarr_store)


def test_without_a_list_the_answers_are_counted_and_the_order_is_warned_of(
    vqa_raw: Path, plain: Path, tmp_path: Path
) -> None:
    store = copied(plain, tmp_path)
    (warning,) = run(vqa_raw, store, targets="lxmert").warnings
    assert "trainval_label2ans.json" in warning
    opened = FeatureStore(store)
    assert opened.using(TOKENIZER, "lxmert").answers == opened.answers
    assert opened.meta.answer_schemes["lxmert"].rule == "raw"
    assert opened.meta.answer_schemes["lxmert"].made_from == ["train", "val"]
    assert verify_store(store) == []


def test_the_list_of_the_pre_training_is_read_in_its_order(
    vqa_raw: Path, plain: Path, tmp_path: Path
) -> None:
    store, path = copied(plain, tmp_path), tmp_path / "all_ans.json"
    path.write_text(json.dumps([{"ans": one, "dsets": ["vqa"]} for one in ("no", "blue", "yes")]))
    run(vqa_raw, store, targets="lxmert", answers=path)
    assert FeatureStore(store).using(TOKENIZER, "lxmert").answers.answers == ("no", "blue", "yes")


def test_answers_that_state_their_scores_keep_them(tmp_path: Path) -> None:
    """LXMERT's own question files: the labels are given, only their order is the list's."""
    raw, ids = tmp_path / "raw", image_ids("val2014")[:4]
    folder_of_npz(raw / "coco_extract/val2014", "val2014", ids)
    (raw / "vqa").mkdir()
    shutil.copy(LXMERT_ORDER, raw / "vqa")
    label = {"net": 1, "pitcher": 0.3, "no such answer": 0.9}
    records = [
        {
            "answer_type": "other",
            "img_id": f"COCO_val2014_{image:012}",
            "label": label,
            "question_id": image * 1000 + number,
            "question_type": "what",
            "sent": "What is it?",
        }
        for image in ids
        for number in range(3)
    ]
    for split in ("nominival", "minival"):
        (raw / f"vqa/{split}.json").write_text(json.dumps(records))
    run(raw, tmp_path / "s", split="minival", targets="lxmert")
    store = FeatureStore(tmp_path / "s").using(TOKENIZER, "lxmert")
    targets, answers = store.targets("minival"), store.answers.answers
    assert [answers[one] for one in targets.label[:2]] == ["net", "pitcher"]
    assert targets.score[:2].tolist() == pytest.approx([1, 0.3])
    assert store.meta.answer_schemes["lxmert"].rule == "labels"
    assert verify_store(tmp_path / "s") == []


def test_they_are_added_while_changed_raw_files_are_made_anew(
    vqa_raw: Path, plain: Path, vocab: Path, tmp_path: Path
) -> None:
    raw, store = tmp_path / "raw", copied(plain, tmp_path)
    shutil.copytree(vqa_raw, raw, copy_function=shutil.copy2)

    def ask(questions: dict[str, list[dict[str, str]]]) -> None:
        questions["questions"][0]["question"] = "What is a zebra?"

    edit_json(raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json", ask)
    result = run(raw, store, tokenizer="wordpiece", wordpiece_vocab=vocab)
    assert (result.remade, result.added) == (["val"], ["wordpiece"])
    opened = FeatureStore(store).using("wordpiece", SCHEME)
    tokens = opened.tokens("val")
    words = opened.vocabulary.decode(tokens.ids[: tokens.offsets[1]])
    assert words == ["[CLS]", "what", "is", "a", "[UNK]", "?", "[SEP]"]
    assert verify_store(store) == []


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(one) for one in arguments])


def test_the_commands_add_and_show_them(
    vqa_raw: Path, plain: Path, vocab: Path, tmp_path: Path
) -> None:
    store = copied(plain, tmp_path)
    wanted = ["prepare", "--raw", vqa_raw, "--store", store, "--shard-images", 20, "--limit", 30]
    wanted += ["--tokenizer", "wordpiece", "--wordpiece-vocab", vocab]
    wanted += ["--targets", "lxmert", "--answers", LXMERT_ORDER]
    before = tree(store)
    said = " ".join(invoke(*wanted, "--dry-run").output.split())
    assert "added to every split wordpiece, targets lxmert" in said
    assert tree(store) == before
    added = invoke(*wanted)
    assert added.exit_code == 0, added.output
    assert "added to every split: wordpiece, targets lxmert" in added.output
    assert "already complete, nothing to do" in invoke(*wanted).output
    assert invoke("verify", store).exit_code == 0
    told = " ".join(invoke("info", store).output.split())
    assert "word pieces of vocab.txt" in told
    assert "answers counted as they stand" in told
    question = FeatureStore(store).questions("val").ids[0]
    shown = invoke("show", f"val/{question}", "--store", store).output
    assert "[CLS](3)" in shown
    assert "targets lxmert" in shown
    plain = json.loads(invoke("show", f"val/{question}", "--store", store, "--json").output)
    assert plain["more_tokens"]["wordpiece"][0] == {"id": 3, "word": "[CLS]"}
    assert plain["more_targets"]["lxmert"][0].keys() == {"answer", "score"}
