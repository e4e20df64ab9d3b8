"""repair gives back every byte of a damaged store, reads no more than it needs, mixes nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from raw_data import image_ids, tree
from repair_stores import KINDS, Made, flip, shards_of

from trar.cli import data
from trar.features import FeatureStore, verify_store
from trar.features.schema import read_meta
from trar.pipeline.repair import RepairConfig, find_damage, repair


def vectors_of(kind: str, original: Made) -> dict[str, str]:
    return {"vectors": str(original.store.parent / "own.3d.txt")} if kind == "grid" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_damaged_at_once_comes_back(
    originals: Callable[[str], Made], kind: str, tmp_path: Path
) -> None:
    original = originals(kind)
    made = original.copy(tmp_path)
    files = sorted(read_meta(made.folder).files)
    for number, name in enumerate(files):
        path = made.folder / name
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.write_bytes(path.read_bytes()[: number * 7 % path.stat().st_size])
        else:
            flip(path, number / len(files))
    result = made.repair(**vectors_of(kind, original))
    assert result.problems == {}
    assert result.repaired == sorted(result.damaged) == files
    assert tree(made.store) == tree(original.store)
    assert not (made.folder / ".prepare").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_alone_comes_back(
    originals: Callable[[str], Made], kind: str, tmp_path: Path
) -> None:
    """One file at a time, a few of each kind: what one needs of the others is there."""
    original = originals(kind)
    made = original.copy(tmp_path)
    files = sorted(read_meta(made.folder).files)
    for name in files[:: max(1, len(files) // 12)]:
        flip(made.folder / name)
        result = made.repair(**vectors_of(kind, original))
        assert (result.repaired, result.problems) == ([name], {}), name
    assert tree(made.store) == tree(original.store)


@pytest.mark.parametrize("kind", ["grid", "fixed", "ragged", "clevr", "table"])
def test_only_the_images_of_damaged_shards_are_read(
    originals: Callable[[str], Made], kind: str, tmp_path: Path
) -> None:
    """Every other raw image is gone; of a ragged shard the images across its borders are needed."""
    original = originals(kind)
    made = original.copy(tmp_path)
    store = FeatureStore(made.folder)
    split = {"clevr": "train", "table": "images"}.get(kind, "val2014")
    shards = shards_of(made, split)
    number = len(shards) // 2
    rows = images_of_shard(store, split, number)
    ids = store.image_ids(split)[rows].tolist()
    names = store.image_names(split)
    keep = {str(one) if names is None else names[one] for one in ids}
    removed = 0
    for path in sorted(made.raw.rglob("*.np[yz]")):
        number_in_name = path.name.partition(".")[0].split("_")[-1].lstrip("0") or "0"
        wanted = path.name.removesuffix(".npy") if names is not None else number_in_name
        if wanted not in keep or split not in ("images", path.parent.name):
            path.unlink()
            removed += 1
    assert removed > len(ids)
    for name in shards[number]:
        (made.folder / name).unlink()
    result = made.repair()
    assert result.problems == {}
    assert set(result.repaired) == shards[number]
    assert tree(made.store) == tree(original.store)


def images_of_shard(store: FeatureStore, split: str, shard: int) -> list[int]:
    """The rows whose features lie in a shard, wholly or in part."""
    stated = store.meta.image_splits[split]
    count = len(store.image_ids(split))
    if not store.meta.feature.ragged:
        start = shard * stated.shard_images
        return list(range(start, min(count, start + stated.shard_images)))
    ends = np.concatenate([[0], np.cumsum(store.lengths(split))])
    rows = stated.shard_images * 64
    inside = (ends[1:] > shard * rows) & (ends[:-1] < (shard + 1) * rows)
    return np.flatnonzero(inside).tolist()


def test_ragged_shards_share_images_at_their_borders(originals: Callable[[str], Made]) -> None:
    store = FeatureStore(originals("ragged").folder)
    first, second = (set(images_of_shard(store, "val2014", n)) for n in (0, 1))
    assert first & second
    assert len(shards_of(originals("ragged"), "val2014")) > 5


def test_workers_repair_the_same(originals: Callable[[str], Made], grid: Made) -> None:
    for shard in shards_of(grid, "train2014")[:3]:
        for name in shard:
            flip(grid.folder / name)
    result = repair(grid.folder, RepairConfig(raw=grid.raw, workers=2))
    assert result.problems == {}
    assert tree(grid.store) == tree(originals("grid").store)


REPAIR = """
import sys
from pathlib import Path
from trar.pipeline.repair import RepairConfig, repair
repair(Path(sys.argv[1]), RepairConfig(raw=Path(sys.argv[2]), workers=0))
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_repair_leaves_old_or_new_and_goes_on(
    originals: Callable[[str], Made], grid: Made, stop: signal.Signals
) -> None:
    right = {f"vqa/{name}" for name in read_meta(grid.folder).files}
    for shard in shards_of(grid, "train2014") + shards_of(grid, "val2014"):
        for name in shard:
            flip(grid.folder / name)
    flip(grid.folder / "vocabulary-openvqa.json")
    before, whole = tree(grid.store), tree(originals("grid").store)
    process = subprocess.Popen(
        [sys.executable, "-c", REPAIR, str(grid.folder), str(grid.raw)], stderr=subprocess.DEVNULL
    )
    while len(list((grid.folder / ".prepare/repair/.prepare").glob("train2014-*.json"))) < 2:
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.001)
    process.send_signal(stop)
    process.wait()
    now = tree(grid.store)
    assert all(now[name] in (before[name], whole[name]) for name in right)
    told: list[tuple[str, int, int]] = []
    config = RepairConfig(raw=grid.raw, workers=0)
    result = repair(grid.folder, config, lambda *step: told.append(step))
    assert result.problems == {}
    read = max(total for stage, _, total in told if stage == "features")
    assert read <= len(image_ids("train2014")) + len(image_ids("val2014")) - 40  # two shards less
    assert tree(grid.store) == whole


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(data, [str(one) for one in arguments])
    return result.exit_code, result.output


def test_command_says_what_it_did(originals: Callable[[str], Made], grid: Made) -> None:
    name = max(shards_of(grid, "train2014")[1])
    flip(grid.folder / name)
    options = ["--store", grid.store, "--raw", grid.raw, "--workers", 0]
    code, output = invoke("repair", "--store", grid.store, "--dry-run")
    assert (code, find_damage(grid.folder).keys()) == (0, {name})
    assert f"would make anew {grid.folder / name}: sha256 is" in output
    assert "1 damaged file(s). Nothing was written" in output
    code, output = invoke("repair", *options)
    assert code == 0, output
    assert f"repaired {grid.folder / name} (sha256 is" in output
    assert "1 file(s) repaired, the store is sound" in output
    assert tree(grid.store) == tree(originals("grid").store)
    code, output = invoke("repair", *options, "--json")
    assert (code, '"sound": true' in output) == (0, True)
    shutil.rmtree(grid.raw / "vqa/feats/train2014")
    flip(grid.folder / name)
    code, output = invoke("repair", *options)
    assert code == 1
    assert f"{grid.folder / name}: no image features of train2014: expected one of" in output
    assert "0 file(s) repaired, 1 problem(s) stay" in output
    assert verify_store(grid.store) != []
