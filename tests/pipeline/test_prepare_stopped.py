"""A prepare that is refused, stopped or without room: no store, and the next one goes on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from disk import fill
from raw_data import grid_features, image_ids, nan_grid, prepare_config, tree

from trar.errors import DiskError, RawDataError, StoreError
from trar.features import verify_store
from trar.pipeline import prepare


def test_second_prepare_on_the_same_store_is_refused(vqa_raw: Path, tmp_path: Path) -> None:
    from trar.features.writer import StoreWriter

    refused = pytest.raises(StoreError, match="another trar-data is writing this dataset")
    with StoreWriter(tmp_path / "s/vqa"), refused:
        prepare(prepare_config(vqa_raw, tmp_path / "s"))
    prepare(prepare_config(vqa_raw, tmp_path / "s", split="val", limit=3))


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
        prepare(prepare_config(raw, tmp_path / "s"))
    assert len(list((tmp_path / "s/vqa/.prepare").glob("*.json"))) == 2
    np.save(bad, grid_features(image_ids("train2014")[55]))
    prepare(prepare_config(raw, tmp_path / "s", **changes))
    prepare(prepare_config(raw, tmp_path / "new", **changes))
    assert tree(tmp_path / "s") == tree(tmp_path / "new")
    assert verify_store(tmp_path / "s") == []


def test_too_small_disk_is_refused_before_the_first_byte(vqa_raw: Path, small_disk: Path) -> None:
    ballast = fill(small_disk)
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - 200_000)
    with pytest.raises(DiskError, match=r"this store needs [\d.]+ MiB, [\d.]+ KiB are free"):
        prepare(prepare_config(vqa_raw, small_disk / "s"))
    assert not (small_disk / "s").exists()


def test_read_only_disk(vqa_raw: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DiskError, match="Read-only file system; that file system is mounted"):
        prepare(prepare_config(vqa_raw, small_disk / "s"))


def test_store_path_that_is_a_file(vqa_raw: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(DiskError, match="a part of that path is a file"):
        prepare(prepare_config(vqa_raw, tmp_path / "s"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(vqa_raw: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o500)
    with pytest.raises(DiskError, match="Permission denied; the user running this command"):
        prepare(prepare_config(vqa_raw, tmp_path / "s"))
