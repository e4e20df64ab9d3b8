"""MCAN weights of openvqa and of mcan-vqa: parameter names, and sizes read off the tensors.

Source: openvqa/models/mcan, and MILVLG/mcan-vqa, whose layer that reads the image has another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trar.errors import CheckpointError
from trar.trainer.importers.names import (
    NameTable,
    count_layers,
    frame_sizes,
    shape,
)
from trar.trainer.importers.names import adapter_of as find_adapter
from trar.trainer.models.mcan import McanConfig

ADAPTERS = ("adapter.frcn_linear", "adapter.grid_linear", "img_feat_linear")
_HEADS_BY_WIDTH = {512: 8, 1024: 8}  # small, large
_LAYERS = "backbone.dec_list."


def adapter_of(state: Mapping[str, Tensor]) -> str:
    """The layer that reads the image: regions or, ``adapter.grid_linear``, the cells of CLEVR."""
    return find_adapter(state, ADAPTERS)


def name_table(config: McanConfig, adapter: str = ADAPTERS[0]) -> NameTable:
    """Our parameter names, each with the original names whose rows it holds."""
    table = NameTable()
    table.frame(adapter)
    for layer in range(config.layers):
        ours, original = f"encoder.{layer}", f"backbone.enc_list.{layer}"
        table.self_attention(f"{ours}.attention", f"{original}.mhatt")
        table.layer_rest(ours, original, "attention", "feed_forward")
        ours, original = f"decoder.{layer}", f"{_LAYERS}{layer}"
        table.self_attention(f"{ours}.attention", f"{original}.mhatt1")
        table.cross_attention(f"{ours}.cross", f"{original}.mhatt2")
        table.layer_rest(ours, original, "attention", "cross", "feed_forward")
    return table


def config_of(state: Mapping[str, Tensor], sizes: Mapping[str, Any]) -> McanConfig:
    """The config of original weights: what ``sizes`` says, else what the tensors tell, else 8 heads
    as the originals have.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or nothing tells it.
    """
    frame = frame_sizes(state, sizes, adapter_of(state))
    heads = sizes.get("heads") or _HEADS_BY_WIDTH.get(frame["width"])
    if heads is None:
        raise CheckpointError(
            "the weights do not tell their heads (the originals used 8 at width 512 and 1024); "
            "give them: sizes={'heads': ...}"
        )
    hidden = shape(state, f"{_LAYERS}0.ffn.mlp.fc.linear.weight")[0]
    return McanConfig(
        **frame,
        heads=heads,
        layers=sizes.get("layers") or count_layers(state, _LAYERS),
        ff_width=sizes.get("ff") or hidden,
    )
