"""RWSAN weights of the original code: parameter names, and sizes read off the tensors.

Its vocabulary is made as openvqa's but has no CLS: 20,572 rows where stores have 20,573.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trar.errors import CheckpointError
from trar.trainer.importers.names import NameTable, frame_sizes, shape
from trar.trainer.importers.names import adapter_of as find_adapter
from trar.trainer.models.rwsan import RwsanConfig

ADAPTERS = ("img_feat_linear",)
_QUESTION, _IMAGE = "RWSA_layer.srwsa", "RWSA_layer.sgrwsa"
_QUESTION_LAYER, _IMAGE_LAYER = f"{_QUESTION}.denceenc1", f"{_IMAGE}.dec1"
_HEADS_BY_WIDTH = {512: 4}


def adapter_of(state: Mapping[str, Tensor]) -> str:
    """The layer that reads the image."""
    return find_adapter(state, ADAPTERS)


def name_table(config: RwsanConfig, adapter: str = ADAPTERS[0]) -> NameTable:
    """Our parameter names, each with the original names whose rows it holds."""
    table = NameTable()
    table.frame(adapter)
    for ours, original in (
        ("question_block.attention", f"{_QUESTION_LAYER}.mhatt"),
        ("image_block.attention", f"{_IMAGE_LAYER}.mhatt1"),
    ):
        table.linear(f"{ours}.query_key", f"{original}.linear_q", f"{original}.linear_k")
        table.linear(f"{ours}.value", f"{original}.linear_v")
        table.linear(f"{ours}.merge", f"{original}.linear_merge")
    guided = f"{_IMAGE_LAYER}.mhatt2"
    table.linear("image_block.guided.query", f"{guided}.linear_q")
    table.linear("image_block.guided.key", f"{guided}.linear_k")
    table.linear("image_block.guided.value", f"{guided}.linear_v")
    table.linear("image_block.guided.merge", f"{guided}.linear_merge")
    table.layer_rest("question_block", _QUESTION_LAYER, "attention", "feed_forward")
    table.layer_rest("image_block", _IMAGE_LAYER, "attention", "guided", "feed_forward")
    table.norm("question_block.first_norm", f"{_QUESTION}.norm1")
    table.norm("question_block.second_norm", f"{_QUESTION}.norm2")
    table.norm("image_block.first_norm", f"{_IMAGE}.norm1")
    table.norm("image_block.last_norm", f"{_IMAGE}.norm3")
    return table


def config_of(state: Mapping[str, Tensor], sizes: Mapping[str, Any]) -> RwsanConfig:
    """The config of original weights: what ``sizes`` says, else what the tensors tell, else 4 heads
    and three rounds of each block, as the original has.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or nothing tells it.
    """
    frame = frame_sizes(state, sizes, adapter_of(state))
    heads = sizes.get("heads") or _HEADS_BY_WIDTH.get(frame["width"])
    if heads is None:
        raise CheckpointError(
            "the weights do not tell their heads (the original used 4 at width 512); "
            "give them: sizes={'heads': ...}"
        )

    def rank(attention: str) -> int:
        return shape(state, f"{attention}.linear_q.weight")[0] // int(heads)

    return RwsanConfig(
        **frame,
        heads=heads,
        ff_width=sizes.get("ff") or shape(state, f"{_IMAGE_LAYER}.ffn.mlp.fc.linear.weight")[0],
        question_rank=rank(f"{_QUESTION_LAYER}.mhatt"),
        image_rank=rank(f"{_IMAGE_LAYER}.mhatt1"),
        guided_rank=rank(f"{_IMAGE_LAYER}.mhatt2"),
        question_repeats=sizes.get("question_repeats") or sizes.get("self_layers") or 3,
        image_repeats=sizes.get("image_repeats") or sizes.get("guided_layers") or 3,
    )
