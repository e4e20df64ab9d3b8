"""Which layers of a stack are gone through: all but some drawn at random, or those that are kept.

Source: Fan et al., Reducing Transformer Depth on Demand with Structured Dropout, ICLR 2020, in
the form of the adaptive transformer's public code: a fixed number of layers a stack and batch.
That code drops in evaluation too, which made its scores random; here only training does.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


def layers_used(
    stack: nn.ModuleList,
    *,
    drop: int,
    kept: Sequence[int] | None,
    training: bool,
    generator: torch.Generator | None = None,
) -> list[nn.Module]:
    """In training ``stack`` without ``drop`` layers, each set of them equally likely, drawn from
    ``generator``; in evaluation the layers numbered in ``kept``, None = all."""
    if not training:
        return [stack[number] for number in (range(len(stack)) if kept is None else kept)]
    if drop == 0:
        return list(stack)
    left = torch.randperm(len(stack), generator=generator)[drop:].sort().values
    return [stack[number] for number in left.tolist()]


def shares_used(
    stacks: Mapping[str, nn.ModuleList], passes: Iterable[Mapping[str, Sequence[nn.Module]]]
) -> dict[str, Tensor]:
    """The share of ``passes``, each with the layers that it uses of every stack, that each layer
    takes part in, (layers,) by stack."""
    used: collections.Counter[nn.Module] = collections.Counter()
    count = 0
    for layers in passes:
        count += 1
        used.update(layer for stack in layers.values() for layer in stack)
    return {
        name: torch.tensor([used[layer] / count for layer in stack])
        for name, stack in stacks.items()
    }
