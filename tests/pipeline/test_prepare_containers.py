"""``prepare`` into every container: the same store from any start, and nothing half-made."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from disk import fill
from raw_data import edit_json, prepare_config, tree

from trar.cli import data as trar_data
from trar.errors import DiskError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.containers import open_backend
from trar.features.schema import Container, FeatureSpec
from trar.pipeline import PrepareConfig, prepare

PREPARE = """
import sys
from pathlib import Path
from trar.pipeline import PrepareConfig, prepare
raw, store, container = sys.argv[1:]
prepare(PrepareConfig(
    raw=Path(raw), store=Path(store), format=container, shard_images=20, workers=0))
"""


@pytest.fixture(scope="module")
def prepared(container: Container, vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store root that an undisturbed prepare makes of real questions."""
    root = tmp_path_factory.mktemp(container) / "features"
    prepare(prepare_config(vqa_raw, root, format=container))
    return root


def shard_file_of(store: Path, container: Container, split: str, shard: int) -> Path:
    """A shard's features in a folder that is no store yet."""
    spec = FeatureSpec(64, 12, "float16", (8, 8))
    return store / open_backend(store, container).shard_files(split, shard, spec)["features"]


def test_prepare_makes_the_same_store_in_workers_and_by_parts(
    container: Container, vqa_raw: Path, prepared: Path, tmp_path: Path
) -> None:
    prepare(prepare_config(vqa_raw, tmp_path / "workers", format=container, workers=2))
    assert tree(tmp_path / "workers") == tree(prepared)
    prepare(prepare_config(vqa_raw, tmp_path / "parts", format=container, split="train"))
    opened = FeatureStore(tmp_path / "parts")
    result = prepare(PrepareConfig(raw=vqa_raw, store=tmp_path / "parts", shard_images=20))
    assert (result.made, result.kept) == (["val"], ["train"])
    assert tree(tmp_path / "parts") == tree(prepared)
    opened.read("train2014", [3])  # a reader of the old store goes on
    assert verify_store(tmp_path / "parts") == []


def test_dry_run_bounds_what_the_command_writes(
    container: Container, vqa_raw: Path, tmp_path: Path
) -> None:
    arguments = ["prepare", "--raw", str(vqa_raw), "--store", str(tmp_path / "s")]
    arguments += ["--format", container, "--shard-images", "20", "--workers", "0", "--json"]
    plan = json.loads(CliRunner().invoke(trar_data, [*arguments, "--dry-run"]).stdout)
    made = json.loads(CliRunner().invoke(trar_data, arguments).stdout)
    assert made["store"]["container"] == container
    assert plan["write_bytes"] >= sum(len(one) for one in tree(tmp_path / "s").values())
    shown = CliRunner().invoke(trar_data, ["info", "--store", str(tmp_path / "s")])
    assert f", {container}, " in shown.output


def test_killed_prepare_goes_on_to_the_same_bytes(
    container: Container, vqa_raw: Path, prepared: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(vqa_raw), str(store), container],
        stderr=subprocess.DEVNULL,
    )
    receipts = store / "vqa/.prepare"
    while len(list(receipts.glob("train2014-*.json"))) < 2:  # in the middle of the features
        assert process.poll() is None, "prepare ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(StoreError, match="unfinished store"):
        FeatureStore(store)
    first = shard_file_of(store / "vqa", container, "train2014", 0)
    moment = first.stat().st_mtime_ns
    prepare(prepare_config(vqa_raw, store, format=container))
    assert tree(store) == tree(prepared)
    assert first.stat().st_mtime_ns == moment


def test_disk_that_fills_midway_keeps_finished_shards(
    container: Container, vqa_raw: Path, prepared: Path, small_disk: Path
) -> None:
    def fill_at_image_50(stage: str, done: int, total: int) -> None:
        if done == 50:
            fill(small_disk)

    with pytest.raises(DiskError, match=r"No space left on device; free some space"):
        prepare(prepare_config(vqa_raw, small_disk / "s", format=container), fill_at_image_50)
    (small_disk / "ballast").unlink()
    store = small_disk / "s/vqa"
    assert not (store / "store.json").exists()
    assert not list(store.rglob("*.partial"))
    finished = {
        path: path.stat().st_mtime_ns
        for path in (shard_file_of(store, container, "train2014", n) for n in (0, 1))
    }
    prepare(prepare_config(vqa_raw, small_disk / "s", format=container))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert tree(small_disk / "s") == tree(prepared)


def test_shards_of_the_other_container_do_not_count(
    container: Container, vqa_raw: Path, prepared: Path, tmp_path: Path
) -> None:
    """Stopped in one container, done in the other: nothing of the first is left."""
    other: Container = "zarr" if container == "hdf5" else "hdf5"

    def stop(stage: str, done: int, total: int) -> None:
        if done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(prepare_config(vqa_raw, tmp_path / "s", format=other), stop)
    assert list((tmp_path / "s/vqa/.prepare").glob("*.json"))
    prepare(prepare_config(vqa_raw, tmp_path / "s", format=container))
    assert tree(tmp_path / "s") == tree(prepared)


def test_changed_raw_files_are_made_anew(
    container: Container, vqa_raw: Path, tmp_path: Path
) -> None:
    shutil.copytree(vqa_raw, tmp_path / "data")
    prepare(prepare_config(tmp_path / "data", tmp_path / "s", format=container))
    path = sorted((tmp_path / "data/vqa/feats/val2014").glob("*.npy"))[5]
    np.save(path, np.load(path) + 1)
    questions = tmp_path / "data/vqa/raw/v2_OpenEnded_mscoco_train2014_questions.json"
    edit_json(questions, lambda value: value["questions"][4].update(question="What is it?"))
    result = prepare(prepare_config(tmp_path / "data", tmp_path / "s", format=container))
    assert set(result.remade) == {"val2014", "train"}
    again = prepare_config(tmp_path / "data", tmp_path / "s", format=container)
    assert prepare(again).remade == []
    store = FeatureStore(tmp_path / "s")
    assert store.questions("train").texts[4] == "What is it?"
    assert verify_store(tmp_path / "s") == []


def test_other_container_of_a_finished_store_is_refused(
    container: Container, vqa_raw: Path, prepared: Path
) -> None:
    other: Container = "zarr" if container == "hdf5" else "hdf5"
    with pytest.raises(StoreError, match=f"this store is in {container}, --format {other}"):
        prepare(prepare_config(vqa_raw, prepared, format=other))


def test_images_left_out_are_refused_alike(
    container: Container, vqa_raw: Path, tmp_path: Path
) -> None:
    shutil.copytree(vqa_raw, tmp_path / "data")
    path = sorted((tmp_path / "data/vqa/feats/val2014").glob("*.npy"))[3]
    path.write_bytes(b"junk" * 99)
    prepare(
        prepare_config(tmp_path / "data", tmp_path / "s", format=container, on_bad_image="skip")
    )
    store = FeatureStore(tmp_path / "s")
    (image_id,) = store.skipped("val2014")
    row = store.image_ids("val2014").tolist().index(image_id)
    with pytest.raises(StoreError, match=f"image {image_id} of val2014 was left out"):
        store.read("val2014", [row])
    assert verify_store(tmp_path / "s") == []
