"""What ``trar show spans``, ``alphas``, ``sparsity``, ``layers`` and ``routing`` say of trained
models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from lxmert_runs import ALL, small_lxmert
from training import small_config

from trar.cli import main
from trar.features.reader import FeatureStore
from trar.trainer.attention_tables import routing_weights
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.loop import train
from trar.trainer.run_folder import read_log


@pytest.fixture(scope="module")
def adaptive(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sets = (*ALL, "model.cross_kept=[1]", "schedule.epochs=1", "optim.lr=0.3")
    config = small_lxmert(shared_store.path, tmp_path_factory.mktemp("adaptive"), *sets)
    return train(config).checkpoint


@pytest.fixture(scope="module")
def routed(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sets = ("schedule.epochs=1", "schedule.decay_epochs=[]")
    config = small_config(shared_store.path, tmp_path_factory.mktemp("routed"), *sets)
    return train(config).checkpoint


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["show", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_help_of_the_group_says_both_things_that_it_shows() -> None:
    assert "Show what a recipe does, and what a model has learned." in run("--help")


@pytest.mark.parametrize(("command", "what"), [("spans", "span"), ("alphas", "alpha")])
def test_every_head_that_has_learned_one_is_shown(adaptive: Path, command, what, tmp_path) -> None:
    rows = {
        row["attention"]: row["heads"] for row in json.loads(run(command, str(adaptive), "--json"))
    }
    own = {
        name: getattr(one, what).tolist()
        for name, one in load_checkpoint(adaptive).model().attentions()
        if getattr(one, what) is not None
    }
    assert rows == own
    assert "language.0.attention" in run(command, str(adaptive))
    pytest.importorskip("matplotlib")
    run(command, str(adaptive), "--plot", str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_sparsity_and_layers_are_those_that_training_has_logged(
    adaptive: Path, shared_store: FeatureStore, tmp_path: Path
) -> None:
    (line,) = [one for one in read_log(adaptive.parent) if one["event"] == "figures"]
    logged, store = line["figures"], ["--store", str(shared_store.path), "--device", "cpu"]
    rows = json.loads(run("sparsity", str(adaptive), *store, "--json"))
    assert {row["attention"] for row in rows} == set(logged["sparsity"])
    for row in rows:
        assert row["heads"] == pytest.approx(logged["sparsity"][row["attention"]], abs=1e-6)
    assert "language.0.attention" in run("sparsity", str(adaptive), *store, "--questions", "3")
    layers = json.loads(run("layers", str(adaptive), "--json"))
    assert [one["layer"] for one in layers if not one["evaluation"]] == ["cross.0"]
    trained = logged["layers_in_training"]
    assert [one["training"] for one in layers] == [*trained["language"], *trained["object"],
                                                   *trained["cross"]]  # fmt: skip
    assert 0 < layers[0]["training"] < 1
    assert "at evaluation" in run("layers", str(adaptive))
    pytest.importorskip("matplotlib")
    for command in (["sparsity", str(adaptive), *store], ["layers", str(adaptive)]):
        path = tmp_path / f"{command[0]}.png"
        run(*command, "--plot", str(path))
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_weights_of_windows_are_means_over_the_questions_of_a_type(
    routed: Path, shared_store: FeatureStore
) -> None:
    rows = routing_weights(load_checkpoint(routed), shared_store, "val", device="cpu")
    assert rows[0].question_type == "all"
    assert rows[0].questions == sum(row.questions for row in rows[1:])
    for row in rows:
        np.testing.assert_allclose(np.sum(row.weights, axis=1), 1, atol=1e-5)
    whole = np.average(
        [r.weights for r in rows[1:]], axis=0, weights=[r.questions for r in rows[1:]]
    )
    np.testing.assert_allclose(rows[0].weights, whole, atol=1e-6)
    store = ["--store", str(shared_store.path)]
    assert "window 0" in run("routing", str(routed), *store, "--device", "cpu")


def test_models_that_have_learned_none_say_so(
    routed: Path, adaptive: Path, shared_store: FeatureStore
) -> None:
    result = CliRunner().invoke(main, ["show", "spans", str(routed)])
    assert (result.exit_code, "--set model.adaptive_span=true" in result.output) == (1, True)
    store = ["--store", str(shared_store.path)]
    result = CliRunner().invoke(main, ["show", "routing", str(adaptive), *store])
    assert (result.exit_code, "lxmert routes nothing" in result.output) == (1, True)
    result = CliRunner().invoke(main, ["show", "sparsity", str(routed), *store])
    assert (result.exit_code, "is ever zero; train lxmert" in result.output) == (1, True)
    result = CliRunner().invoke(main, ["show", "layers", str(routed)])
    assert (result.exit_code, "--set model.layer_drop=1" in result.output) == (1, True)
