"""What may be another setting when a checkpoint is scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from systems import small_run

from trar.cli import main
from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import Checkpoint, load_checkpoint
from trar.trainer.evaluator import evaluate
from trar.trainer.loop import train
from trar.trainer.switches import with_switches

SHORT = ("schedule.epochs=1", "schedule.decay_epochs=[]", "optim.lr=0.1")


def trained(system: str, store: FeatureStore, folder: Path, *sets: str) -> Checkpoint:
    return load_checkpoint(train(small_run(system, store.path, folder, *SHORT, *sets)).checkpoint)


def test_a_checkpoint_is_scored_with_layers_pruned_and_stays_as_it_is(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    checkpoint = trained("lxmert", shared_store, tmp_path, "model.layer_drop=1")
    before = checkpoint.path.read_bytes()
    sets = ["model.language_kept=[1]", "model.cross_kept=[0]"]
    pruned = with_switches(checkpoint, sets)
    assert (pruned.config.model.language_kept, pruned.config.model.object_kept) == ((1,), None)
    layers = pruned.model().layers()
    assert {name: len(used) for name, used in layers.items()} == {
        "language": 1,
        "object": 2,
        "cross": 1,
    }
    kept: dict[str, list[np.ndarray]] = {"whole": [], "pruned": []}
    for name, one in (("whole", checkpoint), ("pruned", pruned)):
        evaluate(one, shared_store, "val", keep_logits=kept[name].append)
    assert not np.allclose(kept["whole"][0], kept["pruned"][0])
    words = [word for one in sets for word in ("--set", one)]
    on = [str(checkpoint.path), "--store", str(shared_store.path), "--device", "cpu"]
    answers = ["--out", str(tmp_path / "answers.json")]
    for command, rest in (("eval", []), ("predict", answers)):
        saved = tmp_path / f"{command}.npz"
        arguments = [command, *on, "--split", "val", *rest, *words, "--save-logits", str(saved)]
        said = CliRunner().invoke(main, arguments)
        assert said.exit_code == 0, said.output
        with np.load(saved) as file:
            np.testing.assert_array_equal(file["logits"], np.concatenate(kept["pruned"]))
        assert command == "predict" or "with model.language_kept=[1], model.cr" in said.output
    assert checkpoint.path.read_bytes() == before


def test_json_says_what_was_changed(shared_store: FeatureStore, tmp_path: Path) -> None:
    checkpoint = trained("trar", shared_store, tmp_path, "model.routing=hard")
    on = [str(checkpoint.path), "--store", str(shared_store.path), "--device", "cpu", "--json"]
    said = CliRunner().invoke(main, ["eval", *on, "--set", "model.eval_alpha=argmax"])
    assert json.loads(said.stdout)["set"] == ["model.eval_alpha=argmax"]


@pytest.mark.parametrize(
    ("system", "one", "message"),
    [
        (
            "trar",
            "model.layers=3",
            r"model.layers=3: nothing that trar can change after training; ",
        ),
        ("trar", "model.language_kept=[0]", "there are model.binarize, model.empty_window, "),
        ("trar", "model.eval_tau=-1", "model.eval_tau is -1, expected"),
        ("mcan", "model.binarize=true", "mcan can change after training; it has no such settings"),
    ],
)
def test_what_would_be_another_model_is_refused(
    shared_store: FeatureStore, tmp_path: Path, system: str, one: str, message: str
) -> None:
    config = small_run(system, shared_store.path, tmp_path)
    checkpoint = Checkpoint(
        path=tmp_path,
        config=config,
        epoch=1,
        step=1,
        dataset="tiny",
        store_fingerprint="",
        feature_dim=8,
        grid_side=4,
        history=(),
        vocabulary=shared_store.vocabulary,
        answers=shared_store.answers,
    )
    with pytest.raises(ConfigError, match=message):
        with_switches(checkpoint, [one])
