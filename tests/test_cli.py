"""What a person types and reads: exit codes, messages, and help."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from raw_data import image_ids, tree

from trar.cli import data, main
from trar.trainer.run_folder import checkpoints_in

COMMANDS = [
    (group, name, command)
    for group, members in (("trar-data", data), ("trar", main))
    for name, command in members.commands.items()
]
SMALL = [
    f"--set={one}"
    for one in (
        "model.layers=1",
        "model.width=8",
        "model.heads=2",
        "model.ff_width=8",
        "model.word_width=4",
        "model.flat_hidden=8",
        "model.flat_width=8",
        "schedule.epochs=1",
        "schedule.warmup_epochs=0",
        "schedule.decay_epochs=[]",
    )
]


def invoke(group: click.Group, *arguments: object) -> Result:
    return CliRunner().invoke(group, [str(one) for one in arguments])


@pytest.fixture
def store(vqa_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(vqa_store, tmp_path / "features")
    return tmp_path / "features"


@pytest.mark.parametrize(("group", "name", "command"), COMMANDS)
def test_every_command_explains_itself_with_an_example(
    group: str, name: str, command: click.Command
) -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert f"Example: {group} {name}" in result.output
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{group} {name} {parameter.opts} has no help"


def test_prepare_verify_info_on_real_questions(vqa_raw: Path, tmp_path: Path) -> None:
    store = tmp_path / "features"
    made = invoke(
        data, "prepare", "--raw", vqa_raw, "--store", store, "--split", "train+val",
        "--workers", 0, "--shard-images", 20,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "finished. Questions: train " in made.output
    assert "published checkpoints need all four question files (20,573 tokens)" in made.output
    assert f"Next: trar-data verify --store {store}" in made.output
    again = invoke(data, "prepare", "--raw", vqa_raw, "--store", store, "--split", "train+val")
    assert "already complete, nothing to do" in again.output
    proved = invoke(data, "verify", "--store", store)
    assert proved.exit_code == 0
    assert "sound. " in proved.output
    assert "raw: not checked" in proved.output
    assert json.loads(invoke(data, "verify", "--store", store, "--json").output)["sound"] is True
    assert invoke(data, "verify", store).output == proved.output
    told = invoke(data, "info", store)
    assert "8x8 cells x 12, float16" in told.output
    assert "ten annotators: soft targets, official VQA accuracy" in told.output
    plain = json.loads(invoke(data, "info", "--store", store, "--json").output)
    assert plain["question_splits"]["val"]["answers_per_question"] == 10


def test_damage_ends_with_one_and_names_the_shard(store: Path) -> None:
    shard = store / "vqa/arrays.zarr/images/val2014/features/c/0/0/0"
    data_bytes = bytearray(shard.read_bytes())
    data_bytes[77] ^= 1
    shard.write_bytes(data_bytes)
    result = invoke(data, "verify", "--store", store)
    assert result.exit_code == 1
    assert f"{shard}: sha256 is" in result.output
    assert "1 problem(s) found; `trar-data repair --store " in result.output
    assert "Traceback" not in result.output
    report = json.loads(
        CliRunner().invoke(data, ["verify", "--store", str(store), "--json"]).stdout
    )
    assert report["problems"][0]["where"].endswith("val2014/features/c/0/0/0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--store", "nowhere"], "Error: nowhere: no such folder; make the store with"),
        (["prepare", "--raw", "nowhere"], "Error: no questions file for split 'train': expected"),
        (["prepare", "--split", "train+x"], "Error: --split train+x: 'x' is no split"),
    ],
)
def test_problems_of_the_user_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(data, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("group", "arguments", "message"),
    [
        (data, ["verfy"], "No such command 'verfy'. Did you mean 'verify'?"),
        (data, ["prepare", "--limit", "0"], "Input should be greater than or equal to 1"),
        (data, ["prepare", "--dtype", "int8"], "'int8' is not one of 'float16', 'float32'"),
        (main, ["train", "--wrong"], "No such option"),
        (main, ["eval"], "no checkpoint given and none in ./runs: name a file or a run"),
    ],
)
def test_wrong_usage_ends_with_two(
    group: click.Group,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(group, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_a_bug_ends_with_three_and_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("trar.features.schema.find_dataset", broken)
    result = invoke(data, "verify")
    assert result.exit_code == 3
    assert "this is a bug in trar" in result.output


def test_train_eval_predict(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained = invoke(main, "train", "--store", store, "--run", "small", *SMALL)
    assert trained.exit_code == 0, trained.output
    assert "official VQA rules of 2021" in trained.output
    checkpoint = checkpoints_in(tmp_path / "runs/small")[1]
    assert f"Next: trar eval {checkpoint.relative_to(tmp_path)}" in trained.output
    scored = invoke(main, "eval", "--store", store, "--split", "val")
    assert scored.exit_code == 0, scored.output
    assert "without the image (most frequent answer to the question)" in scored.output
    plain = json.loads(invoke(main, "eval", "--store", store, "--json").output)
    assert plain["rules"] == "official"
    legacy = json.loads(
        invoke(main, "eval", "--store", store, "--json", "--rules", "legacy").output
    )
    assert legacy["rules"] == "legacy"
    answered = invoke(main, "predict", checkpoint, "--store", store, "--split", "val")
    assert answered.exit_code == 0, answered.output
    entries = json.loads((tmp_path / "runs/small/result-val.json").read_text())
    assert len(entries) == plain["questions"]
    assert set(entries[0]) == {"question_id", "answer"}


def test_checkpoint_of_another_vocabulary_is_refused(
    store: Path, vqa_raw: Path, tmp_path: Path
) -> None:
    arguments = ["--store", store, "--runs", tmp_path / "runs", "--run", "small", *SMALL]
    assert invoke(main, "train", *arguments).exit_code == 0
    raw = tmp_path / "data"
    shutil.copytree(vqa_raw, raw)
    (raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json").unlink()
    other = tmp_path / "other"
    made = invoke(data, "prepare", "--raw", raw, "--store", other, "--split", "train")
    assert made.exit_code == 0, made.output
    result = invoke(main, "eval", tmp_path / "runs/small", "--store", other, "--split", "train")
    assert result.exit_code == 1
    assert "the checkpoint's vocabulary has" in result.output
    assert "the store was made without val" in result.output


def wait_until(condition, process: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended early: {process.communicate()}"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_in_prepare_says_how_to_go_on(
    vqa_raw: Path, vqa_store: Path, tmp_path: Path, workers: str
) -> None:
    """The signal goes to the whole foreground group, as from a terminal."""
    store = tmp_path / "features"
    command = [
        Path(sysconfig.get_path("scripts")) / "trar-data", "prepare", "--raw", vqa_raw,
        "--store", store, "--shard-images", "1" if workers == "2" else "20", "--workers", workers,
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    shards = store / "vqa/arrays.zarr/images/train2014/features/c"
    wait_until(lambda: len(list(shards.glob("*/0/0"))) >= 1, process)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert "Finished shards are kept: run the same command again to go on." in error
    assert "Traceback" not in error
    assert not (store / "vqa/store.json").exists()
    if workers == "0":
        again = invoke(data, "prepare", "--raw", vqa_raw, "--store", store, "--shard-images", 20)
        assert again.exit_code == 0, again.output
        assert tree(store) == tree(vqa_store)
        assert len(image_ids("train2014")) > 20


def test_ctrl_c_in_training_says_how_to_go_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [Path(sysconfig.get_path("scripts")) / "trar", "train", "--store", store, *SMALL[:-3]]
    process = subprocess.Popen(
        [sys.executable, *map(str, command), "--set=schedule.epochs=50"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    runs = tmp_path / "runs/vqa-soft-avg"
    wait_until(lambda: runs.is_dir() and checkpoints_in(runs), process)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert "continue with the same command and --run vqa-soft-avg" in error
    assert "Traceback" not in error
