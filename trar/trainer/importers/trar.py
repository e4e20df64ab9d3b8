"""TRAR weights of the original code: its parameter names, and its sizes read off the tensors.

Source: rentainhe/TRAR-VQA openvqa/models/TRAR; the names are those of ``epoch*.pkl['state_dict']``.
Our fused projections hold the originals' separate ones as blocks of rows, in the order of the
table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trar.errors import CheckpointError
from trar.trainer.importers.names import NameTable, count_layers, frame_sizes, shape
from trar.trainer.importers.names import adapter_of as find_adapter
from trar.trainer.models.config import TrarConfig

ADAPTERS = ("frcn_linear", "grid_linear")  # VQA, CLEVR
_ORDERS_BY_COUNT = {4: (0, 1, 2, 3), 3: (0, 1, 3)}
_HEADS_BY_WIDTH = {512: 8}
_GRID_SIDE_BY_ADAPTER = {"frcn_linear": 8, "grid_linear": 14}
_LAYERS = "backbone.dec_list."


def name_table(config: TrarConfig, adapter: str = ADAPTERS[0]) -> NameTable:
    """Our parameter names, each with the original names whose rows it holds, in order."""
    table = NameTable()
    table.frame(f"adapter.{adapter}")
    for layer in range(config.layers):
        ours, original = f"encoder.{layer}", f"backbone.enc_list.{layer}"
        table.self_attention(f"{ours}.attention", f"{original}.mhatt")
        table.layer_rest(ours, original, "attention", "feed_forward")
        ours, original = f"decoder.{layer}", f"{_LAYERS}{layer}"
        table.self_attention(f"{ours}.routed", f"{original}.mhatt1")
        router, routing = f"{ours}.routed.router", f"{original}.mhatt1.routing_block"
        if config.pooling == "fc":
            table.linear(f"{router}.pool.score", f"{routing}.pool")
        elif config.pooling == "attention":
            table.flatten(f"{router}.pool.flatten", f"{routing}.pool")
            table.norm(f"{router}.pool.norm", f"{routing}.pool.norm")
        table[f"{router}.mlp.0.weight"] = (f"{routing}.mlp.0.weight",)
        table.linear(f"{router}.mlp.2", f"{routing}.mlp.2")
        table.cross_attention(f"{ours}.cross", f"{original}.mhatt2")
        table.layer_rest(ours, original, "routed", "cross", "feed_forward")
    return table


def adapter_of(state: Mapping[str, Tensor]) -> str:
    """Which of the originals' image adapters ``state`` has."""
    names = tuple(f"adapter.{name}" for name in ADAPTERS)
    return find_adapter(state, names).removeprefix("adapter.")


def config_of(state: Mapping[str, Tensor], sizes: Mapping[str, Any]) -> TrarConfig:
    """The config of original weights, with every switch where the original code has it but one:
    hard routing is evaluated without noise. ``eval_alpha: gumbel, eval_tau: 10`` in ``sizes`` gives
    what the original code did.

    What ``sizes`` does not say is read off the tensors, or is what the originals used: 8 heads of
    64, grids of 8x8 (VQA) and 14x14 (CLEVR), orders 0-3 and 0, 1, 3, soft routing.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or nothing tells it.
    """
    adapter = adapter_of(state)
    frame = frame_sizes(state, sizes, f"adapter.{adapter}")
    routing = f"{_LAYERS}0.mhatt1.routing_block"
    orders = sizes.get("orders") or _ORDERS_BY_COUNT.get(shape(state, f"{routing}.mlp.2.weight")[0])
    heads = sizes.get("heads") or _HEADS_BY_WIDTH.get(frame["width"])
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
        **frame,
        grid_side=sizes.get("grid") or _GRID_SIDE_BY_ADAPTER[adapter],
        orders=tuple(orders or ()),
        layers=sizes.get("layers") or count_layers(state, _LAYERS),
        heads=heads or 0,
        ff_width=sizes.get("ff") or shape(state, f"{_LAYERS}0.ffn.mlp.fc.linear.weight")[0],
        routing=sizes.get("routing") or "soft",
        pooling=sizes.get("pooling") or pooling,  # type: ignore[arg-type]
        binarize=bool(sizes.get("binarize", False)),
        eval_alpha=sizes.get("eval_alpha") or "softmax",
        eval_tau=sizes.get("eval_tau"),
        pool_mask=False,
        empty_window="uniform",
        attn_dropout="per_order",
    )
