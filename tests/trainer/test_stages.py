"""Recipes of two stages: the same weights go on, on other questions."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from training import SMALL, small_config

from trar.cli import main
from trar.errors import CheckpointError, ConfigError, TrarError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.config import TrainConfig
from trar.trainer.dry_run import dry_run
from trar.trainer.loop import TrainResult, train
from trar.trainer.preset_files import FirstStage, read_preset
from trar.trainer.progress import Progress
from trar.trainer.run_folder import newest_checkpoint
from trar.trainer.stages import train_stages
from trar.trainer.tensor_file import read_tensors

STAGES = (
    "base: easy-vqa\nsplit: train\neval_split: null\ncontinue_from: {split: train+val, epochs: 2}\n"
)


def two_stage_config(store: FeatureStore, folder: Path, *sets: str) -> TrainConfig:
    """Epochs 1 and 2 on train+val, epoch 3 on train."""
    preset = folder / "two.yaml"
    preset.write_text(STAGES)
    config = small_config(store.path, folder / "runs", "eval_split=null", *sets)
    return config.model_copy(update={"preset": str(preset)})


class Stop:
    """Ctrl-C at one step of one run."""

    def __init__(self, run: str, epoch: int, step: int) -> None:
        self.at = (run, epoch, step)

    def __call__(self, told: Progress) -> None:
        if told.stage == "train" and (told.run.name, told.epoch, told.step) == self.at:
            raise KeyboardInterrupt


def same_weights(one: Path, two: Path) -> bool:
    a, b = (read_tensors(path, "model.") for path in (one, two))
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Both stages, undisturbed."""
    return train_stages(two_stage_config(shared_store, tmp_path_factory.mktemp("whole")))


def test_the_published_two_stage_recipe() -> None:
    preset = read_preset("vqa-two-stage")
    assert preset.continue_from == FirstStage("train+val+vg", 10)
    assert preset.values["split"] == "train+val"
    assert preset.values["schedule"]["epochs"] == 13


def test_the_second_stage_goes_on_from_the_first(
    whole: TrainResult, shared_store: FeatureStore, tmp_path: Path
) -> None:
    first = load_checkpoint(whole.run.with_name("two-first"))
    assert (first.epoch, first.config.split) == (2, "train+val")
    last = load_checkpoint(whole.checkpoint)
    assert (whole.run.name, last.epoch, last.config.split) == ("two", 3, "train")
    assert last.config.start_from == first.path
    losses = [entry["loss"] for entry in last.history]
    assert losses[:2] == [entry["loss"] for entry in first.history]
    assert losses[2] < losses[0]
    assert (first.trained_on, last.trained_on) == (["train", "val"], ["train", "val"])
    config = two_stage_config(shared_store, tmp_path, f"start_from={first.path}")
    assert same_weights(train_stages(config).checkpoint, whole.checkpoint)
    assert not (tmp_path / "runs/two-first").exists()


@pytest.mark.parametrize("at", [("two-first", 2, 1), ("two", 3, 2)])
def test_a_stopped_stage_goes_on_to_the_same_bits(
    whole: TrainResult, shared_store: FeatureStore, tmp_path: Path, at: tuple[str, int, int]
) -> None:
    config = two_stage_config(shared_store, tmp_path)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train_stages(config, Stop(*at))
    if at[0] == "two-first":
        assert "same command and --run two --resume auto" in stopped.value.__notes__[0]
    resumed = train_stages(config, resume="auto")
    assert same_weights(whole.checkpoint, resumed.checkpoint)
    folders = {path.name for path in (tmp_path / "runs").iterdir()}
    assert folders == {"two", "two-first"}


