"""A user's own dask cluster: real scheduler and worker processes on loopback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_processes import running, scheduling, worker
from raw_data import tree

from trar.errors import ConfigError, TrarError
from trar.features import verify_store
from trar.pipeline import PrepareConfig, prepare
from trar.pipeline.cluster import _check_workers, _describe, cluster_at


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    with scheduling(tmp_path) as address:
        yield address


def test_cluster_that_loses_a_worker_gives_the_same_bytes(
    vqa_raw: Path, vqa_store: Path, tmp_path: Path, scheduler: str
) -> None:
    """One of two workers is killed as soon as the first shard is there."""
    first, second = worker(scheduler, "one"), worker(scheduler, "two")
    with running(first, second):
        killed = []

        def kill_one(stage: str, done: int, total: int) -> None:
            if stage == "features" and not killed:
                killed.append(done)
                os.killpg(first.pid, signal.SIGKILL)

        store = tmp_path / "s"
        config = PrepareConfig(raw=vqa_raw, store=store, shard_images=20, scheduler=scheduler)
        prepare(config, kill_one)
    assert killed
    assert tree(store) == tree(vqa_store)
    assert verify_store(store) == []


def test_relative_paths_hold_in_the_workers(
    vqa_raw: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(vqa_raw)
    with running(worker(scheduler, "one")):
        monkeypatch.chdir(tmp_path)
        prepare(PrepareConfig(raw=Path("data"), store=Path("s"), split="val", scheduler=scheduler))
    assert verify_store(tmp_path / "s") == []


def test_addresses_that_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trar.pipeline.cluster.CONNECT_S", 1)
    with (
        pytest.raises(ConfigError, match="expected an address like tcp://"),
        cluster_at("localhost", tmp_path),
    ):
        pass
    with (
        pytest.raises(TrarError, match="no dask scheduler answers there"),
        cluster_at("tcp://127.0.0.1:9", tmp_path),
    ):
        pass


def test_cluster_without_workers(
    vqa_raw: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trar.pipeline.cluster.CONNECT_S", 2)
    config = PrepareConfig(raw=vqa_raw, store=tmp_path / "s", split="val", scheduler=scheduler)
    with pytest.raises(TrarError, match="it has no worker; start some with `dask worker tcp://"):
        prepare(config)
    assert not (tmp_path / "s").exists()


def test_workers_that_cannot_do_the_work_are_named() -> None:
    with pytest.raises(TrarError, match=r"worker tcp://a has trar 0\.0, this is"):
        _check_workers({"tcp://a": ("0.0", None)})
    import trar

    with pytest.raises(TrarError, match="worker tcp://b cannot write to the store: no disk"):
        _check_workers({"tcp://b": (trar.__version__, "no disk")})


def test_worker_looks_whether_it_sees_the_store(tmp_path: Path) -> None:
    assert _describe(str(tmp_path))[1] is None
    refusal = _describe(str(tmp_path / "nowhere"))[1]
    assert refusal is not None
    assert "must be on a disk that every machine has under the same path" in refusal
