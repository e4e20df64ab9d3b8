"""Whatever stops a prepare, the next one ends with the bytes of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from disk import mounted
from raw_data import image_ids, tree
from raw_forms import folder_of_npz, region_count

from trar.errors import DiskError, StoreError
from trar.features import FeatureStore
from trar.features.schema import StoreMeta, write_meta
from trar.pipeline import PrepareConfig, prepare

MOMENTS = 20
PREPARE = """
import sys
from pathlib import Path
from trar.pipeline import PrepareConfig, prepare
prepare(PrepareConfig(raw=Path(sys.argv[1]), store=Path(sys.argv[2]), shard_images=8,
                      workers=int(sys.argv[3])))
"""


def run_and_kill(raw: Path, store: Path, workers: int, after_s: float) -> bool:
    """Start a prepare and kill it that long after its work folder is there; False: it was over."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(raw), str(store), str(workers)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (store / "vqa/.prepare").exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(after_s)
    over = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return not over


@pytest.mark.timeout(400)
def test_killed_at_twenty_random_moments(vqa_raw: Path, tmp_path: Path) -> None:
    """Every kill is followed by another one in the store that it left, then by a whole run."""
    config = PrepareConfig(raw=vqa_raw, store=tmp_path / "whole", shard_images=8, workers=0)
    begin = time.perf_counter()
    prepare(config)
    duration_s = time.perf_counter() - begin
    expected = tree(tmp_path / "whole")
    moments = random.Random(20211010)
    killed, store = 0, tmp_path / "s0"
    for number in range(4 * MOMENTS):
        if run_and_kill(vqa_raw, store, 0, moments.uniform(0, duration_s)):
            killed += 1
            if not (store / "vqa/store.json").exists():
                with pytest.raises(StoreError, match=r"unfinished store|no such folder|no feature"):
                    FeatureStore(store)
        if killed == MOMENTS:
            break
        if number % 3 == 2 or (store / "vqa/store.json").exists():
            prepare(config.model_copy(update={"store": store}))
            assert tree(store) == expected
            store = tmp_path / f"s{number + 1}"
    assert killed == MOMENTS
    prepare(config.model_copy(update={"store": store}))
    assert tree(store) == expected


def test_killed_between_its_last_steps_leaves_nothing_behind(
    vqa_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before and just after store.json gets its name: a partial file, a work folder."""
    config = PrepareConfig(raw=vqa_raw, store=tmp_path / "s", shard_images=8, workers=0)
    prepare(config.model_copy(update={"store": tmp_path / "whole"}))
    with monkeypatch.context() as patched:
        patched.setattr("trar.features.writer.write_meta", _stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    (tmp_path / "s/vqa/.store.json.0123.partial").write_bytes(b"{")
    with monkeypatch.context() as patched:
        patched.setattr("trar.features.writer.write_meta", _write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    assert (tmp_path / "s/vqa/.prepare").exists()
    assert prepare(config).made == []
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _write_and_stop(folder: Path, meta: StoreMeta) -> None:
    write_meta(folder, meta)
    raise KeyboardInterrupt


def test_ragged_store_killed_with_its_workers(vqa_raw: Path, tmp_path: Path) -> None:
    """Shards of ragged images share images at their borders."""
    raw = tmp_path / "data"
    (raw / "vqa").mkdir(parents=True)
    (raw / "vqa/raw").symlink_to(vqa_raw / "vqa/raw")
    for image_split in ("train2014", "val2014"):
        folder = raw / f"vqa/feats/{image_split}"
        folder_of_npz(folder, image_split, image_ids(image_split), region_count)
    config = PrepareConfig(raw=raw, store=tmp_path / "whole", shard_images=8, workers=0)
    prepare(config)
    run_and_kill(raw, tmp_path / "s", 2, 0.5)
    prepare(config.model_copy(update={"store": tmp_path / "s"}))
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_file_system_without_free_inodes(vqa_raw: Path, tmp_path: Path) -> None:
    """Refused before the first byte: bytes are free, but no more files can be made."""
    for disk in mounted(tmp_path / "disk", "size=64m,nr_inodes=40"):
        with pytest.raises(DiskError, match=r"needs [\d,]+ files, \d+ more can be made there"):
            prepare(PrepareConfig(raw=vqa_raw, store=disk / "s", workers=0))
        assert list(disk.iterdir()) == []
