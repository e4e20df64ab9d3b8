"""Damage ends a training: at once, with exit code 1, naming shard, image and the way out."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from s3_objects import upload
from stores import make_store
from torchrun_processes import run as torchrun
from training import SMALL

from trar.cli import main
from trar.features.chunk_table import read_chunk_table
from trar.features.containers import open_backend
from trar.features.schema import Container, read_meta

CONTAINERS: tuple[Container, ...] = ("zarr", "hdf5")
ROW = 13  # of split train, in its second shard


@pytest.fixture(scope="module", params=CONTAINERS)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("sound") / "tiny", container=request.param).path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "tiny")
    return tmp_path / "tiny"


def shard_file(store: Path) -> Path:
    meta = read_meta(store)
    files = open_backend(store, meta.container).shard_files("train", 1, meta.feature)
    return store / files["features"]


def train(store: Path | str, runs: Path) -> Result:
    settings = [part for one in SMALL for part in ("--set", one)]
    place = ["--store", str(store), "--runs", str(runs), "--run", "damaged", "--preset", "easy-vqa"]
    return CliRunner().invoke(main, ["train", *place, "--device", "cpu", *settings])


def flip(store: Path) -> None:
    meta = read_meta(store)
    table = read_chunk_table(store, "train", meta.image_splits["train"].images)
    content = bytearray(shard_file(store).read_bytes())
    content[int(table.offset[ROW]) + 5] ^= 16
    shard_file(store).write_bytes(content)


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "trar-loader"]


@pytest.mark.timeout(60)
def test_one_flipped_bit_ends_the_training_by_name(store: Path, tmp_path: Path) -> None:
    """In the first epoch, before anything is scored: no early end, no hang, nothing saved."""
    flip(store)
    result = train(store, tmp_path / "runs")
    assert result.exit_code == 1, result.output
    message = result.output.splitlines()[-1]
    assert message.startswith(
        f"Error: {shard_file(store)}: image {ROW * 3 + 7} (row {ROW} of train)"
    )
    assert f"`trar-data repair --store {store}` makes it anew from the raw files" in message
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
    log = tmp_path / "runs/damaged/log.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    assert not [one for one in events if "scores" in one]
    assert not loader_threads()


@pytest.mark.timeout(120)
def test_a_damaged_image_of_one_rank_ends_all_ranks_by_name(tmp_path: Path) -> None:
    """The other rank waits for it in the sum of gradients."""
    store = make_store(tmp_path / "tiny").path
    flip(store)
    done = torchrun(2, store, tmp_path / "runs", "--set", "data.batch_size=8")
    assert done.returncode == 1, done.stderr
    line = next(one for one in done.stderr.splitlines() if "does not match its crc32c" in one)
    shard, image = re.escape(str(shard_file(store))), ROW * 3 + 7
    assert re.match(rf"rank [01]: Error: {shard}: image {image} \(row {ROW} of train\)", line)
    assert f"`trar-data repair --store {store}` makes it anew from the raw files" in line
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


@pytest.mark.timeout(60)
def test_one_flipped_bit_in_a_bucket_ends_the_training_by_name(bucket: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "tiny").path
    flip(store)
    upload(store, f"{bucket}/tiny")
    result = train(f"{bucket}/tiny", tmp_path / "runs")
    assert result.exit_code == 1, result.output
    message = result.output.splitlines()[-1]
    shard = f"{bucket}/tiny/{shard_file(store).relative_to(store)}"
    assert message.startswith(f"Error: {shard}: image {ROW * 3 + 7} (row {ROW} of train)")
    assert f"`trar-data repair --store {bucket}/tiny` makes it anew" in message
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
    assert not loader_threads()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_deleted_or_cut_shard_is_refused_at_the_start(
    store: Path, tmp_path: Path, damage: str
) -> None:
    path = shard_file(store)
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    result = train(store, tmp_path / "runs")
    assert result.exit_code == 1, result.output
    assert f"Error: {path}: " in result.output
    assert f"`trar-data repair --store {store}`" in result.output


@pytest.mark.timeout(60)
def test_shard_that_is_cut_while_training_ends_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes were right when the store was opened; the read itself finds out."""
    from trar.trainer.loader import BatchStream

    enter = BatchStream.__enter__

    def cut_first(self: BatchStream) -> BatchStream:
        shard_file(store).write_bytes(shard_file(store).read_bytes()[:50])
        return enter(self)

    monkeypatch.setattr(BatchStream, "__enter__", cut_first)
    result = train(store, tmp_path / "runs")
    assert result.exit_code == 1, result.output
    assert f"Error: {shard_file(store)}: " in result.output
    assert not loader_threads()
