"""Word pieces and LXMERT's labels in verify, convert and repair."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lxmert_stores import LXMERT_ORDER, copied
from raw_data import tree

from trar.features import FeatureStore, verify_store
from trar.features.containers import open_backend
from trar.features.convert import convert_store
from trar.features.writer import StoreWriter
from trar.pipeline.repair import RepairConfig, RepairResult, repair


def rewrite(store: Path, name: str, column: str, value: float) -> None:
    """Put another value into a table and seal the store again, as a faulty program would."""
    opened = FeatureStore(store)
    meta = opened.meta
    stored = open_backend(opened.path, meta.container).read_table(name)
    columns = {key: np.array(one) for key, one in stored.items()}
    columns[column][2] = value
    with StoreWriter(opened.path, meta.container) as writer:
        writer.keep({one: entry for one, entry in meta.files.items() if f"/{name}" not in one})
        writer.write_table(name, columns)
        writer.finish(meta, {})


@pytest.mark.parametrize(
    ("name", "column", "value", "says"),
    [
        ("tokens/wordpiece/val", "ids", 7, "not the word pieces of these questions"),
        ("tokens/wordpiece/val", "ids", 10**6, "token ids outside the vocabulary"),
        ("targets/lxmert/val", "label", 5, "not the labels of these answers"),
        ("targets/lxmert/val", "label", 3129, "labels outside the answer dictionary"),
        ("targets/lxmert/val", "score", 0.5, "not the labels of these answers"),
    ],
)
def test_verify_finds_a_changed_token_or_label(
    at_once: Path, tmp_path: Path, name: str, column: str, value: float, says: str
) -> None:
    store = copied(at_once, tmp_path)
    rewrite(store, name, column, value)
    problems = verify_store(store)
    assert any(says in one.what and name in one.where for one in problems), problems
    assert {name in one.where for one in problems} == {True}


def test_a_flipped_bit_is_found_in_each_of_their_files(zarr_store: Path, tmp_path: Path) -> None:
    store = copied(zarr_store, tmp_path)
    own = [one for one in tree(store) if "wordpiece" in one or "lxmert" in one]
    assert len(own) > 20
    for name in own:
        path = store / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    found = {one.where for one in verify_store(store)}
    assert {name.removeprefix("vqa/") for name in own} <= found


def test_convert_carries_them_there_and_back(zarr_store: Path, tmp_path: Path) -> None:
    convert_store(zarr_store, tmp_path / "h", "hdf5")
    there = FeatureStore(tmp_path / "h").using("wordpiece", "lxmert")
    here = FeatureStore(zarr_store).using("wordpiece", "lxmert")
    assert np.array_equal(there.tokens("val").ids, here.tokens("val").ids)
    assert np.array_equal(there.targets("val").label, here.targets("val").label)
    assert verify_store(tmp_path / "h") == []
    convert_store(tmp_path / "h", tmp_path / "z", "zarr")
    skip = ("prepare-log.json", "store.json")
    assert tree(tmp_path / "z", skip) == tree(zarr_store, skip)


def mend(store: Path, raw: Path, **settings: object) -> RepairResult:
    config = RepairConfig(raw=raw, workers=0, **settings)  # type: ignore[arg-type]
    return repair(store / "vqa", config)


def test_repair_makes_them_anew_to_the_byte(
    at_once: Path, vqa_raw: Path, vocab: Path, tmp_path: Path
) -> None:
    store = copied(at_once, tmp_path)
    whole = tree(store)
    own = [one for one in whole if "wordpiece" in one or "lxmert" in one]
    for name in own:
        (store / name).write_bytes(whole[name][: len(whole[name]) // 2])
    renamed = tmp_path / "bert.txt"
    shutil.copy(vocab, renamed)
    result = mend(store, vqa_raw, wordpiece_vocab=renamed, answers=LXMERT_ORDER)
    assert result.problems == {}
    assert len(result.repaired) == len(own)
    assert tree(store) == whole


def test_repair_asks_for_the_files_that_they_are_from_and_mends_the_rest(
    at_once: Path, vqa_raw: Path, tmp_path: Path
) -> None:
    store = copied(at_once, tmp_path)
    (store / "vqa/vocabulary-wordpiece.json").unlink()
    (store / "vqa/answers-lxmert.json").unlink()
    tables = [one for one in tree(store) if "/val" in one and "questions" in one]
    for name in tables:
        (store / name).unlink()
    result = mend(store, vqa_raw)
    assert (
        "made from vocab.txt: give that with --wordpiece-vocab"
        in (result.problems["vocabulary-wordpiece.json"])
    )
    assert (
        "trainval_label2ans.json: give that with --answers"
        in (result.problems["answers-lxmert.json"])
    )
    assert {name.removeprefix("vqa/") for name in tables} <= {*result.repaired}
