"""Many shards, few file descriptors; many threads and processes, one store."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import stores
from stores import StorePlan, make_store

from trar.errors import StoreError
from trar.features import FeatureStore
from trar.features.open_shards import OpenShards, ShardHandle


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of 1,200 shards of one image each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "SHARD_IMAGES", 1)
        patch.setattr(os, "fsync", lambda handle: None)  # 1,200 of them are slow and not the point
        plan = StorePlan(images={"train": 1200}, question_splits={"train": "train"}, grid=2)
        yield make_store(tmp_path_factory.mktemp("many") / "tiny", plan).path


FILES = Path("/proc/self/fd")
FEW_FILES = """
import resource, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from trar.features import FeatureStore
rows = range(1200)
whole = FeatureStore(sys.argv[1], access="library").read("train", [7]).features
for access in ("preadv", "mmap"):
    several = [FeatureStore(sys.argv[1], access=access) for _ in range(2)]
    threads = [threading.Thread(target=one.read, args=("train", rows)) for one in several * 3]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all((one.read("train", [7]).features == whole).all() for one in several)
print("read")
"""


def test_1200_shards_under_256_files(many: Path) -> None:
    """Two stores, three threads on each, memory maps and handles."""
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(many)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
    assert "Error" not in done.stderr


AT_EXIT = """
import os, sys
from trar.features import FeatureStore
os.last_to_go = FeatureStore(sys.argv[1])
os.last_to_go.read("train", range(10))
"""


def test_open_store_at_the_end_of_a_program_says_nothing(many: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, str(many)], capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""


def test_handles_stay_few_and_are_closed_with_the_store(many: Path) -> None:
    limit = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    before = len(list(FILES.iterdir()))
    store = FeatureStore(many)
    store.read("train", range(1200))
    assert before < len(list(FILES.iterdir())) <= before + limit + 8
    del store
    assert len(list(FILES.iterdir())) <= before


def test_shards_are_dropped_when_no_file_can_be_opened(tmp_path: Path) -> None:
    """What others hold counts too: with one descriptor left, one shard after the other is read."""
    for number in range(4):
        (tmp_path / str(number)).write_text(str(number))
    opened = OpenShards(lambda split, shard: tmp_path / str(shard), ShardHandle)
    opened.get("train", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(one.name) for one in FILES.iterdir())
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 8, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(tmp_path, os.O_RDONLY))
        for number in (1, 2, 3, 0):
            assert os.pread(opened.get("train", number).number, 9, 0) == str(number).encode()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in taken:
            os.close(handle)


def test_handle_in_use_survives_being_dropped(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("held")
    opened = OpenShards(lambda split, shard: tmp_path / "0", ShardHandle)
    held = opened.get("train", 0)
    opened._drop(1)
    assert os.pread(held.number, 4, 0) == b"held"
    assert opened.get("train", 0) is not held


METHODS = {"preadv": ("fork", "forkserver", "spawn"), "mmap": ("fork",)}


def _digest(store: FeatureStore, seed: int, access: str) -> bytes:
    """Everything that one process reads: features in an order of its own, and a table."""
    rows = np.random.default_rng(seed).permutation(40)
    features = store.read("train", rows).features[np.argsort(rows)]
    return features.tobytes() + store.questions("train").ids.tobytes()


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
@pytest.mark.parametrize("access", ["preadv", "mmap"])
def test_every_kind_of_process_and_thread_reads_every_byte(
    shared_stores: dict[str, Path], container: str, access: str
) -> None:
    store = FeatureStore(shared_stores[container], access=access)
    here = _digest(store, 0, access)  # the parent reads first
    for method in METHODS[access]:
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_digest, (store, 1, access)) == here, method
    assert _digest(pickle.loads(pickle.dumps(store)), 1, access) == here
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(_digest(store, len(results), access)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [here] * 4


@pytest.fixture(scope="module")
def shared_stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("processes")
    return {one: make_store(folder / one / "tiny", container=one).path for one in ("zarr", "hdf5")}


def _forked_while_reading(store: FeatureStore, expected: bytes, wrong: list[int]) -> None:
    for _ in range(10):
        child = os.fork()
        if child == 0:
            same = False
            try:
                same = store.read("train", range(40)).features.tobytes() == expected
            finally:
                os._exit(0 if same else 1)
        wrong.append(os.waitpid(child, 0)[1])


def test_fork_in_the_middle_of_reads_of_other_threads(shared_stores: dict[str, Path]) -> None:
    """No lock can be left behind: there is none."""
    store = FeatureStore(shared_stores["zarr"])
    expected = store.read("train", range(40)).features.tobytes()
    stop = threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            store.read("train", range(40))

    threads = [threading.Thread(target=read_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes: list[int] = []
    try:
        _forked_while_reading(store, expected, codes)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 10


def test_file_that_cannot_be_opened_is_an_error_by_name(
    shared_stores: dict[str, Path],
) -> None:
    store = FeatureStore(shared_stores["zarr"])
    store.image_ids("train")
    store.read("train", [20])
    store._rows._sources._of_split["train"]._shards._drop(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(
            StoreError, match=r"image 7 \(row 0 of train\) cannot be read: Too many"
        ):
            store.read("train", [0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
