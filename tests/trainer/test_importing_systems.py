"""`trar import` of MCAN and RWSAN weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from reference_files import Reference, load_reference
from torch import Tensor

from trar.cli import main
from trar.errors import CheckpointError
from trar.features.answers import AnswerDictionary
from trar.features.text import Vocabulary
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.importers import import_checkpoint, import_state, read_original
from trar.trainer.tensor_file import read_tensors

SETS = {
    "mcan": ["model.heads=4"],
    "rwsan": ["model.heads=4", "model.question_repeats=2", "model.image_repeats=2"],
}
CLS = 2


@pytest.fixture(params=sorted(SETS))
def system(request) -> str:
    return request.param


def reference(system: str) -> Reference:
    return load_reference(f"{system}_vqa")


def write_inputs(folder: Path, state: dict[str, Tensor], words: int) -> list[str]:
    """The file of the original code, and a vocabulary of so many words with CLS; returns the
    arguments that name them."""
    torch.save({"state_dict": state, "optimizer": {}, "epoch": 16}, folder / "epoch16.pkl")
    tokens = ("PAD", "UNK", "CLS", *(f"w{n}" for n in range(words - 3)))
    vocabulary = Vocabulary(tokens, (("train", 9),)).to_json()
    (folder / "words.json").write_text(json.dumps(vocabulary))
    answers = AnswerDictionary(tuple(f"a{n}" for n in range(len(state["proj.bias"])))).to_json()
    (folder / "answer_dict.json").write_text(json.dumps(answers))
    return [
        *("import", str(folder / "epoch16.pkl"), "--vocabulary", str(folder / "words.json")),
        *("--answers", str(folder / "answer_dict.json")),
    ]


@pytest.mark.parametrize("without_cls", [False, True])
def test_imported_weights_answer_as_the_original_code(
    system: str, without_cls: bool, tmp_path: Path
) -> None:
    theirs = reference(system)
    arguments = write_inputs(tmp_path, theirs.state, theirs.sizes["vocab"] + without_cls)
    sets = [word for one in SETS[system] for word in ("--set", one)]
    result = CliRunner().invoke(main, [*arguments, *sets])
    assert result.exit_code == 0, result.output
    assert "names are weights, and all of them were taken" in result.output
    checkpoint = load_checkpoint(tmp_path / "epoch16.safetensors")
    preset = {"mcan": "mcan-small", "rwsan": "rwsan-vqa"}[system]
    assert (checkpoint.epoch, checkpoint.config.preset) == (16, preset)
    assert (checkpoint.config.model.system, checkpoint.config.model.width) == (system, 16)
    model = checkpoint.model().double()
    model.load_state_dict(read_tensors(checkpoint.path, "model."))
    image, question = theirs.inputs("image", "question")
    if without_cls:  # our words come after CLS, theirs do not
        question = question + (question >= CLS)
    theirs.check_logits(model(image, question))


def test_the_command_says_of_every_name_what_is_wrong_with_it(system: str, tmp_path: Path) -> None:
    theirs = reference(system).state
    state = {name.replace("linear_merge", "linear_out"): value for name, value in theirs.items()}
    renamed = theirs.keys() - state.keys()
    assert len(renamed) > 5  # more than the message lists
    state["proj.bias"] = torch.zeros(3)
    arguments = write_inputs(tmp_path, state, len(state["embedding.weight"]))
    sets = [word for one in SETS[system] for word in ("--set", one)]
    result = CliRunner().invoke(main, [*arguments, *sets])
    assert result.exit_code == 1
    *said, message = result.output.splitlines()
    expected = {f"missing: {name}" for name in renamed}
    expected |= {f"left over: {name}" for name in state.keys() - theirs.keys()}
    assert {
        line for line in said if not line.startswith("wrong shape: proj.bias [3], ")
    } == expected
    assert len(said) == len(expected) + 1
    assert "Nothing was imported; check layers, pooling and sizes" in message


def test_the_original_names_tell_the_system(system: str, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in reference(system).state.items()}
    torch.save(state, tmp_path / "epoch.pkl")
    original = read_original(tmp_path / "epoch.pkl")
    assert (original.system, original.on_clevr) == (system, False)


def test_a_preset_of_another_system_is_refused(system: str, tmp_path: Path) -> None:
    state = reference(system).state
    arguments = write_inputs(tmp_path, state, len(state["embedding.weight"]))
    result = CliRunner().invoke(main, [*arguments, "--preset", "vqa-soft-avg"])
    assert result.exit_code
    assert f"these are weights of {system}, preset vqa-soft-avg is of trar" in result.output
    assert result.output.count("\n") == 1


def test_names_of_mcan_vqa_are_taken_too() -> None:
    theirs = reference("mcan")
    older = {
        name.replace("adapter.frcn_linear", "img_feat_linear"): value
        for name, value in theirs.state.items()
    }
    model = import_state("mcan", older, {"heads": 4})
    theirs.check_logits(model(*theirs.inputs("image", "question")))


@pytest.mark.parametrize("missing", ["lstm.weight_hh_l0", "proj.bias"])
def test_what_is_missing_is_named(system: str, missing: str, tmp_path: Path) -> None:
    state = reference(system).state
    del state[missing]
    torch.save(state, tmp_path / "epoch.pkl")
    with pytest.raises(CheckpointError, match=missing):
        import_checkpoint(tmp_path / "epoch.pkl", sizes={"heads": 4})


def test_heads_must_be_told_where_the_width_is_not_the_originals(system: str) -> None:
    with pytest.raises(CheckpointError, match="do not tell their heads"):
        import_state(system, reference(system).state, {})


def test_weights_of_a_failed_training_are_refused(system: str, tmp_path: Path) -> None:
    state = reference(system).state
    state["proj.bias"] = torch.full_like(state["proj.bias"], torch.nan)
    torch.save(state, tmp_path / "epoch.pkl")
    with pytest.raises(CheckpointError, match=r"epoch.pkl: NaN or infinite numbers in proj.bias"):
        import_checkpoint(tmp_path / "epoch.pkl", sizes={"heads": 4})
