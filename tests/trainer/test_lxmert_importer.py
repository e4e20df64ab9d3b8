"""Importing weights of LXMERT and of the adaptive transformer: every name is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from reference_files import Reference, load_reference

from trar.cli import main
from trar.errors import CheckpointError
from trar.features.answers import AnswerDictionary
from trar.features.word_pieces import (
    FIRST_PIECE,
    LAST_PIECE,
    PAD_PIECE,
    UNKNOWN_PIECE,
    WordPieces,
)
from trar.pipeline.wordpieces import read_word_pieces
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.importers import import_checkpoint, import_state, read_original
from trar.trainer.importers.lxmert import original_name, why_unused

PREFIX = "lxrt_encoder.model."
HEADS = {"heads": 4}
SPECIALS = (PAD_PIECE, UNKNOWN_PIECE, FIRST_PIECE, LAST_PIECE)


def answer(model: torch.nn.Module, of: Reference) -> torch.Tensor:
    image, question, box = of.inputs("image", "question", "box")
    logits: torch.Tensor = model(image, question, None, box, torch.ones(len(image), 2))
    return logits


def with_layer_drop(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that the original's LayerDrop saves."""
    renamed = {}
    for name, value in state.items():
        for stack in ("layer", "r_layers", "x_layers"):
            mark = f".encoder.{stack}."
            name = name.replace(mark, f"{mark}module_list.", 1)
        renamed[name] = value
    return renamed


