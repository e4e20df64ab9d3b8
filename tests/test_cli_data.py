"""``trar-data`` as a person uses it: looking before running, at records, at raw files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from raw_data import image_ids, tree
from raw_forms import FIXED, folder_of_npz, region_count

from trar.cli import data
from trar.features import FeatureStore


def invoke(*arguments: object, group: click.Group = data) -> Result:
    return CliRunner().invoke(group, [str(one) for one in arguments])


def test_dry_run_says_what_would_be_done_and_writes_nothing(vqa_raw: Path, tmp_path: Path) -> None:
    store = tmp_path / "features"
    arguments = ["prepare", "--raw", vqa_raw, "--store", store, "--shard-images", 20]
    result = invoke(*arguments, "--dry-run")
    assert result.exit_code == 0, result.output
    assert not store.exists()
    for words in (
        "8x8 cells x 12, float16",
        "questions train",
        "v2_mscoco_val2014_annotations.json",
        "0 finished by an earlier run",
        "from a few images read now",
        "Nothing was written",
    ):
        assert words in result.output
    plain = json.loads(invoke(*arguments, "--dry-run", "--json").output)
    assert plain["images"] == {"train2014": 87, "val2014": 94}
    assert plain["shards"] == 10
    invoke(*arguments, "--workers", 0)
    size = sum(len(one) for one in tree(store).values())
    assert plain["write_bytes"] >= size
    again = json.loads(invoke(*arguments, "--dry-run", "--json").output)
    assert (again["questions"], again["kept"], again["write_bytes"]) == ({}, ["train", "val"], 0)


def test_prepare_reports_as_json(vqa_raw: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        data,
        ["prepare", "--raw", str(vqa_raw), "--store", str(tmp_path / "s"), "--json"],
    )
    plain = json.loads(result.stdout)
    assert plain["made"] == ["train", "val"]
    assert plain["store"]["question_splits"]["val"]["questions"] == 200
    assert any("20,573" in line for line in plain["warnings"])


def test_show_draws_a_grid(vqa_store: Path) -> None:
    store = FeatureStore(vqa_store)
    question_id = int(store.questions("val").ids[0])
    result = invoke("show", f"vqa/val/{question_id}", "--store", vqa_store)
    assert result.exit_code == 0, result.output
    assert store.questions("val").texts[0] in result.output
    assert "norms over the 8x8 grid" in result.output
    picture = result.output.splitlines()[-8:]
    assert picture[:2] == [" ·" * 8] * 2  # the first two rows of the grid are padding
    assert all(len(line) == 16 for line in picture)
    plain = json.loads(invoke("show", f"val/{question_id}", "--store", vqa_store, "--json").output)
    assert plain["norms"][:16] == [None] * 16
    row = store.questions("val").image_row[0]
    values = store.read("val2014", [row]).features[0].astype(np.float64)
    assert plain["norms"][20] == pytest.approx(np.linalg.norm(values[20]), rel=1e-5)
    assert sum(one["annotators"] for one in plain["answers"]) == 10
    words = [one["word"] for one in plain["tokens"]]
    assert words == store.vocabulary.decode([one["id"] for one in plain["tokens"]])


def test_show_lists_regions(vqa_raw: Path, tmp_path: Path) -> None:
    features = tmp_path / "feats"
    folder_of_npz(features / "val2014", "val2014", image_ids("val2014"), region_count)
    made = invoke(
        "prepare", "--raw", vqa_raw, "--features", features, "--split", "val", "--store",
        tmp_path / "s", "--workers", 0,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    question_id = FeatureStore(tmp_path / "s").questions("val").ids[0]
    result = invoke("show", f"val/{question_id}", "--store", tmp_path / "s")
    assert "regions" in result.output
    assert " pixels" in result.output
    told = invoke("info", tmp_path / "s")
    assert "at most 20 regions x 48, float16, boxes" in told.output
    assert "made from val" in told.output


@pytest.mark.parametrize(
    ("record", "code", "message"),
    [
        ("vqa/val/7", 1, "no question 7 in split val; it has 200, the first are"),
        ("vqa/dev/7", 1, "no question split 'dev'"),
        ("clevr/val/7", 1, "no dataset 'clevr' in this store; it has vqa"),
        ("seven", 2, "expected SPLIT/QUESTION_ID or DATASET/SPLIT/QUESTION_ID"),
    ],
)
def test_show_of_what_is_not_there(vqa_store: Path, record: str, code: int, message: str) -> None:
    result = invoke("show", record, "--store", vqa_store)
    assert result.exit_code == code
    assert message in result.output


def test_verify_judges_raw_files_without_a_store(vqa_raw: Path, tmp_path: Path) -> None:
    result = invoke("verify", "--raw", vqa_raw, "--store", tmp_path / "none")
    assert result.exit_code == 0, result.output
    assert "there is no store, so only the raw files were judged" in result.output
    assert "402 questions, the published file has 443,757: a part of it" in result.output
    strict = invoke("verify", "--raw", vqa_raw, "--store", tmp_path / "none", "--strict")
    assert strict.exit_code == 1
    assert "(--strict: warnings count)" in strict.output


def test_verify_names_broken_raw_joins(vqa_raw: Path, tmp_path: Path) -> None:
    raw = tmp_path / "data"
    shutil.copytree(vqa_raw, raw)
    next((raw / "vqa/feats/val2014").iterdir()).unlink()
    questions = raw / "vqa/raw/v2_OpenEnded_mscoco_train2014_questions.json"
    shutil.copy(raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json", questions)
    result = invoke("verify", "--raw", raw, "--store", tmp_path / "none")
    assert result.exit_code == 1
    assert "its header says val2014, expected train2014" in result.output
    assert "1 images that have no features" in result.output
    assert "fetch the raw files that are named" in result.output


def test_verify_of_a_folder_without_raw_files_is_not_sound(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = invoke("verify", "--raw", tmp_path / "data", "--store", tmp_path / "none")
    assert result.exit_code == 1
    assert "no raw file of vqa is in this folder" in result.output


def test_verify_deep(vqa_raw: Path, vqa_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    shutil.copytree(vqa_store, store)
    result = invoke("verify", store, "--raw", vqa_raw, "--deep")
    assert result.exit_code == 0, result.output
    assert "181 images equal their raw files" in result.output
    other = tmp_path / "data"
    shutil.copytree(vqa_raw, other)
    path = sorted((other / "vqa/feats/val2014").glob("*.npy"))[0]
    np.save(path, np.load(path) + np.float16(1))
    result = invoke("verify", store, "--raw", other, "--deep")
    assert result.exit_code == 1
    assert f"differs from {path}" in result.output
    result = invoke("verify", store, "--deep")
    assert result.exit_code == 2
    assert "--deep needs --raw or --features" in result.output


def test_verify_tells_what_may_spoil_a_result(vqa_raw: Path, tmp_path: Path) -> None:
    raw = tmp_path / "data"
    (raw / "vqa").mkdir(parents=True)
    (raw / "vqa/raw").symlink_to(vqa_raw / "vqa/raw")
    folder = folder_of_npz(raw / "vqa/feats/val2014", "val2014", image_ids("val2014"))
    next(iter(sorted(folder.iterdir()))).unlink()
    made = invoke(
        "prepare", "--raw", raw, "--split", "val", "--store", tmp_path / "s", "--workers", 0,
        "--on-bad-image", "skip",
    )  # fmt: skip
    assert "Warning: val2014: 1 images left out" in made.output
    result = invoke("verify", tmp_path / "s")
    assert result.exit_code == 0
    assert "Warning:" in result.output
    assert "1 images were left out when the store was made" in result.output
    assert invoke("verify", tmp_path / "s", "--strict").exit_code == 1
    plain = json.loads(CliRunner().invoke(data, ["verify", str(tmp_path / "s"), "--json"]).stdout)
    assert plain["sound"] is True
    assert {one["level"] for one in plain["findings"]} >= {"warning"}


def test_skipped_regions_keep_their_shape(vqa_raw: Path, tmp_path: Path) -> None:
    features = folder_of_npz(tmp_path / "f/val2014", "val2014", image_ids("val2014"))
    invoke(
        "prepare", "--raw", vqa_raw, "--features", features.parent, "--split", "val",
        "--store", tmp_path / "s", "--workers", 0,
    )  # fmt: skip
    assert FeatureStore(tmp_path / "s").meta.feature.rows == FIXED


@pytest.mark.parametrize("program", ["trar-data", "trar"])
def test_shell_completion_knows_commands_and_choices(program: str) -> None:
    """As bash asks for it; docs/cli.md says how to turn it on."""
    script = Path(sysconfig.get_path("scripts")) / program
    name = f"_{program.upper().replace('-', '_')}_COMPLETE"

    def complete(words: str) -> list[str]:
        count = len(words.split()) - (not words.endswith(" "))
        environment = {**os.environ, name: "bash_complete", "COMP_WORDS": words}
        result = subprocess.run(
            [script],
            env={**environment, "COMP_CWORD": str(count)},
            capture_output=True,
            text=True,
            check=False,
        )
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert ("prepare" if program == "trar-data" else "train") in complete(f"{program} ")
    if program == "trar-data":
        assert complete("trar-data prepare --dataset cl") == ["clevr"]
