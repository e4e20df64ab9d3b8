"""Reading a store: the right numbers, or an error that names the place."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from raw_data import grid_features
from stores import StorePlan, make_store

from trar.errors import StoreError
from trar.features import FeatureStore
from trar.fileio import sha256_json


@pytest.fixture
def store(vqa_store: Path, tmp_path: Path) -> Path:
    """A store that the test may damage."""
    shutil.copytree(vqa_store, tmp_path / "features")
    return tmp_path / "features"


def expected(store: FeatureStore, split: str, rows: list[int]) -> np.ndarray:
    ids = store.image_ids(split)[rows]
    return np.stack([grid_features(int(one)) for one in ids]).astype(np.float16)


def test_reads_rows_in_the_order_asked(vqa_store: Path) -> None:
    store = FeatureStore(vqa_store)
    rows = [7, 0, 7, 30]
    features, lengths = store.read("train2014", rows)
    np.testing.assert_array_equal(features, expected(store, "train2014", rows))
    assert lengths.tolist() == [64] * 4
    assert features.dtype == np.float16


def test_reads_into_a_given_buffer(vqa_store: Path) -> None:
    store = FeatureStore(vqa_store)
    out = np.full((5, 64, 12), 9, np.float16)
    batch = store.read("val2014", [2, 1], out=out)
    assert np.shares_memory(batch.features, out)
    np.testing.assert_array_equal(out[:2], expected(store, "val2014", [2, 1]))
    assert (out[2:] == 9).all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 64, 12), np.float16),
        np.zeros((2, 64, 12), np.float32),
        np.zeros((2, 64, 13), np.float16),
        np.zeros((2, 64, 24), np.float16)[:, :, ::2],
    ],
)
def test_buffer_that_does_not_fit(vqa_store: Path, out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="out is"):
        FeatureStore(vqa_store).read("val2014", [2, 1], out=out)


def test_no_rows_is_an_empty_batch(vqa_store: Path) -> None:
    assert FeatureStore(vqa_store).read("val2014", []).features.shape == (0, 64, 12)


def test_row_outside_the_split(vqa_store: Path) -> None:
    with pytest.raises(StoreError, match=r"rows -1\.\.-1 asked of image split train2014"):
        FeatureStore(vqa_store).read("train2014", [-1])


def test_unknown_splits_are_named_with_those_there(vqa_store: Path) -> None:
    store = FeatureStore(vqa_store)
    with pytest.raises(StoreError, match="no image split 'test2015'; it has train2014, val2014"):
        store.read("test2015", [0])
    with pytest.raises(StoreError, match="no question split 'test'; it has train, val"):
        store.questions("test")


def test_a_store_without_any_answers_says_how_to_have_some(tmp_path: Path) -> None:
    plan = StorePlan(images={"test": 2}, question_splits={"test": "test"})
    store = make_store(tmp_path / "tiny", plan)
    way = r"add one with answers \(trar-data prepare --split train\), or let a model answer them"
    with pytest.raises(StoreError, match=f"split 'test' have no answers; {way}"):
        store.answers_of("test")


def test_cells_are_the_rows_that_hold_features(vqa_store: Path) -> None:
    cells = FeatureStore(vqa_store).cells("train2014")
    assert not cells[:, :16].any()
    assert cells[:, 16:].all()


def test_questions_point_at_their_image(vqa_store: Path) -> None:
    store = FeatureStore(vqa_store)
    table = store.questions("val")
    ids = store.image_ids("val2014")[table.image_row]
    assert (table.ids // 1000 == ids).all()  # a fact of VQA-v2's own ids
    assert table.texts[0].endswith("?")


def test_pickled_and_dataset_folder_and_threads_read_the_same(vqa_store: Path) -> None:
    store = FeatureStore(vqa_store)
    first = store.read("train2014", [3]).features
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read("train2014", [3]).features, first)
    np.testing.assert_array_equal(
        FeatureStore(vqa_store / "vqa").read("train2014", [3]).features, first
    )
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(store.read("val2014", range(20)).features))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected(store, "val2014", list(range(20))))


def _sum(store: FeatureStore) -> float:
    return float(store.read("train2014", range(10)).features.astype(np.float64).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_the_same(vqa_store: Path, method: str) -> None:
    store = FeatureStore(vqa_store)
    here = _sum(store)  # the parent reads first, so its open files cross the fork
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_sum, (store,)) == here


def shard_of(store: Path, number: int = 0) -> Path:
    return store / f"vqa/arrays.zarr/images/train2014/features/c/{number}/0/0"


def test_flipped_byte_names_shard_and_image(store: Path) -> None:
    opened = FeatureStore(store)
    data = bytearray(shard_of(store).read_bytes())
    data[2 * 1600 + 100] ^= 4  # 64 x 12 x 2 + 4, rounded up to a multiple of 64
    shard_of(store).write_bytes(data)
    image = opened.image_ids("train2014")[2]
    with pytest.raises(StoreError, match=rf"c/0/0/0: image {image} \(row 2 of train2014\)"):
        opened.read("train2014", [0, 1, 2])
    opened.read("train2014", [0, 1, 3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"c/1/0/0: missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"c/1/0/0: \d+ bytes, expected"),
    ],
)
def test_missing_or_cut_shard_refuses_to_open(store: Path, damage, message: str) -> None:
    damage(shard_of(store, 1))
    with pytest.raises(StoreError, match=message):
        FeatureStore(store)


def test_shard_that_vanishes_while_open(store: Path) -> None:
    opened = FeatureStore(store)
    shard = shard_of(store, 1)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"is cut short: 100 of 1540 bytes"):
        opened.read("train2014", [opened.meta.image_splits["train2014"].shard_images])


def test_no_store_and_unfinished_store(tmp_path: Path, store: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        FeatureStore(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"no feature store \(store.json is missing\)"):
        FeatureStore(tmp_path)
    (store / "vqa/store.json").unlink()
    (store / "vqa/.prepare").mkdir()
    with pytest.raises(StoreError, match=r"unfinished store .* run the same prepare command"):
        FeatureStore(store)


def test_several_datasets_need_a_choice(store: Path) -> None:
    shutil.copytree(store / "vqa", store / "other")
    with pytest.raises(StoreError, match=r"several datasets \(other, vqa\)"):
        FeatureStore(store)
    assert FeatureStore(store, dataset="vqa").dataset == "vqa"
    with pytest.raises(StoreError, match="no dataset 'clevr' in this store; it has other, vqa"):
        FeatureStore(store, dataset="clevr")


def rewrite_meta(store: Path, change) -> None:
    path = store / "vqa/store.json"
    meta = json.loads(path.read_text())
    meta.pop("sha256")
    change(meta)
    path.write_text(json.dumps({"sha256": sha256_json(meta), **meta}))


def test_another_format_version(store: Path) -> None:
    rewrite_meta(store, lambda meta: meta.update(format_version=2))
    with pytest.raises(StoreError, match="store format 2, this version of trar reads format 1"):
        FeatureStore(store)


def test_edited_or_cut_description(store: Path) -> None:
    path = store / "vqa/store.json"
    text = path.read_text()
    path.write_text(text.replace('"images": ', '"images": 1', 1))
    with pytest.raises(StoreError, match="do not match its own sha256"):
        FeatureStore(store)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(StoreError, match="not readable as a store description"):
        FeatureStore(store)
    path.write_text(text)
    rewrite_meta(store, lambda meta: meta.update(container="tar"))
    with pytest.raises(StoreError, match=r"Invalid enum value 'tar' - at `\$.container`"):
        FeatureStore(store)


def test_vocabulary_of_another_store(store: Path) -> None:
    path = store / "vqa/vocabulary-openvqa.json"
    size = path.stat().st_size
    path.write_text("[" + " " * (size - 2) + "]")
    opened = FeatureStore(store)
    with pytest.raises(StoreError, match="vocabulary"):
        _ = opened.vocabulary