def pretrained(state: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """The names of ``model_LXRT.pth``, with an answer head of so many rows."""
    named = {}
    for name, value in state.items():
        new = name.removeprefix(PREFIX) if name.startswith(PREFIX) else f"answer_head.{name}"
        named[new] = value
    width = state["logit_fc.3.weight"].shape[1]
    named["answer_head.logit_fc.3.weight"] = torch.arange(rows * width).view(rows, width).double()
    named["answer_head.logit_fc.3.bias"] = torch.arange(rows).double()
    named["cls.predictions.bias"] = torch.zeros(40)
    named["obj_predict_head.transform.dense.weight"] = torch.zeros(4, 4)
    return named


def test_sizes_are_read_off_the_tensors() -> None:
    of = load_reference("lxmert_span_entmax")
    state, sizes = of.state, of.sizes
    config = import_state("lxmert", state, {"span_ramp": 4.0}).config
    assert (config.language_layers, config.object_layers, config.cross_layers) == (1, 1, 2)
    assert (config.width, config.heads, config.ff_width) == (24, 4, 40)
    assert (config.text_tokens, config.objects, config.distance) == (7, 5, "absolute")
    assert config == import_state("lxmert", state, sizes).config
    plain = import_state("lxmert", load_reference("lxmert").state, HEADS).config
    assert (plain.adaptive_span, plain.entmax, plain.distance) == (False, False, "relative")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_layer_drop_are_mapped_and_explained(tmp_path: Path, prefix: str) -> None:
    of = load_reference("lxmert")
    state, sizes = of.state, of.sizes
    path = tmp_path / "layerdrop_1066_ldrop_1.pth"
    torch.save({prefix + name: value for name, value in with_layer_drop(state).items()}, path)
    model, report = import_checkpoint(path, sizes=sizes)
    of.check_logits(answer(model, of))
    ours = {row.original: row.ours for row in report}
    assert ours[f"{PREFIX}bert.encoder.r_layers.module_list.0.output.dense.bias"] == (
        "object.0.feed_forward.2.bias"
    )


def test_every_name_is_reported_with_what_became_of_it(tmp_path: Path) -> None:
    of = load_reference("lxmert_span_entmax")
    state, sizes = of.state, of.sizes
    path = tmp_path / "adaptive_6910.pth"
    torch.save(state, path)
    model, report = import_checkpoint(path, sizes=sizes)
    rows = {row.original: row for row in report}
    assert rows.keys() == state.keys()
    assert {row.ours for row in report} - {"-"} == {name for name, _ in model.named_parameters()}
    assert {name: row.why for name, row in rows.items() if row.why} == why_unused(state)
    reasons = set(why_unused(state).values())
    assert reasons == {
        "alpha a second time",
        "no answer depends on it",
        "positions, which are computed here",
    }


def test_a_span_is_the_mean_over_the_places_of_a_batch_within_its_range() -> None:
    of = load_reference("lxmert_span")
    state, sizes = of.state, of.sizes
    name = f"{PREFIX}bert.encoder.layer.0.attention.self.adaptive_span.current_val"
    state[name] = torch.tensor([[-0.4, 0.2, 1.0, 0.5], [0.2, 0.4, 3.0, 0.5]]).double()
    state[name] = state[name].view(2, 4, 1, 1)
    model = import_state("lxmert", state, sizes)
    span = model.language[0].attention.span
    torch.testing.assert_close(span, torch.tensor([0.1, 0.3, 1, 0.5]).double(), rtol=0, atol=1e-5)


def test_alphas_that_have_left_their_range_are_told(tmp_path: Path) -> None:
    of = load_reference("lxmert_entmax")
    state, path = of.state, tmp_path / "sparse_7.pth"
    name = f"{PREFIX}bert.encoder.layer.0.attention.self.entmax_alpha.alpha"
    state[name] = torch.tensor([2.5, 1.5, 0.7, 1.2]).double()
    torch.save(state, path)
    (note,) = read_original(path).notes
    assert note.startswith("2 of ")
    assert "alphas lie outside 1.01 to 2" in note
    alpha = import_state("lxmert", state, of.sizes).language[0].attention.alpha
    torch.testing.assert_close(alpha, torch.tensor([2, 1.5, 1.01, 1.2]).double(), rtol=0, atol=1e-5)
    state[name][1] = torch.nan
    with pytest.raises(CheckpointError, match=r"NaN or infinite .*entmax_alpha\.alpha: "):
        import_state("lxmert", state, of.sizes)


def test_another_table_of_pieces_says_how_to_add_the_right_one(tmp_path: Path) -> None:
    of = load_reference("lxmert")
    torch.save(of.state, tmp_path / "BEST.pth")
    inputs = write_inputs(tmp_path, {**of.sizes, "vocab": of.sizes["vocab"] + 1})
    result = CliRunner().invoke(main, ["import", str(tmp_path / "BEST.pth"), *inputs])
    assert result.exit_code == 1
    assert f"{of.sizes['vocab']} rows, the vocabulary {of.sizes['vocab'] + 1} words" in (
        result.output
    )
    assert "--tokenizer wordpiece --wordpiece-vocab vocab.txt (bert-base-uncased: 30,522)" in (
        result.output
    )


def test_a_list_of_answers_in_the_order_of_labels_will_do(tmp_path: Path) -> None:
    of = load_reference("lxmert")
    torch.save(of.state, tmp_path / "BEST.pth")
    inputs = write_inputs(tmp_path, of.sizes)
    answers = [f"a{n}" for n in range(of.sizes["answers"])]  # as trainval_label2ans.json
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    result = CliRunner().invoke(main, ["import", str(tmp_path / "BEST.pth"), *inputs])
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(tmp_path / "BEST.safetensors")
    assert checkpoint.answers.answers == tuple(answers)


def test_missing_and_left_over_names_are_named() -> None:
    of = load_reference("lxmert_entmax")
    state, sizes = of.state, of.sizes
    state["extra.weight"] = torch.zeros(1)
    del state[f"{PREFIX}bert.encoder.r_layers.0.attention.self.entmax_alpha.alpha"]
    with pytest.raises(CheckpointError) as error:
        import_state("lxmert", state, sizes)
    assert "missing: lxrt_encoder.model.bert.encoder.r_layers.0.attention.self.entmax_alpha.alpha" \
        in str(error.value)  # fmt: skip
    assert "left over: extra.weight" in str(error.value)


def test_pretrained_answers_are_found_by_their_text(tmp_path: Path) -> None:
    of = load_reference("lxmert")
    state, sizes = of.state, of.sizes
    path = tmp_path / "model_LXRT.pth"
    torch.save({f"module.{k}": v for k, v in pretrained(state, 6).items()}, path)
    answers = AnswerDictionary(("yes", "unheard of", "red"))
    head = ["no", "red", "two", "yes", "blue", "3"]
    model, report = import_checkpoint(path, answers=answers, sizes=sizes, head_answers=head)
    assert model.classifier.bias.tolist() == [3, 0, 1]
    assert model.classifier.weight[1].abs().sum() == 0
    assert model.classifier.weight[2].tolist() == list(range(48, 96))
    why = {row.original: row.why for row in report if row.why}
    assert why["cls.predictions.bias"] == "used in pre-training alone"
    spans = import_checkpoint(
        path, answers=answers, head_answers=head, sizes={**HEADS, "adaptive_span": True}
    )[0]
    assert spans.config.distance == "relative"
    assert spans.language[0].attention.span.tolist() == [0.5] * 4

    with pytest.raises(CheckpointError, match="list with --pretrained-answers"):
        import_checkpoint(path, answers=answers, sizes=sizes)
    with pytest.raises(CheckpointError, match="head has 6 rows, the list says 5 answers"):
        import_checkpoint(path, answers=answers, sizes=sizes, head_answers=head[:5])


def write_inputs(folder: Path, sizes: dict) -> list[str]:
    """Word pieces and answers of the sizes of the reference."""
    pieces = WordPieces((*SPECIALS, *(f"w{n}" for n in range(sizes["vocab"] - 4))))
    (folder / "words.json").write_text(json.dumps(pieces.to_json()))
    answers = AnswerDictionary(tuple(f"a{n}" for n in range(sizes["answers"])))
    (folder / "answers.json").write_text(json.dumps(answers.to_json()))
    return [
        *("--vocabulary", str(folder / "words.json"), "--answers", str(folder / "answers.json")),
        *("--set", "model.heads=4", "--set", "model.span_ramp=4.0", "--split", "train"),
    ]


def test_the_command_writes_a_checkpoint_that_answers_as_the_original(tmp_path: Path) -> None:
    of = load_reference("lxmert_span_entmax")
    state, sizes = of.state, of.sizes
    torch.save(with_layer_drop(state), tmp_path / "both.pth")
    inputs = write_inputs(tmp_path, sizes)
    result = CliRunner().invoke(main, ["import", str(tmp_path / "both.pth"), *inputs])
    assert result.exit_code == 0, result.output
    assert "which saves layer.3 as layer.module_list.3: the layers were taken" in result.output
    assert "it has a span for each of 3 places in a batch" in result.output
    assert "no answer depends on it" in result.output
    checkpoint = load_checkpoint(tmp_path / "both.safetensors")
    assert (checkpoint.config.model.adaptive_span, checkpoint.config.model.entmax) == (True, True)
    assert isinstance(checkpoint.vocabulary, WordPieces)
    model = checkpoint.model().double()
    model.load_state_dict(checkpoint.weights())
    of.check_logits(answer(model, of))


def test_the_command_takes_the_table_of_bert_as_it_is_published(tmp_path: Path) -> None:
    of = load_reference("lxmert")
    torch.save(of.state, tmp_path / "best.pth")
    _, given, *more = write_inputs(tmp_path, of.sizes)
    pieces = json.loads(Path(given).read_text())["tokens"]
    table = tmp_path / "vocab.txt"
    table.write_text("\n".join(pieces) + "\n")
    command = ["import", str(tmp_path / "best.pth"), "--vocabulary", str(table), *more]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    vocabulary = load_checkpoint(tmp_path / "best.safetensors").vocabulary
    assert isinstance(vocabulary, WordPieces)
    assert vocabulary.digest == read_word_pieces(table).digest
    assert list(vocabulary.tokens) == pieces
    table.write_text("[UNK]\n")
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert f"--vocabulary {table}: expected [PAD] to be 0" in result.output


def test_the_command_takes_the_list_of_pretrained_answers(tmp_path: Path) -> None:
    of = load_reference("lxmert")
    state, sizes = of.state, of.sizes
    torch.save(pretrained(state, 3), tmp_path / "model_LXRT.pth")
    command = ["import", str(tmp_path / "model_LXRT.pth"), *write_inputs(tmp_path, sizes)]
    known = tmp_path / "all_ans.json"
    known.write_text(json.dumps([{"ans": f"a{n}", "dsets": {"vqa": 1}} for n in (7, 1, 3)]))
    result = CliRunner().invoke(main, [*command, "--pretrained-answers", str(known)])
    assert result.exit_code == 0, result.output
    bias = load_checkpoint(tmp_path / "model_LXRT.safetensors").weights()["classifier.bias"]
    assert bias.tolist() == [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    known.write_text('{"yes": 1}')
    result = CliRunner().invoke(main, [*command, "--pretrained-answers", str(known)])
    assert result.exit_code == 1
    assert 'expected a list of answers, or of objects with "ans"' in result.output


def test_names_without_a_prefix_of_ours_stay_as_they_are() -> None:
    assert original_name("logit_fc.0.weight") == "logit_fc.0.weight"
    assert original_name("answer_head.logit_fc.0.weight") == "logit_fc.0.weight"
    assert original_name("bert.pooler.dense.bias") == f"{PREFIX}bert.pooler.dense.bias"
