"""alpha-entmax by Newton's method against its definition and against the package that bisects."""

from __future__ import annotations

import pytest
import torch
from entmax import entmax_bisect, sparsemax
from hypothesis import given
from hypothesis import strategies as st

from trar.trainer.ops.entmax import entmax

ALPHAS = st.floats(1.01, 2.0)


def scores(seed: int, keys: int, size: float, queries: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(3, 2, queries, keys, generator=generator, dtype=torch.float64)


def of(alpha: float) -> torch.Tensor:
    return torch.full((2, 1, 1), alpha, dtype=torch.float64)


@given(st.integers(0, 99), ALPHAS, st.sampled_from([1, 2, 20, 36, 196]), st.floats(0.01, 50))
def test_it_equals_fifty_bisections(seed: int, alpha: float, keys: int, size: float) -> None:
    s = scores(seed, keys, size)
    bisected = entmax_bisect(s, of(alpha).expand(3, 2, 5, 1))
    torch.testing.assert_close(entmax(s, of(alpha)), bisected, rtol=0, atol=1e-12)


def test_two_is_sparsemax_and_little_more_than_one_is_almost_softmax() -> None:
    s = scores(0, 20, 2.0)
    torch.testing.assert_close(entmax(s, of(2.0)), sparsemax(s), rtol=0, atol=1e-12)
    assert (entmax(s, of(1.01)) - s.softmax(-1)).abs().max() < 0.02


@pytest.mark.parametrize("alpha", [1.05, 1.5, 1.95])
def test_its_gradients_are_those_of_finite_differences(alpha: float) -> None:
    s = scores(1, 6, 1.0, queries=2).requires_grad_()
    assert torch.autograd.gradcheck(entmax, (s, of(alpha).requires_grad_()))
    keep = torch.tensor([True, True, False, True, True, False])
    assert torch.autograd.gradcheck(
        lambda s, a: entmax(s, a, keep), (s, of(alpha).requires_grad_())
    )


@pytest.mark.parametrize("alpha", [1.02, 1.5, 1.9])
def test_its_gradients_are_those_of_the_package(alpha: float) -> None:
    gradients = []
    for operator in (entmax, lambda s, a: entmax_bisect(s, a.expand(3, 2, 5, 1))):
        s, a = scores(2, 20, 1.5).requires_grad_(), of(alpha).requires_grad_()
        (operator(s, a) * scores(3, 20, 1.0)).sum().backward()
        gradients.append((s.grad, a.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-11)


@given(st.integers(0, 99), ALPHAS)
def test_keys_that_are_not_kept_might_as_well_not_be_there(seed: int, alpha: float) -> None:
    s = scores(seed, 9, 2.0)
    keep = torch.tensor([True] * 6 + [False] * 3)
    p = entmax(s, of(alpha), keep)
    assert not p[..., 6:].any()
    torch.testing.assert_close(p[..., :6], entmax(s[..., :6], of(alpha)), rtol=0, atol=1e-14)


def test_half_precision_is_computed_in_single() -> None:
    s = scores(4, 20, 3.0)
    p = entmax(s.bfloat16(), of(1.5).bfloat16())
    assert p.dtype == torch.float32
    torch.testing.assert_close(p.sum(-1), torch.ones(3, 2, 5), rtol=0, atol=1e-6)
