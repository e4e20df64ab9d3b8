"""A run for which there is no disk or memory is refused before any work starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from disk import fill
from training import small_config

from trar.errors import ConfigError, DiskError, TrarError
from trar.features import local_sources
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint_room import checkpoint_room
from trar.trainer.dry_run import dry_run
from trar.trainer.loop import train
from trar.trainer.progress import Progress

LARGE = ("model.width=128", "model.ff_width=512")  # a checkpoint of some 3 MiB


@pytest.mark.parametrize(
    ("sets", "each", "count"),
    [
        (("loop.keep_last=2",), 12_000, 4),  # two and the best, and the one being written
        (("loop.keep_last=2", "schedule.epochs=1", "schedule.decay_epochs=[]"), 12_000, 2),
        (("loop.keep_last=1", "loop.checkpoint_steps=5"), 12_000, 4),
        (("loop.keep_last=1", "loop.ema=0.9"), 16_000, 3),
    ],
)
def test_the_checkpoints_that_are_there_at_a_time(
    sets: tuple[str, ...], each: int, count: int
) -> None:
    room = checkpoint_room(small_config(Path("store"), Path("runs"), *sets), 1000)
    assert (room.each, room.count) == (each, count)


def test_a_disk_too_small_for_the_checkpoints_is_refused_first(
    shared_store: FeatureStore, small_disk: Path
) -> None:
    config = small_config(shared_store.path, small_disk / "runs", *LARGE)
    said = r"/runs: room for 4 checkpoints needs \d+\.\d MiB, 3\.0 MiB are free; free some space"
    for work in (train, dry_run):
        with pytest.raises(DiskError, match=said):
            work(config)
    assert not (small_disk / "runs").exists()


def test_what_a_run_has_already_needs_no_room_again(
    shared_store: FeatureStore, small_disk: Path
) -> None:
    config = small_config(shared_store.path, small_disk / "runs", "schedule.epochs=3")

    class StopError(Exception):
        pass

    def stop(told: Progress) -> None:
        if told.stage == "epoch" and told.epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        train(config, stop)
    ballast = fill(small_disk)
    with pytest.raises(DiskError, match=r"/easy-vqa: room for 2 checkpoints needs .* 0 B are free"):
        train(config, resume="auto")
    ballast.unlink()
    assert train(config, resume="auto").history[-1]["epoch"] == 3


def test_a_machine_without_the_memory_is_refused_first(
    shared_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 8192 kB\nMemAvailable: 64 kB\n")
    monkeypatch.setattr(local_sources, "MEMORY_INFO", info)
    config = small_config(shared_store.path, tmp_path / "runs")
    for work in (train, dry_run):
        with pytest.raises(ConfigError) as caught:
            work(config)
        message = str(caught.value)
        assert message.startswith("this machine has 64.0 KiB of memory available, the run needs 27")
        assert "at the least (loader " in message
        assert message.endswith(
            "use a smaller data.batch_size, data.window, data.prefetch or model"
        )
    assert not (tmp_path / "runs").exists()


def test_a_full_gpu_is_explained(shared_store: FeatureStore, tmp_path: Path) -> None:
    """Raised here by the report: there is no GPU to fill."""

    def full(told: Progress) -> None:
        if told.stage == "train":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 …")

    sets = ("data.batch_size=15", "data.accumulation=3")
    with pytest.raises(TrarError) as caught:
        train(small_config(shared_store.path, tmp_path, *sets), full)
    assert str(caught.value) == (
        f"{tmp_path}/easy-vqa: the GPU's memory is too small for this step (CUDA out of memory); "
        "send each batch of 15 through the model in more parts (--set data.accumulation=5), take "
        "--set loop.precision=bf16, or score in smaller batches (--set data.eval_batch_size=16)"
    )
