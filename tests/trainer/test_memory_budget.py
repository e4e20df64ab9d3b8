"""What a run takes is said before it begins, and kept to a limit or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from training import SMALL, small_config

from trar.cli import data, main
from trar.errors import CheckpointError, ConfigError
from trar.features.reader import FeatureStore
from trar.features.schema import StoreMeta
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.config import TrainConfig, build_config
from trar.trainer.distributed import Ranks
from trar.trainer.loop import train
from trar.trainer.memory_bound import parse_size, size_text
from trar.trainer.memory_budget import (
    PROCESS_BYTES,
    memory_note,
    training_bytes,
    within_memory,
)
from trar.trainer.new_model import whole_model_config
from trar.trainer.progress import Progress
from trar.trainer.run_folder import newest_run
from trar.trainer.training_data import training_loader

MODEL = 1 << 20


def large(meta: StoreMeta) -> StoreMeta:
    """The same store with a million images."""
    images = {
        name: msgspec.structs.replace(split, images=10**6, shard_images=10**6)
        for name, split in meta.image_splits.items()
    }
    return msgspec.structs.replace(meta, image_splits=images)


def limited(config: TrainConfig, limit: int) -> TrainConfig:
    data = config.data.model_copy(update={"max_ram": limit})
    return config.model_copy(update={"data": data})


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 << 30), ("512M", 512 << 20), ("1.5 GiB", 3 << 29), ("64kb", 65536), (7, 7)],
)
def test_sizes_are_read_as_people_write_them(text: object, size: int) -> None:
    assert parse_size(text) == size


def test_what_is_no_size_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_ram is '8X', expected a size such as 8G"):
        small_config(Path("somewhere"), Path("runs"), "data.max_ram=8X")
    assert size_text(3 << 29) == "1.5 GiB"
    assert size_text(100) == "100 bytes"


def test_without_a_limit_nothing_changes(shared_store: FeatureStore, tmp_path: Path) -> None:
    config = small_config(shared_store.path, tmp_path, "data.order=block", "data.window=64M")
    for meta, window in ((shared_store.meta, "20.0 KiB"), (large(shared_store.meta), "128.0 MiB")):
        same, plan = within_memory(config, meta, model_bytes=MODEL)
        assert same == config
        assert memory_note(config, same, plan).startswith("loader memory at most ")
        assert f" window {window}, " in memory_note(config, same, plan)


@given(limit=st.integers(PROCESS_BYTES + int(47.2 * MODEL), PROCESS_BYTES + 50 * MODEL))
def test_a_limit_is_kept_to(shared_store: FeatureStore, limit: int) -> None:
    meta = large(shared_store.meta)
    asked = small_config(shared_store.path, Path("runs"), "data.order=block", "data.window=1M")
    config, plan = within_memory(limited(asked, limit), meta, model_bytes=MODEL)
    assert plan.total <= limit
    assert within_memory(config, meta, model_bytes=MODEL)[0] == config
    smallest = 2 * config.data.batch_size * 256
    assert smallest <= config.data.window <= asked.data.window
    assert config.data.prefetch == asked.data.prefetch or config.data.window < 2 * smallest


def test_a_limit_that_is_too_low_is_refused_with_what_is_needed(shared_store: FeatureStore) -> None:
    config = limited(small_config(shared_store.path, Path("runs")), 1 << 29)
    with pytest.raises(ConfigError) as caught:
        within_memory(config, shared_store.meta, model_bytes=MODEL)
    message = str(caught.value)
    assert message.startswith("--max-ram 512.0 MiB: this run needs 513.")
    assert "(loader " in message
    assert "model with gradients and moments 1.0 MiB, Python and torch 512.0 MiB; " in message
    assert (
        "activations come on top); give it that much, or use a smaller data.batch_size" in message
    )


def test_the_plan_is_the_bound_of_the_loader_that_is_made(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = small_config(shared_store.path, tmp_path)
    _, plan = within_memory(config, shared_store.meta, model_bytes=MODEL)
    loader = training_loader(config, shared_store, device="cpu", ranks=Ranks())
    assert loader.memory_bound() == plan.loader


def test_training_says_what_it_takes_and_keeps_to_the_limit(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    free = small_config(shared_store.path, tmp_path, "data.order=block", "schedule.epochs=1")
    model_bytes = training_bytes(whole_model_config(free, shared_store))
    _, plan = within_memory(free, shared_store.meta, model_bytes=model_bytes)
    config = limited(free, plan.total - 4096)
    told: list[Progress] = []
    result = train(config, told.append)
    notes = [one.note for one in told if one.note]
    assert "loader memory at most " in notes[-1]
    assert " of --max-ram 512.3 MiB: loader " in notes[-1]
    assert "; data.prefetch is now 4 and data.window 8.0 KiB" in notes[-1]
    assert load_checkpoint(result.run).config.data.window == 8192
    train(config, resume="auto")  # the same limit gives the same window
    with pytest.raises(CheckpointError, match=r"data.window 8192 -> 9216"):
        train(limited(config, plan.total - 2048), resume="auto")


def test_options_of_train_are_part_of_the_run(shared_store: FeatureStore, tmp_path: Path) -> None:
    sets = [part for one in (*SMALL, "schedule.epochs=1") for part in ("--set", one)]
    base = ["train", "--store", str(shared_store.path), "--runs", str(tmp_path), "--preset"]
    base += ["easy-vqa", "--device", "cpu", "--split", "train+val", *sets]
    options = ["--where", "question_type=is it", "--fraction", "0.5", "--limit", "50"]
    options += ["--mix", "train=0.5,val=0.5", "--order", "block", "--max-ram", "2G"]
    done = CliRunner().invoke(main, [*base, *options])
    assert done.exit_code == 0, done.output
    assert "Note: loader memory at most " in done.output
    run = newest_run(tmp_path, "easy-vqa")
    assert run is not None
    data = load_checkpoint(run).config.data
    assert (data.where, data.fraction, data.limit) == ("question_type=is it", 0.5, 50)
    assert (data.mix, data.order, data.max_ram) == ("train=0.5,val=0.5", "block", 2 << 30)
    again = CliRunner().invoke(main, [*base, *options, "--resume", "auto"])
    assert again.exit_code == 0, again.output
    assert "finished already" in again.output
    other = CliRunner().invoke(main, [*base, *options, "--limit", "40", "--resume", "auto"])
    assert other.exit_code == 1
    assert "the run began with other settings: data.limit 50 -> 40" in other.output
    wrong = CliRunner().invoke(main, [*base, "--where", "answer_typ=number"])
    assert wrong.exit_code == 1
    assert "(did you mean answer_type?)" in wrong.output


def test_info_says_what_a_training_takes(shared_store: FeatureStore, tmp_path: Path) -> None:
    place = ["info", "--store", str(shared_store.path)]
    shown = CliRunner().invoke(data, place)
    assert re.search(r"training +loader memory at most .*, in batches of 64", shown.output)
    bound = json.loads(CliRunner().invoke(data, [*place, "--json"]).stdout)["loader_memory_bytes"]
    preset = build_config(shared_store.path, preset="vqa-soft-avg").data
    usual = (f"data.batch_size={preset.batch_size}", f"data.prefetch={preset.prefetch}")
    config = small_config(shared_store.path, tmp_path, *usual)
    made = training_loader(config, shared_store, device="cpu", ranks=Ranks())
    assert 0 <= bound - made.memory_bound().total < 10_000  # info counts all splits' questions
