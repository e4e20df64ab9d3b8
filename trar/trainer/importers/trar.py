"""TRAR weights of the original code: its parameter names, and its sizes read off the tensors.

Source: rentainhe/TRAR-VQA openvqa/models/TRAR; the names are those of ``epoch*.pkl['state_dict']``.
Our fused projections hold the originals' separate ones as blocks of rows, in the order of the
table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trar.errors import CheckpointError
from trar.trainer.models.config import TrarConfig

ADAPTERS = ("frcn_linear", "grid_linear")  # VQA, CLEVR
_ORDERS_BY_COUNT = {4: (0, 1, 2, 3), 3: (0, 1, 3)}
_HEADS_BY_WIDTH = {512: 8}
_GRID_SIDE_BY_ADAPTER = {"frcn_linear": 8, "grid_linear": 14}
_QKV = ("linear_q", "linear_k", "linear_v")
_NORMS = {"weight": "a_2", "bias": "b_2"}


def name_table(config: TrarConfig, adapter: str = ADAPTERS[0]) -> dict[str, tuple[str, ...]]:
    """Our parameter names, each with the original names whose rows it holds, in order."""
    table: dict[str, tuple[str, ...]] = {"embedding.weight": ("embedding.weight",)}

    def linear(ours: str, *originals: str) -> None:
        for kind in ("weight", "bias"):
            table[f"{ours}.{kind}"] = tuple(f"{original}.{kind}" for original in originals)

    def norm(ours: str, original: str) -> None:
        for kind, name in _NORMS.items():
            table[f"{ours}.{kind}"] = (f"{original}.{name}",)

    def flatten(ours: str, original: str) -> None:
        linear(f"{ours}.score.0", f"{original}.mlp.fc.linear")
        linear(f"{ours}.score.3", f"{original}.mlp.linear")
        linear(f"{ours}.merge", f"{original}.linear_merge")

    def feed_forward(ours: str, original: str) -> None:
        linear(f"{ours}.feed_forward.0", f"{original}.ffn.mlp.fc.linear")
        linear(f"{ours}.feed_forward.3", f"{original}.ffn.mlp.linear")

    def self_attention(ours: str, original: str) -> None:
        linear(f"{ours}.query_key_value", *(f"{original}.{part}" for part in _QKV))
        linear(f"{ours}.merge", f"{original}.linear_merge")

    for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        table[f"lstm.{kind}"] = (f"lstm.{kind}",)
    linear("adapter", f"adapter.{adapter}")
    for layer in range(config.layers):
        ours, original = f"encoder.{layer}", f"backbone.enc_list.{layer}"
        self_attention(f"{ours}.attention", f"{original}.mhatt")
        feed_forward(ours, original)
        for number, part in enumerate(("attention", "feed_forward"), start=1):
            norm(f"{ours}.add_{part}.norm", f"{original}.norm{number}")

        ours, original = f"decoder.{layer}", f"backbone.dec_list.{layer}"
        self_attention(f"{ours}.routed", f"{original}.mhatt1")
        router, routing = f"{ours}.routed.router", f"{original}.mhatt1.routing_block"
        if config.pooling == "fc":
            linear(f"{router}.pool.score", f"{routing}.pool")
        elif config.pooling == "attention":
            flatten(f"{router}.pool.flatten", f"{routing}.pool")
            norm(f"{router}.pool.norm", f"{routing}.pool.norm")
        table[f"{router}.mlp.0.weight"] = (f"{routing}.mlp.0.weight",)
        linear(f"{router}.mlp.2", f"{routing}.mlp.2")
        linear(f"{ours}.cross.query", f"{original}.mhatt2.linear_q")
        linear(
            f"{ours}.cross.key_value", f"{original}.mhatt2.linear_k", f"{original}.mhatt2.linear_v"
        )
        linear(f"{ours}.cross.merge", f"{original}.mhatt2.linear_merge")
        feed_forward(ours, original)
        for number, part in enumerate(("routed", "cross", "feed_forward"), start=1):
            norm(f"{ours}.add_{part}.norm", f"{original}.norm{number}")
    flatten("flatten_question", "attflat_lang")
    flatten("flatten_image", "attflat_img")
    norm("norm", "proj_norm")
    linear("classifier", "proj")
    return table


def to_original(
    named: Mapping[str, Tensor], config: TrarConfig, *, adapter: str = ADAPTERS[0]
) -> dict[str, Tensor]:
    """Tensors under our parameter names, parameters or gradients, under the original names.

    Fused projections are split; what has no original name (buffers) is left out. ``adapter``:
    ``grid_linear`` for CLEVR.
    """
    return {
        original: block
        for ours, originals in name_table(config, adapter).items()
        if ours in named
        for original, block in zip(originals, named[ours].chunk(len(originals)), strict=True)
    }


def from_original(state: Mapping[str, Tensor], table: Mapping[str, tuple[str, ...]]) -> Any:
    """Original tensors under our names, fused where ours are."""
    return {
        ours: torch.cat([state[original] for original in originals])
        for ours, originals in table.items()
    }


def adapter_of(state: Mapping[str, Tensor]) -> str:
    """Which of the originals' image adapters ``state`` has."""
    found = [name for name in ADAPTERS if f"adapter.{name}.weight" in state]
    if len(found) != 1:
        raise CheckpointError(
            f"adapter.{ADAPTERS[0]}.weight or adapter.{ADAPTERS[1]}.weight is missing: these are "
            "no weights of TRAR on VQA or CLEVR"
        )
    return found[0]


