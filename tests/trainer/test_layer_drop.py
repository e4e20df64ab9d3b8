"""LayerDrop: which layers a pass goes through."""

from __future__ import annotations

import collections

import pytest
import torch
from torch import nn

from trar.trainer.models.layer_drop import layers_used


@pytest.fixture
def stack() -> nn.ModuleList:
    return nn.ModuleList(nn.Identity() for _ in range(5))


def numbers(stack: nn.ModuleList, **options) -> tuple[int, ...]:
    places = {id(layer): number for number, layer in enumerate(stack)}
    return tuple(places[id(layer)] for layer in layers_used(stack, **options))


def test_every_set_of_layers_is_left_out_equally_often_and_their_order_stays(stack) -> None:
    torch.manual_seed(0)
    drawn = [numbers(stack, drop=2, kept=None, training=True) for _ in range(4000)]
    counts = collections.Counter(drawn)
    assert len(counts) == 10  # 3 of 5
    assert all(list(one) == sorted(one) and len(one) == 3 for one in counts)
    # 400 of each are expected, with a deviation of 19
    assert all(abs(count - 400) < 100 for count in counts.values())


def test_evaluation_leaves_out_what_is_not_kept_and_nothing_at_random(stack) -> None:
    assert {numbers(stack, drop=2, kept=None, training=False) for _ in range(20)} == {
        (0, 1, 2, 3, 4)
    }
    assert numbers(stack, drop=2, kept=(1, 3), training=False) == (1, 3)
    assert numbers(stack, drop=0, kept=(1, 3), training=True) == (0, 1, 2, 3, 4)
