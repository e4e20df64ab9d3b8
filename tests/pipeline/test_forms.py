"""Every form of features, through prepare into a store: the same values as the raw files."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_data import SAMPLE, image_ids
from raw_forms import (
    FIXED,
    WIDTH,
    adaptive_hdf5,
    boxes,
    fixed_hdf5,
    folder_of_npz,
    grid_map,
    region_count,
    region_tsv,
    regions,
    size,
    tar_of,
    zip_of,
)

from trar.errors import ConfigError, RawDataError, StoreError
from trar.features import FeatureStore, verify_store
from trar.pipeline import PrepareConfig, prepare
from trar.pipeline.readers.grid_map import pool_map

IDS = image_ids("val2014")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """RWSAN's tree without features: datasets/vqa."""
    folder = tmp_path / "datasets/vqa"
    folder.mkdir(parents=True)
    for path in SAMPLE.glob("*val2014*.json"):
        shutil.copy(path, folder / path.name)
    return tmp_path / "datasets"


def store_of(raw: Path, **changes) -> FeatureStore:
    settings = {"split": "val", "workers": 0, "shard_images": 30, **changes}
    prepare(PrepareConfig(raw=raw, store=raw / "store", **settings))
    assert verify_store(raw / "store") == []
    return FeatureStore(raw / "store")


def check_regions(store: FeatureStore, count, *, sized: bool = True) -> None:
    assert store.image_ids("val2014").tolist() == IDS
    batch = store.read("val2014", range(len(IDS)))
    held = store.boxes("val2014", range(len(IDS)))
    for row, image_id in enumerate(IDS):
        n = count(image_id)
        assert batch.lengths[row] == n
        expected = regions(image_id, n).astype(np.float16)
        np.testing.assert_array_equal(batch.features[row, :n], expected)
        np.testing.assert_array_equal(held[row, :n], boxes(image_id, n))
    if sized:
        assert store.sizes("val2014").tolist() == [list(size(one)) for one in IDS]


def fixed(_: int) -> int:
    return FIXED


@pytest.mark.parametrize(("transposed", "key"), [(True, "bbox"), (False, "boxes")])
def test_fixed_regions_in_both_orientations(raw: Path, transposed: bool, key: str) -> None:
    folder_of_npz(raw / "coco_extract/val2014", "val2014", IDS, transposed=transposed, key=key)
    store = store_of(raw)
    spec = store.meta.feature
    assert (spec.rows, spec.width, spec.grid, spec.ragged) == (FIXED, WIDTH, None, False)
    check_regions(store, fixed)


def test_adaptive_regions_are_ragged(raw: Path) -> None:
    folder_of_npz(raw / "coco_extract/val2014", "val2014", IDS, region_count)
    store = store_of(raw, shard_images=1)
    spec = store.meta.feature
    assert (spec.rows, spec.ragged) == (max(map(region_count, IDS)), True)
    check_regions(store, region_count)
    workers = raw / "workers"
    prepare(PrepareConfig(raw=raw, store=workers, split="val", workers=2, shard_images=1))
    assert FeatureStore(workers).meta.fingerprint == store.meta.fingerprint


@pytest.mark.parametrize("form", ["tar.gz", "tar", "zip stored", "zip deflated"])
def test_archives_are_read_where_they_lie(raw: Path, tmp_path: Path, form: str) -> None:
    folder = folder_of_npz(tmp_path / "val2014", "val2014", IDS)
    (raw / "coco_extract").mkdir()
    if form.startswith("tar"):
        mode = "w:gz" if form == "tar.gz" else "w"
        tar_of(folder, raw / f"coco_extract/val2014.{form}", mode)
    else:
        method = zipfile.ZIP_STORED if form == "zip stored" else zipfile.ZIP_DEFLATED
        zip_of(folder, raw / "coco_extract/val2014.zip", method)
    check_regions(store_of(raw, workers=2, shard_images=30), fixed)
    assert not list(raw.glob("coco_extract/val2014/*"))


@pytest.mark.parametrize("zipped", [False, True])
def test_lxmert_tsv(raw: Path, zipped: bool) -> None:
    path = region_tsv(raw / "mscoco_imgfeat/val2014_obj36.tsv", "val2014", IDS)
    if zipped:
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, f"mscoco_imgfeat/{path.name}")
        path.unlink()
    check_regions(store_of(raw), fixed)


def test_bottom_up_hdf5(raw: Path, tmp_path: Path) -> None:
    store = store_of(raw, features=fixed_hdf5(tmp_path / "val36.hdf5", IDS))
    check_regions(store, fixed)


def test_adaptive_hdf5(raw: Path) -> None:
    (raw / "features").mkdir()
    adaptive_hdf5(raw / "features/val.hdf5", IDS)
    check_regions(store_of(raw), region_count, sized=False)


@pytest.mark.parametrize(("side", "keep_portrait"), [(8, False), (16, False), (8, True)])
def test_detector_maps_become_trar_grids(raw: Path, side: int, keep_portrait: bool) -> None:
    folder = raw / "features/val2014"
    folder.mkdir(parents=True)
    for image_id in IDS:
        torch.save(torch.from_numpy(grid_map(image_id)), folder / f"{image_id}.pth")
    grid = None if side == 8 else side
    store = store_of(raw, grid=grid, keep_portrait=keep_portrait)
    assert store.meta.feature.grid == (side, side)
    features = store.read("val2014", range(len(IDS))).features
    for row, image_id in enumerate(IDS):
        expected = pool_map(grid_map(image_id), side, "a", keep_portrait=keep_portrait)
        np.testing.assert_array_equal(features[row], expected.astype(np.float16))
    share = store.cells("val2014").mean()
    assert share == pytest.approx(42 / 64 if side == 8 else 130 / 256)


