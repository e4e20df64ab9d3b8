"""``prepare --compress zstd``: the same store in less space, stopped, added to and repaired."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from raw_data import tree
from s3_objects import upload

from trar.errors import StoreError
from trar.features import FeatureStore, verify_store
from trar.features.schema import read_meta
from trar.pipeline import PrepareConfig, prepare
from trar.pipeline.repair import RepairConfig, repair


def make(raw: Path, store: Path | str, **changes: object) -> Path:
    settings = {"compress": "zstd", "shard_images": 20, "workers": 0, **changes}
    return prepare(PrepareConfig(raw=raw, store=store, **settings)).folder


@pytest.fixture(scope="module")
def made(vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(vqa_raw, tmp_path_factory.mktemp("zstd"))


def test_values_are_those_of_a_plain_store(made: Path, vqa_store: Path) -> None:
    one, other = FeatureStore(made), FeatureStore(vqa_store)
    for split, images in other.meta.image_splits.items():
        rows = range(images.images)
        np.testing.assert_array_equal(
            one.read(split, rows).features, other.read(split, rows).features
        )
    assert one.meta.feature.compression == "zstd"
    assert verify_store(made) == []


def test_processes_and_a_stop_change_no_byte(vqa_raw: Path, made: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "features" and done:
            raise KeyboardInterrupt

    config = PrepareConfig(raw=vqa_raw, store=tmp_path, shard_images=20, workers=0)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, stop)  # without compression: its finished shards do not fit
    with pytest.raises(KeyboardInterrupt):
        prepare(config.model_copy(update={"compress": "zstd"}), stop)
    assert tree(make(vqa_raw, tmp_path, workers=2)) == tree(made)


def test_splits_are_added_compressed_and_never_mixed(
    vqa_raw: Path, made: Path, tmp_path: Path
) -> None:
    folder = make(vqa_raw, tmp_path, split="train")
    with pytest.raises(StoreError, match=r"holds .*, zstd, this prepare would add .*--compress"):
        make(vqa_raw, tmp_path, compress="none")
    make(vqa_raw, tmp_path, compress=None)
    shards = "arrays.zarr/images/val2014/features"
    assert tree(folder / shards) == tree(made / shards)


def test_repair_gives_back_every_byte(vqa_raw: Path, made: Path, tmp_path: Path) -> None:
    store = tmp_path / "vqa"
    shutil.copytree(made, store)
    names = [name for name in read_meta(store).files if "val2014/features" in name]
    names.append("chunk-table/val2014.safetensors")
    (store / names[0]).unlink()
    for name in names[1:]:
        content = bytearray((store / name).read_bytes())
        content[len(content) // 2] ^= 4
        (store / name).write_bytes(content)
    assert len({problem.where for problem in verify_store(store)} & set(names)) == len(names)
    repair(store, RepairConfig(raw=vqa_raw, workers=0))
    assert tree(store) == tree(made)


def test_hdf5_and_s3_are_refused(vqa_raw: Path, made: Path, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"this one is in HDF5; leave --compress out"):
        make(vqa_raw, tmp_path, format="hdf5")
    assert not list(tmp_path.iterdir())
    with pytest.raises(StoreError, match=r"this one is on S3; leave --compress out"):
        make(vqa_raw, f"{bucket}/store")
    upload(made, f"{bucket}/vqa")  # a finished one, brought there
    with pytest.raises(StoreError, match=r"for Zarr stores in a local folder, this one is on S3"):
        FeatureStore(f"{bucket}/vqa")
