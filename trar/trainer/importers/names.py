"""The names that openvqa and what builds on it give to the parts of a model, as a table of ours.

Our fused projections hold the originals' separate ones as blocks of rows of equal size, in the
order of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trar.errors import CheckpointError

_QKV = ("linear_q", "linear_k", "linear_v")
_NORMS = {"weight": "a_2", "bias": "b_2"}


class NameTable(dict[str, tuple[str, ...]]):
    """Our parameter names, each with the original names whose rows it holds, in order."""

    def same(self, *names: str) -> None:
        """Tensors that are called the same."""
        for name in names:
            self[name] = (name,)

    def linear(self, ours: str, *originals: str) -> None:
        """A linear layer, or several of them one above the other."""
        for kind in ("weight", "bias"):
            self[f"{ours}.{kind}"] = tuple(f"{original}.{kind}" for original in originals)

    def norm(self, ours: str, original: str) -> None:
        """A layer normalisation."""
        for kind, name in _NORMS.items():
            self[f"{ours}.{kind}"] = (f"{original}.{name}",)

    def feed_forward(self, ours: str, original: str) -> None:
        """Two linear layers with an activation between them (MLP)."""
        self.linear(f"{ours}.0", f"{original}.fc.linear")
        self.linear(f"{ours}.3", f"{original}.linear")

    def flatten(self, ours: str, original: str) -> None:
        """Attention flattening (AttFlat)."""
        self.feed_forward(f"{ours}.score", f"{original}.mlp")
        self.linear(f"{ours}.merge", f"{original}.linear_merge")

    def self_attention(self, ours: str, original: str) -> None:
        """Attention of a sequence to itself (MHAtt)."""
        self.linear(f"{ours}.query_key_value", *(f"{original}.{part}" for part in _QKV))
        self.linear(f"{ours}.merge", f"{original}.linear_merge")

    def cross_attention(self, ours: str, original: str) -> None:
        """Attention of a sequence to another (MHAtt)."""
        self.linear(f"{ours}.query", f"{original}.linear_q")
        self.linear(f"{ours}.key_value", f"{original}.linear_k", f"{original}.linear_v")
        self.linear(f"{ours}.merge", f"{original}.linear_merge")

    def layer_rest(self, ours: str, original: str, *parts: str) -> None:
        """The feed-forward of a layer, and the normalisations after its ``parts``, in order."""
        self.feed_forward(f"{ours}.feed_forward", f"{original}.ffn.mlp")
        for number, part in enumerate(parts, start=1):
            self.norm(f"{ours}.add_{part}.norm", f"{original}.norm{number}")

    def frame(self, adapter: str) -> None:
        """What all of these models have around their layers; ``adapter`` reads the image."""
        self.same("embedding.weight")
        self.same(*(f"lstm.{kind}_{way}_l0" for kind in ("weight", "bias") for way in ("ih", "hh")))
        self.linear("adapter", adapter)
        self.flatten("flatten_question", "attflat_lang")
        self.flatten("flatten_image", "attflat_img")
        self.norm("norm", "proj_norm")
        self.linear("classifier", "proj")


def rename(table: Mapping[str, tuple[str, ...]], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names under the original ones, fused projections split; what has no
    original name is left out."""
    return {
        original: block
        for ours, originals in table.items()
        if ours in named
        for original, block in zip(originals, named[ours].chunk(len(originals)), strict=True)
    }


def from_original(state: Mapping[str, Tensor], table: Mapping[str, tuple[str, ...]]) -> Any:
    """Original tensors under our names, fused where ours are."""
    return {
        ours: torch.cat([state[original] for original in originals])
        for ours, originals in table.items()
    }


def frame_sizes(state: Mapping[str, Tensor], sizes: Mapping[str, Any], adapter: str) -> Any:
    """The fields of a ``FrameConfig`` that ``sizes`` says, or else the tensors tell.

    Raises:
        CheckpointError: a tensor that tells one is missing.
    """
    return {
        "vocabulary_size": sizes.get("vocab") or shape(state, "embedding.weight")[0],
        "answer_count": sizes.get("answers") or shape(state, "proj.weight")[0],
        "feature_dim": sizes.get("feat_dim") or shape(state, f"{adapter}.weight")[1],
        "width": sizes.get("hidden") or shape(state, "lstm.weight_hh_l0")[1],
        "word_width": sizes.get("word_embed") or shape(state, "embedding.weight")[1],
        "flat_hidden": sizes.get("flat_mlp") or shape(state, "attflat_img.mlp.fc.linear.weight")[0],
        "flat_width": sizes.get("flat_out") or shape(state, "proj.weight")[1],
        "layer_norm": "exact",
    }


def shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor, with zeros for the axes that it does not have.

    Raises:
        CheckpointError: it is missing.
    """
    if name not in state:
        raise CheckpointError(f"{name} is missing: these are no complete weights of this model")
    return (*state[name].shape, 0, 0)


def adapter_of(state: Mapping[str, Tensor], adapters: tuple[str, ...]) -> str:
    """Which of the ``adapters``, layers that read the image, ``state`` has.

    Raises:
        CheckpointError: none of them, or several.
    """
    found = [name for name in adapters if f"{name}.weight" in state]
    if len(found) != 1:
        names = " or ".join(f"{name}.weight" for name in adapters)
        raise CheckpointError(f"{names} is missing: these are no weights on VQA or CLEVR")
    return found[0]


def count_layers(state: Mapping[str, Tensor], mark: str) -> int:
    """How many layers are numbered after ``mark``."""
    numbers = (name.removeprefix(mark).split(".")[0] for name in state if name.startswith(mark))
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)
