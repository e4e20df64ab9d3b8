"""Spans of attention: the mask against the formula, and what its parameters can be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trar.trainer.models.adaptive_attention import AdaptiveAttention, Keys
from trar.trainer.ops.adaptive_span import (
    distance_between,
    distance_to_last,
    masked_again,
    span_mask,
)

CPU = torch.device("cpu")


@given(st.lists(st.floats(0, 40), min_size=1, max_size=4), st.floats(0.5, 40))
def test_the_mask_is_the_formula_key_by_key(spans: list[float], ramp: float) -> None:
    mask = span_mask(torch.tensor(spans, dtype=torch.float64), distance_between(7, CPU), ramp)
    for head, span in enumerate(spans):
        for query in range(7):
            for key in range(7):
                expected = min(max((ramp + span - abs(query - key)) / ramp, 0), 1)
                assert mask[head, query, key].item() == pytest.approx(expected)


def test_the_absolute_distance_is_that_to_the_last_place_however_short_the_batch() -> None:
    assert distance_to_last(3, 20, CPU).tolist() == [19, 18, 17]
    assert distance_to_last(4, 2, CPU).tolist() == [1, 0, -1, -2]


def test_what_the_mask_leaves_sums_to_one_and_nothing_stays_nothing() -> None:
    p = torch.rand(2, 3, 4, 5, dtype=torch.float64).softmax(-1)
    mask = torch.ones(3, 1, 5, dtype=torch.float64)
    mask[0, :, 2:], mask[1] = 0, 0
    out = masked_again(p, mask)
    torch.testing.assert_close(out.sum(-1)[:, 0], torch.ones(2, 4).double(), rtol=0, atol=1e-7)
    assert not out[:, 0, :, 2:].any()
    assert not out[:, 1].any()


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=2),
    st.booleans(),
)
def test_no_parameter_leaves_the_ranges_of_span_and_alpha(logits: list[float], ordered) -> None:
    one = AdaptiveAttention(8, 2, 0.0, ramp=3.0, sparse=True)
    with torch.no_grad():
        one.span_logit.copy_(torch.tensor(logits))
        one.alpha_logit.copy_(torch.tensor(logits))
    assert ((one.span >= 0) & (one.span <= 1)).all()
    assert ((one.alpha > 1) & (one.alpha <= 2)).all()
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8, requires_grad=True)
    distance = distance_between(5, CPU) if ordered else None
    out = one(*one.project(x), Keys(None, distance, 5))
    out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in one.parameters())
    assert x.grad.isfinite().all()


def test_a_span_of_all_keys_is_plain_attention() -> None:
    torch.manual_seed(0)
    one = AdaptiveAttention(8, 2, 0.0, ramp=3.0, sparse=False).double()
    with torch.no_grad():
        one.span_logit.fill_(40.0)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    with_spans = one(*one.project(x), Keys(None, distance_between(5, CPU), 5))
    without = one(*one.project(x), Keys(None, None, 5))
    torch.testing.assert_close(with_spans, without, rtol=0, atol=1e-7)


def test_gradients_of_spans_are_those_of_finite_differences() -> None:
    p = torch.rand(2, 3, 4, 5, dtype=torch.float64).softmax(-1).requires_grad_()
    span = torch.tensor([0.5, 1.4, 2.7], dtype=torch.float64, requires_grad=True)  # no corner
    distance = (torch.arange(4)[:, None] - torch.arange(5)).abs()
    assert torch.autograd.gradcheck(
        lambda p, span: masked_again(p, span_mask(span, distance, 1.7)), (p, span)
    )


class ToItself(torch.nn.Module):
    """Attention of a sequence of four, whose third is padding, to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = AdaptiveAttention(4, 2, 0.0, ramp=3.0, sparse=True)
        keep = torch.tensor([True, True, False, True]).view(1, 1, 1, 4)
        self.keys = Keys(keep, distance_between(4, CPU), 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(*self.attention.project(x), self.keys)


def test_gradients_of_a_sparse_attention_with_spans_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    model = ToItself().double()
    with torch.no_grad():  # away from the corners of the mask
        model.attention.span_logit.copy_(torch.tensor([-0.9, 0.3]))
    x = torch.randn(1, 4, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in model.named_parameters()]
    assert {"attention.span_logit", "attention.alpha_logit"} <= set(names)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    values = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(run, (x, *values))
