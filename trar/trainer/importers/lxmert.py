"""Weights of LXMERT and of the adaptive transformer: names, sizes, and what changes on the way.

Three files hold them: LXMERT's pre-training (``model_LXRT.pth``), its fine-tuned snapshots, and
those of the adaptive transformer. The last keep one span per place in the batch, whose mean is
taken; alpha as it is; and, where it was trained with LayerDrop, its layers under other names:
``layer.module_list.3`` is ``layer.3``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trar.errors import CheckpointError
from trar.trainer.importers.names import NameTable, count_layers, shape
from trar.trainer.models.adaptive_attention import SMALLEST_ALPHA
from trar.trainer.models.lxmert_config import LxmertConfig

ADAPTERS = ("visn_fc",)
MARKS = ("lxrt_encoder.", "bert.encoder.x_layers.")
PRETRAINED_HEAD = "answer_head."
_BERT = "lxrt_encoder.model.bert."
_STACKS = {"language": "layer", "object": "r_layers", "cross": "x_layers"}
_LAYER_DROP = re.compile(r"(\.encoder\.(?:layer|r_layers|x_layers)\.)module_list\.")
_SPAN, _ALPHA = ".adaptive_span.current_val", ".entmax_alpha.alpha"
_OF_PRETRAINING = ("cls.", "obj_predict_head.")
_LAST = "logit_fc.3"
_HEAD_WIDTH = 64
_SPAN_RAMP = 32.0
_EDGE = 1e-6  # a span of 0 or 1 stands for this far from it, from where it can still move


def adapter_of(state: Mapping[str, Tensor]) -> str:
    """The layer that reads the image; there is one."""
    return ADAPTERS[0]


def original_name(name: str) -> str:
    """A name as a fine-tuned snapshot without LayerDrop has it."""
    if name.startswith("bert."):
        name = _BERT + name.removeprefix("bert.")
    return _LAYER_DROP.sub(r"\1", name.removeprefix(PRETRAINED_HEAD))


def why_unused(state: Mapping[str, Any]) -> dict[str, str]:
    """The names of a file that are not imported, each with the reason."""
    names = {original_name(name): value for name, value in state.items()}
    last = count_layers(names, _in_layer("cross")) - 1
    unread = tuple(f"{_in_layer('cross', last)}.visn_{p}" for p in ("self_att", "inter", "output"))
    reasons = {}
    for name in state:
        if name.startswith(_OF_PRETRAINING):
            reasons[name] = "used in pre-training alone"
        elif ".adaptive_span.mask_template_" in name:
            reasons[name] = "positions, which are computed here"
        elif name.endswith(f"{_ALPHA}_chooser"):
            reasons[name] = "alpha a second time"
        elif original_name(name).startswith(unread):
            reasons[name] = "no answer depends on it"
    return reasons


def prepared(
    state: Mapping[str, Tensor], sizes: Mapping[str, Any]
) -> tuple[dict[str, Tensor], LxmertConfig]:
    """``state`` by ``original_name`` without what is unused, spans and alphas as the free numbers
    that stand for them here; and its config, from ``sizes`` and the tensors. Where ``sizes`` asks
    for spans or sparsity that no tensor has, they are at their start.

    Raises:
        CheckpointError: a tensor that tells a size is missing.
    """
    left_out = why_unused(state)
    ours = {
        original_name(name): _free(name, x) for name, x in state.items() if name not in left_out
    }
    lengths = {
        field: len(value)
        for name, value in state.items()
        for field, mark in (("text_tokens", "template_0"), ("objects", "template_1"))
        if name.endswith(f"adaptive_span.mask_{mark}")
    }
    config = config_of(ours, {**sizes, **lengths})
    dtype = ours[f"{_BERT}pooler.dense.weight"].dtype
    has = {mark: any(name.endswith(mark) for name in ours) for mark in (_SPAN, _ALPHA)}
    for (name,) in (names for names in name_table(config).values() if len(names) == 1):
        if name.endswith((_SPAN, _ALPHA)) and not has[_SPAN if name.endswith(_SPAN) else _ALPHA]:
            ours[name] = torch.zeros(config.heads, dtype=dtype)
    return ours, config


def config_of(state: Mapping[str, Tensor], sizes: Mapping[str, Any]) -> LxmertConfig:
    """The config of weights by ``original_name``: what the tensors tell, else what ``sizes`` says.

    Raises:
        CheckpointError: a tensor that tells a size is missing.
    """
    vocabulary, width = shape(state, f"{_BERT}embeddings.word_embeddings.weight")[:2]
    learned = {
        mark: [x for name, x in state.items() if name.endswith(mark)] for mark in (_SPAN, _ALPHA)
    }
    heads = [len(x) for x in learned[_SPAN] + learned[_ALPHA]]
    told = ("text_tokens", "objects", "span_ramp", "span_penalty", "dropout", "layer_drop")
    settings: dict[str, Any] = {name: sizes[name] for name in told if name in sizes}
    for stack in _STACKS:
        settings[f"{stack}_layers"] = count_layers(state, _in_layer(stack))
    if learned[_SPAN]:
        settings = {"span_ramp": _SPAN_RAMP} | settings | {"distance": "absolute"}
    elif "distance" in sizes:
        settings["distance"] = sizes["distance"]
    return LxmertConfig(
        vocabulary_size=vocabulary,
        answer_count=shape(state, f"{_LAST}.weight")[0],
        feature_dim=shape(state, f"{_BERT}encoder.visn_fc.visn_fc.weight")[1],
        width=width,
        heads=sizes.get("heads") or (heads[0] if heads else width // _HEAD_WIDTH),
        ff_width=shape(state, f"{_in_layer('language', 0)}.intermediate.dense.weight")[0],
        positions=shape(state, f"{_BERT}embeddings.position_embeddings.weight")[0],
        adaptive_span=bool(learned[_SPAN]) or bool(sizes.get("adaptive_span")),
        entmax=bool(learned[_ALPHA]) or bool(sizes.get("entmax")),
        **settings,
    )


def name_table(config: LxmertConfig, adapter: str = ADAPTERS[0]) -> NameTable:
    """Our parameter names, each with the original names whose rows it holds."""
    table = NameTable()
    embeddings = f"{_BERT}embeddings"
    for ours, original in (("words", "word"), ("positions", "position"), ("types", "token_type")):
        table[f"{ours}.weight"] = (f"{embeddings}.{original}_embeddings.weight",)
    table.linear("word_norm", f"{embeddings}.LayerNorm")
    for ours, original in (("feature", "visn"), ("box", "box")):
        table.linear(ours, f"{_BERT}encoder.visn_fc.{original}_fc")
        table.linear(f"{ours}_norm", f"{_BERT}encoder.visn_fc.{original}_layer_norm")
    everywhere = config.learns_spans(words_only=False)
    for stack in ("language", "object"):
        for number in range(getattr(config, f"{stack}_layers")):
            ours, original = f"{stack}.{number}", _in_layer(stack, number)
            spans = config.learns_spans(words_only=stack == "language")
            _attention(table, ours, f"{original}.attention", "self", config, spans=spans)
            _feed_forward(table, ours, original, "intermediate", "output")
    for number in range(config.cross_layers):
        ours, original = f"cross.{number}", _in_layer("cross", number)
        _attention(
            table,
            ours,
            f"{original}.visual_attention",
            "att",
            config,
            spans=everywhere,
            own="cross",
        )
        halves = [("language", "lang", config.adaptive_span), ("object", "visn", everywhere)]
        for half, theirs, spans in halves[: 1 if number == config.cross_layers - 1 else 2]:
            self_attention = f"{original}.{theirs}_self_att"
            _attention(table, f"{ours}.{half}", self_attention, "self", config, spans=spans)
            _feed_forward(table, f"{ours}.{half}", original, f"{theirs}_inter", f"{theirs}_output")
    table.linear("pool", f"{_BERT}pooler.dense")
    table.linear("answer.0", "logit_fc.0")
    table.linear("answer.2", "logit_fc.2")
    table.linear("classifier", _LAST)
    return table


def notes(state: Mapping[str, Tensor]) -> list[str]:
    """What was done to weights that is not to be seen from their names."""
    said = []
    if any(_LAYER_DROP.search(name) for name in state):
        said.append(
            "trained with LayerDrop, which saves layer.3 as layer.module_list.3: the layers were "
            "taken under their own names. The original looks for pre-trained weights by name, so "
            "it began these layers at random"
        )
    places = {len(value) for name, value in state.items() if name.endswith(_SPAN)}
    if places - {1}:
        said.append(
            f"it has a span for each of {max(places)} places in a batch: the mean of a head's is "
            "taken, as no sample has a place of its own"
        )
    alphas = [value for name, value in state.items() if name.endswith(_ALPHA)]
    outside = sum(int(((x < SMALLEST_ALPHA) | (x > 2)).sum()) for x in alphas)
    if outside:
        said.append(
            f"{outside} of {sum(map(len, alphas))} alphas lie outside {SMALLEST_ALPHA} to 2, where "
            "entmax is not sure to be a number: the nearest is taken, so these heads differ"
        )
    return said


def with_answers(
    state: Mapping[str, Tensor], head_answers: Sequence[str] | None, answers: Any
) -> Mapping[str, Tensor]:
    """``state`` of pre-training with a last layer for ``answers``, an ``AnswerDictionary``: the
    rows of those that are in ``head_answers``, which say what its rows answer, and zeros for the
    rest. Other states are as they were.

    Raises:
        CheckpointError: no answers or head answers, or not as many of these as rows.
    """
    last = tuple(f"{PRETRAINED_HEAD}{_LAST}.{kind}" for kind in ("weight", "bias"))
    names = [name for name in state if name.endswith(last)]
    if not names:
        return state
    if head_answers is None or answers is None:
        raise CheckpointError(
            "these are weights of LXMERT's pre-training, whose answers are its own: give their "
            "list with --pretrained-answers all_ans.json, and --store or --answers for the new ones"
        )
    if shape(state, names[0])[0] != len(head_answers):
        raise CheckpointError(
            f"its answer head has {shape(state, names[0])[0]:,} rows, the list says "
            f"{len(head_answers):,} answers; give the list it was pre-trained with (all_ans.json)"
        )
    row = {text: number for number, text in enumerate(head_answers)}
    texts = answers.answers
    found = [(label, row[text]) for label, text in enumerate(texts) if text in row]
    labels, rows = torch.tensor(found, dtype=torch.int64).view(-1, 2).unbind(1)
    changed = dict(state)
    for name in names:
        changed[name] = state[name].new_zeros((len(texts), *state[name].shape[1:]))
        changed[name][labels] = state[name][rows]
    return changed


def _free(name: str, value: Tensor) -> Tensor:
    """A tensor as our parameter: the logit of the share that a span or an alpha is."""
    if name.endswith(_SPAN):
        heads = value.shape[1] if value.dim() > 1 else -1
        return value.clamp(0, 1).view(-1, heads).mean(0).logit(_EDGE)
    if name.endswith(_ALPHA):
        return ((value - SMALLEST_ALPHA) / (2 - SMALLEST_ALPHA)).logit(_EDGE)
    return value


def _in_layer(stack: str, number: int | None = None) -> str:
    """The beginning of the original names of a stack, or of one of its layers."""
    return f"{_BERT}encoder.{_STACKS[stack]}." + ("" if number is None else f"{number}")


def _attention(
    table: NameTable,
    ours: str,
    original: str,
    inner: str,
    config: LxmertConfig,
    *,
    spans: bool,
    own: str = "attention",
) -> None:
    source = f"{original}.{inner}"
    table.linear(
        f"{ours}.{own}.query_key_value", *(f"{source}.{p}" for p in ("query", "key", "value"))
    )
    table.linear(f"{ours}.{own}.merge", f"{original}.output.dense")
    table.linear(f"{ours}.add_{own}.norm", f"{original}.output.LayerNorm")
    if spans:
        table[f"{ours}.{own}.span_logit"] = (source + _SPAN,)
    if config.entmax:
        table[f"{ours}.{own}.alpha_logit"] = (source + _ALPHA,)


def _feed_forward(table: NameTable, ours: str, original: str, first: str, second: str) -> None:
    table.linear(f"{ours}.feed_forward.0", f"{original}.{first}.dense")
    table.linear(f"{ours}.feed_forward.2", f"{original}.{second}.dense")
    table.linear(f"{ours}.add_feed_forward.norm", f"{original}.{second}.LayerNorm")