def test_a_second_run_of_both_stages_has_folders_of_its_own(
    whole: TrainResult, shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = two_stage_config(shared_store, tmp_path)
    for name in ("two", "two-first"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train_stages(config, Stop("two-2-first", 2, 1))
    assert "--run two-2 --resume auto" in stopped.value.__notes__[0]
    resumed = train_stages(config.model_copy(update={"run": "two-2"}), resume="auto")
    assert resumed.run.name == "two-2"
    assert same_weights(whole.checkpoint, resumed.checkpoint)
    again = train_stages(config, resume="auto")  # the newest, which is finished
    assert again.checkpoint == resumed.checkpoint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("schedule.epochs=2", r"schedule\.epochs is 2, but the first of the two stages.* takes 2;"),
        ("eval_split=val", r"first stage .* is trained on train\+val: .*--set eval_split=null"),
        ("split=test", "the questions of split 'test' have no answers"),
    ],
)
def test_what_the_second_stage_refuses_is_refused_before_the_first(
    shared_store: FeatureStore, tmp_path: Path, change: str, message: str
) -> None:
    config = two_stage_config(shared_store, tmp_path, change)
    for refuse in (train_stages, dry_run):
        with pytest.raises(TrarError, match=message):
            refuse(config)
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_tells_the_cost_of_both_stages(
    whole: TrainResult, shared_store: FeatureStore, tmp_path: Path
) -> None:
    config = two_stage_config(shared_store, tmp_path, "loop.keep_last=1")
    found = dry_run(config)
    told = [(one.split, one.to_epoch, one.questions, one.steps) for one in found.stages]
    assert told == [("train+val", 2, 165, 11), ("train", 3, 120, 8)]
    assert [one.epoch_s for one in found.stages] == [found.step_s * steps for steps in (11, 8)]
    assert found.checkpoints == 5  # the last and the best of each, and the one being written
    second = dry_run(config.model_copy(update={"start_from": whole.checkpoint}))
    assert ([one.split for one in second.stages], second.checkpoints) == (["train"], 3)
    (tmp_path / "two.yaml").write_text(STAGES)
    sets = [word for one in (*SMALL, "eval_split=null") for word in ("--set", one)]
    place = ["--store", str(shared_store.path), "--preset", str(tmp_path / "two.yaml")]
    result = CliRunner().invoke(main, ["train", *place, *sets, "--device", "cpu", "--dry-run"])
    assert result.exit_code == 0, result.output
    first, then = (line for line in result.output.split("\n") if line.startswith("to epoch"))
    assert first.startswith("to epoch 2 on train+val: 165 questions an epoch, 11 steps, ")
    assert then.startswith("to epoch 3 on train: 120 questions an epoch, 8 steps, ")


def test_what_cannot_be_started_from_is_refused(shared_store: FeatureStore, tmp_path: Path) -> None:
    short = train(small_config(shared_store.path, tmp_path, "schedule.epochs=1"))
    config = small_config(shared_store.path, tmp_path, f"start_from={short.checkpoint}")
    other = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 0.1})})
    with pytest.raises(CheckpointError, match=r"other settings: optim\.lr 0\.005 -> 0\.1"):
        train(other)
    done = config.schedule.model_copy(update={"epochs": 1})
    with pytest.raises(CheckpointError, match=r"written after 1 epochs.*before the last of 1"):
        train(config.model_copy(update={"schedule": done}))
    assert [path.name for path in tmp_path.iterdir()] == ["easy-vqa"]


def test_what_the_first_stage_saw_is_not_scored(
    whole: TrainResult, shared_store: FeatureStore, tmp_path: Path
) -> None:
    first = f"start_from={newest_checkpoint(whole.run.with_name('two-first'))}"
    config = small_config(shared_store.path, tmp_path, first, "schedule.decay_epochs=[2]")
    with pytest.raises(ConfigError, match=r"trained on train\+val, so val cannot be scored"):
        train(config)
    arguments = ["eval", str(whole.checkpoint), "--store", str(shared_store.path)]
    result = CliRunner().invoke(main, [*arguments, "--split", "val", "--device", "cpu"])
    assert result.exit_code == 1
    assert "of val were trained on" in result.output
