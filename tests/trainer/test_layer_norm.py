"""Layer normalisation against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trar.trainer.ops.layer_norm import LayerNorm, exact_layer_norm


def values(dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(4, 5, 7, dtype=dtype) * 3 + 2
    return [x, torch.randn(7, dtype=dtype), torch.randn(7, dtype=dtype)]


def definition(x, weight, bias):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + bias


def test_equals_the_definition() -> None:
    torch.testing.assert_close(
        exact_layer_norm(*values()), definition(*values()), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("spread", [1.0, 1e-6])  # 1e-6: eps is as large as the deviation
def test_gradients_equal_autograd_of_the_definition(spread: float) -> None:
    x, weight, bias = values()
    tensors = [(x * spread).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    cotangent = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view_as(x)
    wanted = torch.autograd.grad(definition(*tensors), tensors, cotangent)
    found = torch.autograd.grad(exact_layer_norm(*tensors), tensors, cotangent)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_gradients_are_those_of_finite_differences() -> None:
    tensors = [tensor[..., :4].clone().requires_grad_() for tensor in values()]
    assert torch.autograd.gradcheck(exact_layer_norm, tensors)


@pytest.mark.parametrize("kind", ["exact", "fast"])
def test_a_row_of_equal_numbers_is_finite_both_ways(kind) -> None:
    x = torch.full((2, 8), 3.0, requires_grad=True)
    y = LayerNorm(8, kind)(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 8))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_fast_is_torchs_own() -> None:
    x, _, _ = values(torch.float32)
    torch.testing.assert_close(LayerNorm(7, "fast")(x), F.layer_norm(x, (7,), eps=1e-12))


def test_half_precision_is_computed_in_float32() -> None:
    x, weight, bias = values(torch.float32)
    half = exact_layer_norm(x.bfloat16(), weight, bias)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(
        half, exact_layer_norm(x.bfloat16().float(), weight, bias).bfloat16()
    )
