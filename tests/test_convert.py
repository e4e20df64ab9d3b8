"""A store in the other container: equal to the bit, there and back, or not at all."""

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
from click.testing import CliRunner, Result
from disk import fill
from ragged_store import make_ragged
from raw_data import tree

from trar.cli import data
from trar.errors import DiskError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.convert import convert_store
from trar.features.schema import read_meta
from trar.pipeline import PrepareConfig, prepare

SAME = ("prepare-log.json", "store.json")


@pytest.fixture(scope="module")
def hdf5_store(vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare itself makes in HDF5 of the files of ``vqa_store``."""
    store = tmp_path_factory.mktemp("hdf5") / "features"
    prepare(PrepareConfig(raw=vqa_raw, store=store, shard_images=20, workers=0, format="hdf5"))
    return store


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(data, ["convert", *(str(one) for one in arguments)])


def test_converted_store_is_the_one_that_prepare_makes(
    vqa_store: Path, hdf5_store: Path, tmp_path: Path
) -> None:
    convert_store(vqa_store, tmp_path / "h5", "hdf5")
    assert tree(tmp_path / "h5", SAME) == tree(hdf5_store, SAME)
    convert_store(hdf5_store, tmp_path / "zarr", "zarr")
    assert tree(tmp_path / "zarr", SAME) == tree(vqa_store, SAME)
    made, meta = read_meta(hdf5_store / "vqa"), read_meta(tmp_path / "h5/vqa")
    assert meta.fingerprint == made.fingerprint
    assert meta.image_splits == made.image_splits
    assert verify_store(tmp_path / "h5") == []


def test_there_and_back_gives_the_same_files(vqa_store: Path, tmp_path: Path) -> None:
    convert_store(vqa_store, tmp_path / "h5", "hdf5")
    convert_store(tmp_path / "h5", tmp_path / "zarr", "zarr")
    assert tree(tmp_path / "zarr", SAME) == tree(vqa_store, SAME)
    first, last = read_meta(vqa_store / "vqa"), read_meta(tmp_path / "zarr/vqa")
    assert last.fingerprint == first.fingerprint
    assert last.provenance.pop("converted_from") == {
        "container": "hdf5",
        "fingerprint": read_meta(tmp_path / "h5/vqa").fingerprint,
    }
    assert last.provenance == first.provenance


def test_ragged_regions_boxes_and_sizes_come_along(tmp_path: Path) -> None:
    make_ragged(tmp_path / "a/vqa", [36, 0, 100, 77, 10], 1)
    convert_store(tmp_path / "a", tmp_path / "b", "hdf5", shard_images=2)
    convert_store(tmp_path / "b", tmp_path / "c", "zarr", shard_images=1)
    assert tree(tmp_path / "c", SAME) == tree(tmp_path / "a", SAME)
    one, other = FeatureStore(tmp_path / "a"), FeatureStore(tmp_path / "b")
    rows = [4, 2, 1, 0, 3]
    np.testing.assert_array_equal(other.read("val", rows).features, one.read("val", rows).features)
    np.testing.assert_array_equal(other.boxes("val", rows), one.boxes("val", rows))
    np.testing.assert_array_equal(other.sizes("val"), one.sizes("val"))
    assert verify_store(tmp_path / "b") == []


def test_shards_are_cut_anew_on_request(vqa_store: Path, tmp_path: Path) -> None:
    convert_store(vqa_store, tmp_path / "s", "zarr", shard_images=7)
    store, before = FeatureStore(tmp_path / "s"), FeatureStore(vqa_store)
    assert store.meta.image_splits["val2014"].shard_images == 7
    rows = np.arange(94)
    np.testing.assert_array_equal(
        store.read("val2014", rows).features, before.read("val2014", rows).features
    )
    assert verify_store(tmp_path / "s") == []


def test_names_vectors_and_images_left_out_come_along(vqa_raw: Path, tmp_path: Path) -> None:
    shutil.copytree(vqa_raw, tmp_path / "data")
    bad = sorted((tmp_path / "data/vqa/feats/val2014").glob("*.npy"))[3]
    bad.write_bytes(b"junk" * 99)
    glove = tmp_path / "small.txt"
    glove.write_text("what 1 2 3\nis 4 5 6\n")
    prepare(
        PrepareConfig(
            raw=tmp_path / "data",
            store=tmp_path / "s",
            split="val",
            workers=0,
            on_bad_image="skip",
            vectors=str(glove),
            vectors_lookup="plain",
        )
    )
    convert_store(tmp_path / "s", tmp_path / "h5", "hdf5")
    before, after = FeatureStore(tmp_path / "s"), FeatureStore(tmp_path / "h5")
    assert after.skipped("val2014") == before.skipped("val2014") != {}
    vectors = before.vectors()
    assert vectors is not None
    np.testing.assert_array_equal(after.vectors(), vectors)
    assert verify_store(tmp_path / "h5") == []


def test_damage_is_not_sealed_anew(vqa_store: Path, tmp_path: Path) -> None:
    shutil.copytree(vqa_store, tmp_path / "s")
    shards = tmp_path / "s/vqa/arrays.zarr/images/val2014/features/c"
    one, other = shards / "0/0/0", shards / "1/0/0"
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())  # every checksum inside holds
    other.write_bytes(kept)
    with pytest.raises(StoreError, match=r"sha256 is .* expected .*: damaged"):
        convert_store(tmp_path / "s", tmp_path / "h5", "hdf5")
    assert not (tmp_path / "h5/vqa/store.json").exists()
    words = tmp_path / "s/vqa/vocabulary-openvqa.json"
    words.write_bytes(words.read_bytes().replace(b'"what"', b'"whit"'))
    with pytest.raises(StoreError, match=r"vocabulary-openvqa\.json: sha256 is"):
        convert_store(tmp_path / "s", tmp_path / "other", "hdf5")
    assert not (tmp_path / "other").exists()


def test_places_that_cannot_be_written_to(vqa_store: Path, tmp_path: Path) -> None:
    shutil.copytree(vqa_store, tmp_path / "s")
    before = tree(tmp_path / "s", ())
    with pytest.raises(StoreError, match="there is a store already"):
        convert_store(tmp_path / "s", tmp_path / "s", "hdf5")
    for inside in ("s/vqa", "s/vqa/h5"):
        with pytest.raises(StoreError, match="lies inside the store that is converted"):
            convert_store(tmp_path / "s", tmp_path / inside, "hdf5")
    assert tree(tmp_path / "s", ()) == before
    with pytest.raises(StoreError, match="no such folder"):
        convert_store(tmp_path / "none", tmp_path / "h5", "hdf5")


CONVERT = """
import sys, time
from pathlib import Path
from trar.features.convert import convert_store
def slow(stage, done, total):
    time.sleep(0.05)
convert_store(Path(sys.argv[1]), Path(sys.argv[2]), "hdf5", progress=slow)
"""


def test_killed_conversion_goes_on(vqa_store: Path, hdf5_store: Path, tmp_path: Path) -> None:
    target = tmp_path / "h5"
    process = subprocess.Popen([sys.executable, "-c", CONVERT, str(vqa_store), str(target)])
    while len(list((target / "vqa/.prepare").glob("*.json"))) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(StoreError, match="unfinished store"):
        FeatureStore(target)
    first = target / "vqa/images/train2014-00000.h5"
    moment = first.stat().st_mtime_ns
    convert_store(vqa_store, target, "hdf5")
    assert first.stat().st_mtime_ns == moment
    assert tree(target, SAME) == tree(hdf5_store, SAME)


def test_full_disk(vqa_store: Path, small_disk: Path) -> None:
    def fill_up(stage: str, done: int, total: int) -> None:
        if not (small_disk / "ballast").exists():
            fill(small_disk)

    with pytest.raises(DiskError, match="No space left on device"):
        convert_store(vqa_store, small_disk / "h5", "hdf5", progress=fill_up)
    with pytest.raises(DiskError, match=r"the converted store needs .* are free"):
        convert_store(vqa_store, small_disk / "h5", "hdf5")
    (small_disk / "ballast").unlink()
    convert_store(vqa_store, small_disk / "h5", "hdf5")
    assert verify_store(small_disk / "h5") == []


def test_command_converts_and_reports(vqa_store: Path, tmp_path: Path) -> None:
    arguments = ["--store", vqa_store, "--to", tmp_path / "h5", "--format", "hdf5"]
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'h5/vqa'}: finished, hdf5, " in result.output
    assert "Next: trar-data verify --store" in result.output
    assert FeatureStore(tmp_path / "h5").meta.container == "hdf5"
    again = invoke(*arguments)
    assert again.exit_code == 1
    assert "there is a store already" in again.output
    arguments[3] = tmp_path / "json"
    plain = json.loads(invoke(*arguments, "--shard-images", 9, "--json").output)
    assert plain["store"]["container"] == "hdf5"
    assert plain["store"]["image_splits"]["train2014"]["shard_images"] == 9
    assert invoke("--store", vqa_store, "--format", "hdf5").exit_code == 2


def test_ctrl_c_says_how_to_go_on(
    vqa_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: object, stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trar.console.WorkProgress.__call__", stop)
    result = invoke("--store", vqa_store, "--to", tmp_path / "h5", "--format", "hdf5")
    assert result.exit_code == 130
    assert "run the same command again to go on" in result.output
    assert not (tmp_path / "h5/vqa/store.json").exists()


def test_trar_trains_on_a_converted_store(vqa_store: Path, tmp_path: Path) -> None:
    from trar.cli import main

    folder, _ = convert_store(vqa_store, tmp_path / "h5", "hdf5")
    sets = [
        "model.layers=1", "model.width=16", "model.heads=2", "model.ff_width=16",
        "model.word_width=8", "model.flat_hidden=8", "model.flat_width=8", "model.orders=[0, 1]",
        "schedule.epochs=1", "data.batch_size=64", "schedule.decay_epochs=[1]",
        "schedule.warmup_epochs=1",
    ]  # fmt: skip
    arguments = ["train", "--store", folder, "--runs", tmp_path / "runs", "--device", "cpu"]
    for one in sets:
        arguments += ["--set", one]
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "runs").rglob("*.safetensors"))
