"""Importing weights of the original code: every name is accounted for."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trar.errors import CheckpointError
from trar.trainer.importers import import_checkpoint, import_state, to_original

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "trar_vqa_soft_fc.npz"
MINIMAL = {"heads": 4, "grid": 6}


@pytest.fixture
def original() -> tuple[dict, dict]:
    with np.load(REFERENCE) as arrays:
        state = {
            name.removeprefix("state/"): torch.from_numpy(arrays[name])
            for name in arrays.files
            if name.startswith("state/")
        }
        return state, json.loads(arrays["config"].tobytes())


def test_sizes_are_read_off_the_tensors(original) -> None:
    state, sizes = original
    model, full = import_state("trar", state, MINIMAL), import_state("trar", state, sizes)
    assert model.config == full.config
    assert not model.training
    config = model.config
    assert (config.pooling, config.orders, config.layers) == ("fc", (0, 1, 2, 3), 2)
    assert (config.layer_norm, config.pool_mask) == ("exact", False)
    assert (config.empty_window, config.attn_dropout) == ("uniform", "per_order")
    assert float(full.temperature) == sizes["tau"]
    assert float(model.temperature) == 1.0


def test_the_float_type_is_kept(original) -> None:
    state, sizes = original
    half = import_state("trar", {name: value.float() for name, value in state.items()}, sizes)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert half.rings.member.dtype == torch.float32


def test_there_and_back_gives_the_same_names_and_numbers(original) -> None:
    state, sizes = original
    model = import_state("trar", {f"module.{name}": x for name, x in state.items()}, sizes)
    back = to_original(model.state_dict(), model.config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_missing_left_over_and_wrong_names_are_named(original) -> None:
    state, sizes = original
    broken = dict(state)
    del broken["backbone.enc_list.1.norm2.b_2"]
    broken["extra.weight"] = torch.zeros(1)
    broken["proj.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as error:
        import_state("trar", broken, sizes)
    message = str(error.value)
    assert "missing: backbone.enc_list.1.norm2.b_2" in message
    assert "left over: extra.weight" in message
    assert "wrong shape: proj.bias [3], expected [11]" in message


def test_at_most_five_names_are_listed(original) -> None:
    state, sizes = original
    more = {f"extra.{number}": torch.zeros(1) for number in range(9)}
    with pytest.raises(CheckpointError, match=r"extra\.4 and 4 more"):
        import_state("trar", {**state, **more}, sizes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"grid": 6}, "do not tell their heads"), ({**MINIMAL, "layers": 3}, r"dec_list\.2")],
)
def test_sizes_that_do_not_fit_are_errors(original, sizes, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        import_state("trar", original[0], sizes)


def test_weights_of_another_system_are_refused(original) -> None:
    with pytest.raises(CheckpointError, match="only trar"):
        import_state("mcan", *original)
    with pytest.raises(CheckpointError, match=r"adapter\.frcn_linear\.weight .*is missing"):
        import_state("trar", {"weight": torch.zeros(1)}, {})
    left = {k: v for k, v in original[0].items() if k != "lstm.weight_hh_l0"}
    with pytest.raises(CheckpointError, match=r"lstm\.weight_hh_l0 is missing"):
        import_state("trar", left, MINIMAL)


@pytest.mark.parametrize("bare", [True, False])
def test_a_file_gives_the_model_and_a_report_of_every_name(original, tmp_path, bare) -> None:
    state, sizes = original
    path = tmp_path / "epoch13.pkl"
    torch.save(state if bare else {"state_dict": state, "optimizer": {}, "epoch": 13}, path)
    store = SimpleNamespace(vocabulary=range(sizes["vocab"]), answers=range(sizes["answers"]))
    model, report = import_checkpoint(path, store, sizes=MINIMAL)
    assert not model.training
    rows = {row.original: row for row in report}
    assert state.keys() <= rows.keys()
    assert set(rows) - set(state) == (set() if bare else {"optimizer", "epoch"})
    row = rows["backbone.dec_list.0.mhatt1.linear_k.weight"]
    assert (row.ours, row.shape) == ("decoder.0.routed.query_key_value.weight", (16, 16))
    assert bare or rows["epoch"].ours == "-"
    ours = {row.ours for row in report} - {"-"}
    assert ours == {name for name, _ in model.named_parameters()}


def test_another_vocabulary_or_answer_list_is_explained(original, tmp_path) -> None:
    path = tmp_path / "epoch13.pkl"
    torch.save(original[0], path)
    with pytest.raises(CheckpointError, match=r"30 rows, the vocabulary 29 words.*20,573.*18,405"):
        import_checkpoint(path, vocabulary=range(29), sizes=MINIMAL)
    with pytest.raises(CheckpointError, match="11 answers, the list 12"):
        import_checkpoint(path, answers=range(12), sizes=MINIMAL)


def test_unreadable_files_are_refused(tmp_path) -> None:
    path = tmp_path / "epoch.pkl"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        import_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not readable"):
        import_checkpoint(path)
    torch.save({"state_dict": {"epoch": 3}}, path)
    with pytest.raises(CheckpointError, match="no tensor under epoch"):
        import_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="expected a state_dict"):
        import_checkpoint(path)


def test_a_file_with_code_is_refused_and_not_run(tmp_path) -> None:
    path, proof = tmp_path / "epoch.pkl", tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (proof,)

    torch.save({"state_dict": collections.OrderedDict(a=Evil())}, path)
    with pytest.raises(CheckpointError, match="objects or code"):
        import_checkpoint(path)
    assert not proof.exists()
