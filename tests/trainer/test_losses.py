"""Losses against plain references."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import ConfigError
from trar.trainer.losses import bce_sum, ce_sum, dense_targets, loss_named

ROW = torch.tensor([0, 0, 2])
LABEL = torch.tensor([1, 3, 0])
SCORE = torch.tensor([0.3, 0.9, 1.0])


def test_sparse_targets_become_dense() -> None:
    expected = torch.tensor([[0, 0.3, 0, 0.9], [0, 0, 0, 0], [1.0, 0, 0, 0]])
    torch.testing.assert_close(dense_targets(ROW, LABEL, SCORE, (3, 4)), expected)


def test_no_target_at_all_is_all_zero() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert not dense_targets(nothing, nothing, torch.empty(0), (2, 3)).any()


@given(st.integers(0, 1000))
def test_bce_is_the_sum_over_every_answer(seed: int) -> None:
    torch.manual_seed(seed)
    logits, targets = torch.randn(3, 5, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    plain = sum(
        -(t * math.log(1 / (1 + math.exp(-x))) + (1 - t) * math.log(1 / (1 + math.exp(x))))
        for x, t in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True)
    )
    assert bce_sum(logits, targets).item() == pytest.approx(plain)


def test_ce_is_against_the_best_answer_and_skips_questions_without_one() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    log_p = logits.log_softmax(dim=1)
    expected = -(log_p[0, 3] + log_p[2, 0])
    targets = dense_targets(ROW, LABEL, SCORE, (3, 4))
    torch.testing.assert_close(ce_sum(logits, targets), expected)


def test_ce_takes_the_first_of_equally_good_answers() -> None:
    logits, targets = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 0.6, 0.6]])
    torch.testing.assert_close(ce_sum(logits, targets), -logits.log_softmax(dim=1)[0, 1])


def test_a_batch_without_any_answer_costs_nothing_and_has_a_gradient() -> None:
    logits = torch.randn(2, 4, requires_grad=True)
    loss = ce_sum(logits, torch.zeros(2, 4))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", ["bce-sum", "ce-sum"])
def test_the_loss_of_parts_adds_up_to_that_of_the_whole(name: str) -> None:
    loss = loss_named(name)
    logits, targets = torch.randn(6, 5).double(), torch.rand(6, 5).double()
    parts = sum(loss(logits[at : at + 4], targets[at : at + 4]) for at in (0, 4))
    torch.testing.assert_close(parts, loss(logits, targets))


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="loss is 'mse', expected bce-sum, ce-sum, bce-mean-answers"
    ):
        loss_named("mse")
