"""`trar eval`, `predict`, `ensemble` and `submit check`, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from stores import StorePlan, make_store
from training import small_config

from trar.cli import main
from trar.features.reader import FeatureStore
from trar.trainer.loop import train

SPLITS: Mapping[str, str] = {"train": "train", "val": "val", "minival": "val", "test": "test"}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    plan = StorePlan(rule="vqa", question_splits=SPLITS, same_ids={"minival": "val"})
    return make_store(tmp_path_factory.mktemp("scores") / "vqa", plan)


@pytest.fixture(scope="module")
def checkpoint(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    return train(small_config(store.path, runs, "schedule.epochs=1")).checkpoint


@pytest.fixture(scope="module")
def trained_on_val(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    config = small_config(store.path, runs, "schedule.epochs=1", split="train+val")
    return train(config).checkpoint


def test_a_score_has_intervals_and_stands_beside_the_baseline(
    store: FeatureStore, checkpoint: Path
) -> None:
    told = invoke("eval", checkpoint, "--store", store.path, "--question-types")
    assert told.exit_code == 0, told.output
    for part in (
        "45 questions, official VQA rules of 2021",
        "95 % interval over questions",
        "without the image (most frequent answer to the question)",
        "question type",
        "what colour",
    ):
        assert part in told.output
    assert "training accuracy" not in told.output
    plain = json.loads(invoke("eval", checkpoint, "--store", store.path, "--json").stdout)
    low, high = plain["intervals"]["overall"]
    assert low <= plain["overall"] <= high
    assert low < high
    assert plain["accuracy_of"] == "unseen questions"
    assert plain["intervals"]["per_question_type"].keys() == plain["per_question_type"].keys()
    assert plain["without_the_image"]["overall"] >= 0
    assert plain["notes"] == []


@pytest.mark.parametrize("split", ["val", "minival"])
def test_questions_that_were_trained_on_are_no_val_score(
    split: str, store: FeatureStore, trained_on_val: Path
) -> None:
    arguments = ["eval", trained_on_val, "--store", store.path, "--split", split]
    refused = invoke(*arguments)
    assert refused.exit_code == 1
    assert f"45 of the 45 questions of {split} were trained on (through val)" in refused.output
    assert len(refused.output.strip().splitlines()) == 1
    allowed = invoke(*arguments, "--allow-trained-on")
    assert allowed.exit_code == 0, allowed.output
    assert "\ntraining accuracy: " in allowed.output
    assert "Note: training accuracy, no accuracy on unseen questions" in allowed.output
    plain = json.loads(invoke(*arguments, "--allow-trained-on", "--json").stdout)
    assert plain["accuracy_of"] == "training questions"


def test_an_ensemble_of_one_scores_and_answers_as_the_model(
    store: FeatureStore, checkpoint: Path, tmp_path: Path
) -> None:
    logits, place = tmp_path / "val.npz", ["--store", store.path]
    alone = invoke("eval", checkpoint, *place, "--save-logits", logits, "--json")
    assert alone.exit_code == 0, alone.output
    together = invoke("ensemble", logits, logits, "--weights", "2,1", *place, "--json")
    assert together.exit_code == 0, together.output
    expected, found = json.loads(alone.stdout), json.loads(together.stdout)
    for key in ("overall", "per_answer_type", "intervals", "rules", "accuracy_of"):
        assert found[key] == expected[key]
    told = invoke("ensemble", logits, *place)
    assert f"Mean of 1 on {store.path}, split val" in told.output
    assert "45 questions, official VQA rules" in told.output


def test_an_ensemble_writes_the_file_that_predict_writes(
    store: FeatureStore, checkpoint: Path, tmp_path: Path
) -> None:
    logits, one, two = (tmp_path / name for name in ("test.npz", "one.json", "two.json"))
    extra = ["--save-logits", logits, "--logits-dtype", "float16"]
    answered = invoke("predict", checkpoint, "--store", store.path, "--out", one, *extra)
    assert answered.exit_code == 0, answered.output
    assert f"Next: trar submit check {one} --store {store.path} --split test" in answered.output
    assert np.load(logits)["logits"].dtype == np.float16
    written = invoke("ensemble", logits, "--out", two)
    assert written.exit_code == 0, written.output
    assert written.output == f"{two}: 18 answers\n"
    assert one.read_bytes() == two.read_bytes()
    refused = invoke("ensemble", logits, "--store", store.path)
    assert refused.exit_code == 1
    assert "the questions of split 'test' have no answers" in refused.output


def test_an_ensemble_that_saw_val_is_refused(
    store: FeatureStore, checkpoint: Path, trained_on_val: Path, tmp_path: Path
) -> None:
    files = []
    for number, one in enumerate((checkpoint, trained_on_val)):
        files.append(tmp_path / f"{number}.npz")
        extra = ["--save-logits", files[-1], "--split", "val", "--out", tmp_path / "x.json"]
        assert invoke("predict", one, "--store", store.path, *extra).exit_code == 0
    refused = invoke("ensemble", *files, "--store", store.path)
    assert refused.exit_code == 1
    assert "45 of the 45 questions of val were trained on (through val)" in refused.output
    allowed = invoke("ensemble", *files, "--store", store.path, "--allow-trained-on")
    assert "training accuracy: " in allowed.output


def test_what_is_handed_in_is_checked(
    store: FeatureStore, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    assert invoke("predict", checkpoint, "--store", store.path, "--out", path).exit_code == 0
    arguments = ["submit", "check", path, "--store", store.path]
    sound = invoke(*arguments)
    assert sound.exit_code == 0
    assert sound.output == (
        f"{path}: sound, 18 answers to all questions of test\n"
        "Submit to: https://eval.ai/web/challenges/challenge-page/830\n"
    )
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([*entries[1:], {"question_id": 5, "answer": 2}]))
    wrong = invoke(*arguments)
    assert wrong.exit_code == 1
    assert len(wrong.output.strip().splitlines()) == 3
    plain = json.loads(invoke(*arguments, "--json").stdout)
    assert (plain["sound"], len(plain["problems"])) == (False, 3)
    questions = tmp_path / "questions.json"
    asked = [{"question_id": one["question_id"], "image_id": 1} for one in entries]
    questions.write_text(json.dumps({"data_subtype": "test2015", "questions": asked}))
    path.write_text(json.dumps(entries))
    assert (
        "all questions of test2015"
        in invoke("submit", "check", path, "--questions", questions).output
    )


def test_clevr_is_predicted_as_lines(tmp_path: Path) -> None:
    plan = StorePlan(known_answers=("red", "green", "blue", "gray", "yes", "no"))
    store = make_store(tmp_path / "clevr", plan)
    checkpoint = train(small_config(store.path, tmp_path, "schedule.epochs=1")).checkpoint
    # the question indices of this store begin at 3000
    refused = invoke("predict", checkpoint, "--store", store.path)
    assert refused.exit_code == 1
    assert "the question indices end at 3017, and there are 18" in refused.output
    assert not list(checkpoint.parent.glob("result*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ensemble", "a.npz"], 2, "give --store, --out or both"),
        (["ensemble", "a.npz", "--out", "b.json", "--weights", "x"], 1, "a.npz: no such file"),
        (["ensemble", "a.npz", "--out", "nowhere/b.json"], 1, "there is no folder nowhere"),
        (["ensemble", "a.npz", "--out", "."], 1, "a folder; name the file to write"),
        (["ensemble", ".", "--out", "b.json"], 1, "a folder; give a file of saved logits"),
        (["submit", "check", "a.json", "--questions", "q.json"], 1, "q.json: no such file"),
        (
            *(["submit", "check", "a.json", "--questions", "q.json", "--split", "val"], 2),
            "--questions is compared with alone: leave out --split",
        ),
        (
            ["submit", "check", "a", "--questions", "q", "--store", "s", "--dataset", "vqa"],
            *(2, "leave out --store and --dataset"),
        ),
    ],
)
def test_problems_are_one_line(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == code
    assert message in result.output