def config_of(state: Mapping[str, Tensor], sizes: Mapping[str, Any]) -> TrarConfig:
    """The config of original weights, with every switch where the original code has it.

    What ``sizes`` does not say is read off the tensors, or is what the originals used: 8 heads of
    64, grids of 8x8 (VQA) and 14x14 (CLEVR), orders 0-3 and 0, 1, 3, soft routing.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or nothing tells it.
    """
    adapter = adapter_of(state)
    first = "backbone.dec_list.0."
    routing = f"{first}mhatt1.routing_block"

    def shape(name: str) -> tuple[int, ...]:
        if name not in state:
            raise CheckpointError(f"{name} is missing: these are no complete weights of TRAR")
        return (*state[name].shape, 0, 0)

    def count_layers() -> int:
        marks = (name.split(".") for name in state if name.startswith("backbone.dec_list."))
        return 1 + max((int(mark[2]) for mark in marks if mark[2].isdigit()), default=-1)

    width = int(sizes.get("hidden") or shape("lstm.weight_hh_l0")[1])
    orders = sizes.get("orders") or _ORDERS_BY_COUNT.get(shape(f"{routing}.mlp.2.weight")[0])
    heads = sizes.get("heads") or _HEADS_BY_WIDTH.get(width)
    for name, value, used in (
        ("orders", orders, "[0, 1, 2, 3] or [0, 1, 3]"),
        ("heads", heads, "8 at width 512"),
    ):
        if value is None:
            raise CheckpointError(
                f"the weights do not tell their {name} (the originals used {used}); "
                f"give them: sizes={{'{name}': ...}}"
            )
    pooling = "fc" if f"{routing}.pool.weight" in state else "avg"
    if f"{routing}.pool.linear_merge.weight" in state:
        pooling = "attention"
    return TrarConfig(
        vocabulary_size=sizes.get("vocab") or shape("embedding.weight")[0],
        answer_count=sizes.get("answers") or shape("proj.weight")[0],
        feature_dim=sizes.get("feat_dim") or shape(f"adapter.{adapter}.weight")[1],
        grid_side=sizes.get("grid") or _GRID_SIDE_BY_ADAPTER[adapter],
        orders=tuple(orders or ()),
        layers=sizes.get("layers") or count_layers(),
        width=width,
        heads=heads or 0,
        ff_width=sizes.get("ff") or shape(f"{first}ffn.mlp.fc.linear.weight")[0],
        word_width=sizes.get("word_embed") or shape("embedding.weight")[1],
        flat_hidden=sizes.get("flat_mlp") or shape("attflat_img.mlp.fc.linear.weight")[0],
        flat_width=sizes.get("flat_out") or shape("proj.weight")[1],
        routing=sizes.get("routing") or "soft",
        pooling=sizes.get("pooling") or pooling,  # type: ignore[arg-type]
        binarize=bool(sizes.get("binarize", False)),
        pool_mask=False,
        empty_window="uniform",
        attn_dropout="per_order",
        layer_norm="exact",
    )