@pytest.mark.parametrize("side", [8, 16])
def test_trar_npy_of_either_size_is_recognised(raw: Path, side: int) -> None:
    """2048 channels say which axis is which; nothing is ever cut to 64 rows."""
    folder = raw / "feats/val2014"
    folder.mkdir(parents=True)
    for image_id in IDS[:3]:
        values = np.full((side * side, 2048), image_id % 7 + 0.5, np.float16)
        np.save(folder / f"COCO_val2014_{image_id:012}.jpg.npy", values)
    store = store_of(raw, limit=3)
    assert store.meta.feature.grid == (side, side)
    found = store.read("val2014", [0, 1, 2]).features[:, -1, -1].tolist()
    assert found == [image_id % 7 + 0.5 for image_id in IDS[:3]]


def test_features_and_questions_given_one_by_one(raw: Path, tmp_path: Path) -> None:
    """Names do not matter: files are known by what they hold."""
    folder = folder_of_npz(tmp_path / "anywhere", "val2014", IDS)
    folder_of_npz(folder, "train2014", [7, 8])  # another split's files in the same folder
    given = []
    for number, path in enumerate(sorted((raw / "vqa").iterdir())):
        given.append(path.rename(tmp_path / f"file{number}.json"))
    store = store_of(tmp_path / "nothing", features=folder, questions=tuple(given))
    check_regions(store, fixed)
    assert len(store.questions("val")) == 200


def test_regions_that_change_their_number_midway_are_not_padded(raw: Path) -> None:
    folder = raw / "coco_extract/val2014"
    folder_of_npz(folder, "val2014", IDS[:50])
    folder_of_npz(folder, "val2014", IDS[50:], region_count)
    with pytest.raises(RawDataError, match=r"regions, the images before it have 6: adaptive"):
        store_of(raw)
    store = store_of(raw, layout="ragged")
    assert store.lengths("val2014").tolist() == [
        FIXED if row < 50 else region_count(one) for row, one in enumerate(IDS)
    ]


def test_layouts_that_contradict_the_files(raw: Path) -> None:
    folder_of_npz(raw / "coco_extract/val2014", "val2014", IDS, region_count)
    with pytest.raises(ConfigError, match=r"--layout regions: the first images have \d+ to \d+"):
        store_of(raw, layout="regions")
    with pytest.raises(ConfigError, match="--grid 8 and --layout ragged exclude each other"):
        store_of(raw, layout="ragged", grid=8)


def test_store_of_regions_takes_no_grid(raw: Path, tmp_path: Path) -> None:
    folder_of_npz(raw / "coco_extract/val2014", "val2014", IDS)
    for path in SAMPLE.glob("*train2014*.json"):
        shutil.copy(path, raw / "vqa" / path.name)
    store_of(raw)
    folder = raw / "coco_extract/train2014"
    folder.mkdir()
    for image_id in image_ids("train2014"):
        np.save(folder / f"{image_id}.npy", np.ones((64, WIDTH), np.float16))
    with pytest.raises(StoreError, match="this store holds 6 regions x 48, float16, boxes"):
        store_of(raw, split="train")


def test_lxmert_files_alone_give_their_own_labels(tmp_path: Path) -> None:
    raw = tmp_path / "data"
    rows = [
        {
            "answer_type": "other",
            "img_id": f"COCO_val2014_{image_id:012}",
            "label": {"net": 1, "a net": 0.3} if row % 3 else {"2": 0.6},
            "question_id": image_id * 1000,
            "question_type": "what",
            "sent": "What is this?",
        }
        for row, image_id in enumerate(IDS)
    ]
    rows[4]["label"] = {}
    (raw / "vqa").mkdir(parents=True)
    (raw / "vqa/minival.json").write_text(json.dumps(rows))
    region_tsv(raw / "mscoco_imgfeat/val2014_obj36.tsv", "val2014", IDS)
    store = store_of(raw, split="minival")
    assert store.meta.answer_schemes["openvqa"].rule == "labels"
    assert store.answers.answers == ("2", "net")
    targets = store.targets("minival")
    assert np.diff(targets.offsets)[4] == 0
    assert targets.score[:2].tolist() == pytest.approx([0.6, 1.0])
    stated = store.answers_of("minival")
    assert stated.lists()[1] == ["net", "a net"]
    assert stated.scores is not None
    assert stated.scores[slice(*stated.offsets[1:3])].tolist() == pytest.approx([1.0, 0.3])


def test_lxmert_splits_use_the_official_answers_where_they_are(raw: Path) -> None:
    annotations = json.loads((raw / "vqa/v2_mscoco_val2014_annotations.json").read_text())
    chosen = annotations["annotations"][::3]
    questions = json.loads((raw / "vqa/v2_OpenEnded_mscoco_val2014_questions.json").read_text())
    text = {one["question_id"]: one["question"] for one in questions["questions"]}
    rows = [
        {
            "img_id": f"COCO_val2014_{one['image_id']:012}",
            "label": {"yes": 1},
            "question_id": one["question_id"],
            "question_type": "x",
            "answer_type": "other",
            "sent": text[one["question_id"]],
        }
        for one in chosen
    ]
    (raw / "vqa/minival.json").write_text(json.dumps(rows))
    folder_of_npz(raw / "coco_extract/val2014", "val2014", IDS)
    store = store_of(raw, split="minival+val")
    assert store.meta.answer_schemes["openvqa"].rule == "vqa"
    expected = [[a["answer"] for a in one["answers"]] for one in chosen]
    assert store.answers_of("minival").lists() == expected
