"""What ``--dry-run`` says, and that it leaves nothing behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from training import SMALL, small_config

from trar.cli import main
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.dry_run import DryRun, dry_run
from trar.trainer.loop import train


@pytest.fixture(scope="module")
def found(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    runs = tmp_path_factory.mktemp("dry") / "runs"
    result = dry_run(small_config(shared_store.path, runs), ["optim.lr"])
    assert not runs.exists()
    return result


def test_the_losses_are_those_of_the_first_steps_without_dropout(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = ("model.dropout=0.0", "log_steps=1", "schedule.warmup_epochs=0")
    config = small_config(shared_store.path, tmp_path, *sets)
    found = dry_run(config)
    losses: list[float | None] = []
    train(config, lambda told: losses.append(told.loss) if told.stage == "train" else None)
    assert list(found.losses) == pytest.approx(losses[:2], rel=1e-6)


def test_sizes_are_those_of_a_real_run(
    found: DryRun, shared_store: FeatureStore, tmp_path: Path
) -> None:
    result = train(small_config(shared_store.path, tmp_path, "schedule.epochs=1"))
    weights = load_checkpoint(result.checkpoint).weights()
    model = load_checkpoint(result.checkpoint).model()
    assert found.parameters == sum(one.numel() for one in model.parameters())
    (stage,) = found.stages
    assert (stage.questions, stage.steps) == (len(shared_store.questions("train")), 8)
    written = result.checkpoint.stat().st_size
    assert (
        found.checkpoint_bytes < written < found.checkpoint_bytes + 80_000
    )  # the answers and words
    assert found.state_bytes == 4 * 4 * found.parameters
    assert set(weights) >= {name for name, _ in model.named_parameters()}


def test_flops_are_those_of_the_matrix_products(shared_store: FeatureStore, tmp_path: Path) -> None:
    narrow = dry_run(small_config(shared_store.path, tmp_path))
    deep = dry_run(small_config(shared_store.path, tmp_path, "model.layers=2"))
    deeper = dry_run(small_config(shared_store.path, tmp_path, "model.layers=3"))
    assert deep.flops > narrow.flops > 2 * 16 * 8 * 16  # more than the adapter alone
    assert deeper.flops - deep.flops == deep.flops - narrow.flops
    assert deep.activation_bytes > narrow.activation_bytes


def test_every_setting_has_its_origin(found: DryRun) -> None:
    origin = {one.name: one.origin for one in found.settings}
    assert origin["optim.lr"] == "given"
    assert origin["optim.betas"] == "preset easy-vqa"
    assert origin["loop.precision"] == "default"
    value = {one.name: one.value for one in found.settings}
    assert value["data.batch_size"] == 16


def test_the_command_tells_it_and_writes_nothing(
    shared_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    sets = [word for one in SMALL for word in ("--set", one)]
    options = ["--store", str(shared_store.path), "--preset", "easy-vqa", *sets, "--dry-run"]
    shown = CliRunner().invoke(main, ["train", *options])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"^optim\.lr +0\.005 +given$", shown.output, re.MULTILINE)
    assert "Nothing was written" in shown.output
    told = CliRunner().invoke(main, ["train", *options, "--json"])
    plain = json.loads(told.output)
    assert plain["stages"][0]["steps"] == 8
    assert plain["step_bytes"] > plain["state_bytes"]
    assert not list(tmp_path.iterdir())
    torch.set_num_threads(threads)


def test_what_training_refuses_a_dry_run_refuses(shared_store: FeatureStore) -> None:
    options = ["--store", str(shared_store.path), "--preset", "easy-vqa", "--dry-run"]
    refused = CliRunner().invoke(main, ["train", *options, "--set", "model.heads=3"])
    assert refused.exit_code == 1
    assert "not a multiple of heads 3" in refused.output
