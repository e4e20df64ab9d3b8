"""Importing weights of the original code: every name is accounted for."""

from __future__ import annotations

import collections
import dataclasses
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from reference_files import load_reference
from stores import COLOURS, StorePlan, make_store

from trar.cli import main
from trar.errors import CheckpointError
from trar.features.answers import AnswerDictionary
from trar.features.text import Vocabulary
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.importers import import_checkpoint, import_state, to_original
from trar.trainer.tensor_file import read_tensors

MINIMAL = {"heads": 4, "grid": 6}


@pytest.fixture
def original() -> tuple[dict, dict]:
    reference = load_reference("trar_vqa_soft_fc")
    return reference.state, reference.sizes


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
    with pytest.raises(CheckpointError, match="system is 'ban'; trar, mcan, rwsan"):
        import_state("ban", *original)
    with pytest.raises(CheckpointError, match=r"left over: .*routing_block"):
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
    with pytest.raises(CheckpointError, match="no such file; give a checkpoint"):
        import_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not readable"):
        import_checkpoint(path)
    for junk in (b"hello\n", b"}", b"\x80\x02."):
        path.write_bytes(junk)
        with pytest.raises(
            CheckpointError, match=r"epoch\.pkl: .*(download it again|plain weights)"
        ):
            import_checkpoint(path)
    ours = tmp_path / "checkpoint-001.safetensors"
    with pytest.raises(CheckpointError, match="a checkpoint of trar is used as it is"):
        import_checkpoint(ours)
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with pytest.raises(CheckpointError, match=r"epoch\.pkl: (not readable|no tensor under a)"):
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


def write_inputs(folder: Path, state: dict, sizes: dict) -> list[str]:
    """A file as the original code writes it, and a vocabulary and answers of its size; returns
    the arguments that name them."""
    rest = {"optimizer": {"state": {}, "param_groups": []}, "lr_base": 1e-4, "epoch": 13}
    torch.save({"state_dict": state, **rest}, folder / "epoch13.pkl")
    words = ("PAD", "UNK", "CLS", *(f"w{n}" for n in range(sizes["vocab"] - 3)))
    vocabulary = Vocabulary(words, (("train", 9),)).to_json()
    (folder / "words.json").write_text(json.dumps(vocabulary))
    answers = AnswerDictionary(tuple(f"a{n}" for n in range(sizes["answers"]))).to_json()
    (folder / "answer_dict.json").write_text(json.dumps(answers))
    return [
        *("import", str(folder / "epoch13.pkl"), "--vocabulary", str(folder / "words.json")),
        *("--answers", str(folder / "answer_dict.json"), "--set", f"model.heads={sizes['heads']}"),
        *("--set", f"data.grid={sizes['grid']}"),
    ]


def run(arguments: list[str]) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


PRESETS = {
    "trar_vqa_soft_avg": "vqa-soft-avg",
    "trar_vqa_hard_avg_binarize": "vqa-hard-avg-binarize",
    "trar_vqa_hard_attention": "vqa-hard-attention",
    "trar_clevr_hard_fc_binarize": "clevr-hard-fc",
}


@pytest.mark.parametrize("name", PRESETS)
def test_an_imported_checkpoint_answers_as_the_original_code(name: str, tmp_path: Path) -> None:
    reference = load_reference(name)
    state, sizes = reference.state, reference.sizes
    arguments = write_inputs(tmp_path, state, sizes)
    noise_free = ["--set", "model.eval_alpha=softmax", "--set", f"model.eval_tau={sizes['tau']}"]
    hard = noise_free if sizes["routing"] == "hard" else []
    output = run([*arguments, "--preset", PRESETS[name], *hard])
    assert "names are weights, and all of them were taken" in output
    checkpoint = load_checkpoint(tmp_path / "epoch13.safetensors")
    assert (checkpoint.epoch, checkpoint.config.split) == (13, "train")
    model = checkpoint.model().double()
    model.load_state_dict(read_tensors(checkpoint.path, "model."))
    reference.check_logits(model(*reference.inputs("image", "question")))


def test_the_report_shows_every_name(original, tmp_path: Path) -> None:
    arguments = write_inputs(tmp_path, *original)
    report = json.loads(run([*arguments, "--json"]).partition("Note")[0])
    names = {row["original"]: row["ours"] for row in report["names"]}
    assert names.keys() == original[0].keys() | {"optimizer", "lr_base", "epoch"}
    assert names["optimizer"] == "-"
    assert "taken as trained on train; else say --split" in report["notes"]


def test_an_existing_file_is_not_overwritten(original, tmp_path: Path) -> None:
    arguments = write_inputs(tmp_path, *original)
    run(arguments)
    before = (tmp_path / "epoch13.safetensors").read_bytes()
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "exists already, and is never overwritten; choose --out" in result.output
    assert (tmp_path / "epoch13.safetensors").read_bytes() == before


def test_a_preset_of_another_pooling_is_refused(original, tmp_path: Path) -> None:
    arguments = write_inputs(tmp_path, *original)
    result = CliRunner().invoke(main, [*arguments, "--preset", "vqa-soft-avg"])
    assert result.exit_code == 1
    assert "the weights are of fc pooling, preset vqa-soft-avg has avg" in result.output


def test_words_and_answers_are_needed(original, tmp_path: Path) -> None:
    file = write_inputs(tmp_path, *original)[1]
    result = CliRunner().invoke(main, ["import", file])
    assert result.exit_code == 1
    assert "give --store, or --vocabulary and --answers" in result.output


def test_imported_weights_are_scored_and_predicted_with_on_their_store(
    original, tmp_path: Path
) -> None:
    state, sizes = original
    words = sizes["vocab"] - 3  # the store's own are eight: what colour is it red blue …
    plan = StorePlan(grid=6, width=24, extra_words=[f"w{n}" for n in range(words - 6)],
                     known_answers=[*COLOURS, "yes", "no", *"vwxyz"])  # fmt: skip
    store = make_store(tmp_path / "features" / "vqa", plan)
    assert (len(store.vocabulary), len(store.answers)) == (sizes["vocab"], sizes["answers"])
    file = write_inputs(tmp_path, state, sizes)[1]
    run(["import", file, "--store", str(store.path), "--set", "model.heads=4",
         "--set", "data.grid=null", "--out", str(tmp_path / "ours.safetensors")])  # fmt: skip
    ours, on = str(tmp_path / "ours.safetensors"), ["--store", str(store.path), "--device", "cpu"]
    scores = json.loads(run(["eval", ours, *on, "--split", "val", "--json"]))
    assert scores["questions"] == len(store.questions("val").ids)
    result = CliRunner().invoke(main, ["eval", ours, *on, "--split", "train"])
    assert "of train were trained on" in result.output
    run(["predict", ours, *on, "--split", "test", "--out", str(tmp_path / "test.json")])
    answers = json.loads((tmp_path / "test.json").read_text())
    assert len(answers) == len(store.questions("test").ids)
    wrong = make_store(tmp_path / "other" / "vqa", dataclasses.replace(plan, width=8))
    result = CliRunner().invoke(
        main, ["import", file, "--store", str(wrong.path), "--set", "model.heads=4"]
    )
    assert result.exit_code == 1
    assert "6x6 cells of 24 numbers" in result.output
