"""repair names what it cannot make again, and leaves alone what it should."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disk import fill
from raw_data import edit_json, grid_features, image_ids, tree
from repair_stores import Made, flip, prepared, shards_of

from trar.errors import DiskError, StoreError
from trar.features.schema import read_meta
from trar.features.writer import StoreWriter
from trar.pipeline.repair import RepairConfig, repair


def test_sound_store_is_left_alone(grid: Made) -> None:
    before = {path: path.stat().st_mtime_ns for path in grid.folder.rglob("*")}
    shutil.rmtree(grid.raw)  # it needs no raw file to say so
    result = grid.repair()
    assert (result.damaged, result.repaired, result.problems) == ({}, [], {})
    assert {path: path.stat().st_mtime_ns for path in grid.folder.rglob("*")} == before


def test_changed_raw_image_is_named_and_the_old_shard_stays(grid: Made) -> None:
    changed = next((grid.raw / "vqa/feats/val2014").glob(f"*{image_ids('val2014')[25]}*"))
    np.savez(changed.with_suffix(".npz"), x=grid_features(1))
    if changed.suffix != ".npz":
        changed.unlink()
    shards = shards_of(grid, "val2014")
    (grid.folder / min(shards[0])).unlink()
    damaged = max(shards[1])  # of images 20 to 39, the features
    flip(grid.folder / damaged, 0.2)
    before = (grid.folder / damaged).read_bytes()
    result = grid.repair()
    assert result.repaired == [min(shards[0])]
    assert set(result.problems) >= {damaged}
    why = result.problems[damaged]
    assert f"{changed.with_suffix('.npz')} has changed since" in why
    assert f"delete {grid.folder} and prepare it again" in why
    assert (grid.folder / damaged).read_bytes() == before
    assert not (grid.folder / ".prepare").exists()


def test_bad_or_missing_raw_image_spoils_only_its_own_shard(grid: Made) -> None:
    ids = image_ids("val2014")
    folder = grid.raw / "vqa/feats/val2014"
    next(folder.glob(f"*{ids[3]}*")).unlink()
    bad = next(folder.glob(f"*{ids[30]}*"))
    bad.write_bytes(b"junk" * 50)
    shards = shards_of(grid, "val2014")
    damaged = [max(shard) for shard in shards[:4]]
    for name in damaged:
        flip(grid.folder / name)
    result = grid.repair()
    assert result.repaired == damaged[2:]
    assert f"image {ids[3]} of val2014: its raw features are gone" in result.problems[damaged[0]]
    assert str(bad) in result.problems[damaged[1]]


def test_changed_question_file_is_named(originals: Callable[[str], Made], grid: Made) -> None:
    path = grid.raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json"
    edit_json(path, lambda value: value["questions"][0].update(question="What else?"))
    names = [
        name for name in read_meta(grid.folder).files if "questions/val" in name and "text" in name
    ] or ["tables/questions/val.h5"]
    for name in names:
        flip(grid.folder / name)
    result = grid.repair()
    before = tree(originals("grid").store)
    left = [name for name in names if tree(grid.store)[f"vqa/{name}"] != before[f"vqa/{name}"]]
    assert left
    for name in left:
        assert f"{path} changed since; give the raw files" in result.problems[name]


def test_published_dictionary_and_vectors_are_asked_for(vqa_raw: Path, tmp_path: Path) -> None:
    published = Path(__file__).parents[1] / "data/answers/answer_dict.json"
    made = prepared(vqa_raw, tmp_path / "s", "zarr", split="val", answers=published)
    before = tree(made.store)
    flip(made.folder / "answers-openvqa.json")
    shutil.rmtree(made.folder / "arrays.zarr/targets/openvqa/val/label")
    result = made.repair()
    assert result.repaired == []
    assert (
        "was given as answer_dict.json: give that with --answers"
        in (result.problems["answers-openvqa.json"])
    )
    why = result.problems["arrays.zarr/targets/openvqa/val/label/c/0"]
    assert "made with answers-openvqa.json, which could not be repaired" in why
    assert made.repair(answers=published).problems == {}
    assert tree(made.store) == before


def test_source_of_vectors_is_asked_for(grid: Made) -> None:
    (path,) = (grid.folder / "vectors").iterdir()
    flip(path)
    name = f"vectors/{path.name}"
    asked = r"made from own.3d.txt, words looked up whole: give that with --vectors"
    assert asked in grid.repair().problems[name]
    other = grid.store / "own.3d.txt"
    other.write_text("what 1 2 4\n")
    assert f"--vectors {other} has changed" in grid.repair(vectors=str(other)).problems[name]


def test_vocabulary_is_made_from_the_splits_that_made_it(
    originals: Callable[[str], Made], grid: Made
) -> None:
    """A question file that was not there when the store was made plays no part."""
    path = grid.raw / "vqa/raw/v2_OpenEnded_mscoco_test2015_questions.json"
    shutil.copy(grid.raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json", path)
    edit_json(path, lambda value: value.update(data_subtype="test2015"))
    flip(grid.folder / "vocabulary-openvqa.json")
    assert grid.repair().repaired == ["vocabulary-openvqa.json"]
    assert tree(grid.store) == tree(originals("grid").store)


def test_limit_of_the_prepare_holds(vqa_raw: Path, container: str, tmp_path: Path) -> None:
    made = prepared(vqa_raw, tmp_path / "s", container, split="val", limit=7, shard_images=3)
    before = tree(made.store)
    for name in sorted(read_meta(made.folder).files)[::2]:
        (made.folder / name).unlink()
    assert made.repair().problems == {}
    assert tree(made.store) == before


def test_damaged_description_cannot_be_repaired(grid: Made) -> None:
    flip(grid.folder / "store.json", 0.9)
    with pytest.raises(StoreError, match=r"It alone says what every file must be.*keeps no receip"):
        grid.repair()
    (grid.folder / "store.json").unlink()
    with pytest.raises(StoreError, match="no feature store"):
        grid.repair()


def test_ids_that_nothing_can_prove(grid: Made) -> None:
    """Neither the store nor the raw features say which images its rows are."""
    for name in read_meta(grid.folder).files:
        if "images/val2014" in name and ("ids" in name or name.endswith("val2014.h5")):
            flip(grid.folder / name)
    next((grid.raw / "vqa/feats/val2014").iterdir()).unlink()
    flip(grid.folder / max(shards_of(grid, "val2014")[0]))
    flip(grid.folder / max(shards_of(grid, "train2014")[0]))
    result = grid.repair()
    assert result.repaired == [max(shards_of(grid, "train2014")[0])]
    for name in result.damaged.keys() - {*result.repaired}:
        assert "the raw features that are there are not the 94 images" in result.problems[name]


def test_full_disk_stops_a_repair_that_goes_on_later(
    originals: Callable[[str], Made], small_disk: Path
) -> None:
    original = originals("grid")
    made = Made(original.raw, small_disk / "store")
    shutil.copytree(original.store, made.store)
    for shard in shards_of(made, "train2014"):
        for name in shard:
            (made.folder / name).unlink()

    def fill_at_image_50(stage: str, done: int, total: int) -> None:
        if stage == "features" and done == 50:
            fill(small_disk)

    config = RepairConfig(raw=made.raw, workers=0)
    with pytest.raises(DiskError, match="No space left on device"):
        repair(made.folder, config, fill_at_image_50)
    with pytest.raises(DiskError, match=r"this repair needs [\d.]+ MiB, "):
        repair(made.folder, config)
    (small_disk / "ballast").unlink()
    assert repair(made.folder, config).problems == {}
    assert tree(made.store) == tree(original.store)


def test_foreign_file_is_reported_not_deleted(grid: Made) -> None:
    (grid.folder / "notes.txt").write_text("mine")
    name = max(shards_of(grid, "val2014")[0])
    (grid.folder / name).unlink()
    result = grid.repair()
    assert result.repaired == [name]
    assert result.problems == {"notes.txt": "not part of this store: nothing lists it"}
    assert (grid.folder / "notes.txt").read_text() == "mine"


def test_folder_in_the_place_of_a_file(grid: Made) -> None:
    name = max(shards_of(grid, "val2014")[0])
    (grid.folder / name).unlink()
    (grid.folder / name / "x").mkdir(parents=True)
    assert "a folder stands in its place" in grid.repair().problems[name]
    shutil.rmtree(grid.folder / name)
    assert grid.repair().problems == {}


def test_second_repair_or_prepare_is_refused(grid: Made) -> None:
    with StoreWriter(grid.folder), pytest.raises(StoreError, match="another trar-data is writing"):
        grid.repair()


def test_stopped_prepare_keeps_its_receipts(grid: Made) -> None:
    """A prepare that adds a split was stopped; a repair in between takes nothing from it."""
    receipt = grid.folder / ".prepare/test2015-00000.json"
    receipt.parent.mkdir()
    receipt.write_text("{}")
    (grid.folder / "vocabulary-openvqa.json").unlink()
    assert grid.repair().problems == {}
    assert [path.name for path in (grid.folder / ".prepare").iterdir()] == [receipt.name]
