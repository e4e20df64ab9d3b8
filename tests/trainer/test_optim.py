"""Optimisers against plain loops, and that their state can be saved and taken up again."""

from __future__ import annotations

import builtins

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trar.errors import ConfigError
from trar.trainer.config import config_from
from trar.trainer.losses import bce_sum, gradient_share, loss_named
from trar.trainer.optim import build_optimiser, counters, moments, restore, set_learning_rate
from trar.trainer.run_settings import OptimSettings, ScheduleSettings
from trar.trainer.schedules import cyclic_factor

LAMB = {"kind": "lamb", "lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.1}
AROUND = {"lookahead_steps": 3, "lookahead_share": 0.8}
KINDS = {
    "adam": {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-9},
    "adam within lookahead": {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-9, **AROUND},
    "lamb": LAMB,
    "lamb within lookahead": {**LAMB, **AROUND},
}


def settings(**values) -> OptimSettings:
    return config_from(OptimSettings, values)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))


def steps(one: nn.Module, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
    for number in range(first, last):
        torch.manual_seed(number)
        optimiser.zero_grad(set_to_none=True)
        one(torch.randn(6, 4)).square().sum().backward()
        set_learning_rate(optimiser, 0.01 / (number + 1))
        optimiser.step()


def test_lamb_is_its_formula() -> None:
    one = model().double()
    optimiser = build_optimiser(one.parameters(), settings(**LAMB))
    expected = [p.detach().clone() for p in one.parameters()]
    mean = [torch.zeros_like(p) for p in expected]
    square = [torch.zeros_like(p) for p in expected]
    for _ in range(4):
        optimiser.zero_grad()
        one(torch.ones(2, 4, dtype=torch.float64)).square().sum().backward()
        for number, p in enumerate(one.parameters()):
            assert p.grad is not None
            mean[number] = 0.9 * mean[number] + 0.1 * p.grad
            square[number] = 0.999 * square[number] + 0.001 * p.grad**2
            step = mean[number] / (square[number].sqrt() + 1e-6) + 0.1 * expected[number]
            trust = expected[number].norm().clamp(0, 10) / step.norm()
            expected[number] = expected[number] - 0.01 * trust * step
        optimiser.step()
        for found, wanted in zip(one.parameters(), expected, strict=True):
            torch.testing.assert_close(found.detach(), wanted, rtol=1e-6, atol=1e-9)


def test_lookahead_keeps_a_share_of_the_way_since_the_weights_it_began_with() -> None:
    plain, ahead = model(), model()
    start = [p.detach().clone() for p in plain.parameters()]
    steps(plain, build_optimiser(plain.parameters(), settings(**LAMB)), 0, 3)
    steps(ahead, build_optimiser(ahead.parameters(), settings(**LAMB, **AROUND)), 0, 3)
    for fast, slow, begun in zip(plain.parameters(), ahead.parameters(), start, strict=True):
        torch.testing.assert_close(slow, begun + 0.8 * (fast - begun))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_state_that_was_saved_goes_on_to_the_same_bits(kind: str, stop: int) -> None:
    whole, begun, resumed = model(), model(), model()
    optimiser = build_optimiser(whole.parameters(), settings(**KINDS[kind]))
    steps(whole, optimiser, 0, 8)

    first = build_optimiser(begun.parameters(), settings(**KINDS[kind]))
    steps(begun, first, 0, stop)
    kept = {name: value.clone() for name, value in moments(begun, first).items()}
    counted = counters(first)
    resumed.load_state_dict(begun.state_dict())
    second = build_optimiser(resumed.parameters(), settings(**KINDS[kind]))
    restore(resumed, second, kept, counted)
    steps(resumed, second, stop, 8)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert counters(second) == counters(optimiser)


def test_state_is_named_by_moment_and_parameter() -> None:
    one = model()
    optimiser = build_optimiser(one.parameters(), settings(**LAMB, **AROUND))
    steps(one, optimiser, 0, 4)
    names = {f"{m}.{p}" for m in ("exp_avg", "exp_avg_sq", "slow_params") for p in one.state_dict()}
    assert moments(one, optimiser).keys() == names
    assert counters(optimiser) == {"step": 4, "counter": 1}


def test_without_the_package_it_is_said_what_to_install(monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest, **more):
        if name == "pytorch_optimizer":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"need pytorch-optimizer: pip install 'trar\[lxmert\]'"):
        build_optimiser(model().parameters(), settings(**LAMB))
    build_optimiser(model().parameters(), settings(**KINDS["adam"]))


def test_adam_has_no_weight_decay() -> None:
    with pytest.raises(ConfigError, match="weight_decay goes with kind lamb"):
        settings(**KINDS["adam"], weight_decay=0.1)


def test_a_cyclic_schedule_goes_by_steps_alone() -> None:
    with pytest.raises(ConfigError, match="has warmup_epochs 0 and decay_epochs"):
        config_from(
            ScheduleSettings,
            {
                "kind": "cyclic",
                "epochs": 4,
                "warmup_epochs": 3,
                "decay_epochs": (),
                "decay_rate": 1.0,
            },
        )


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 0.99))
def test_the_cyclic_rate_is_that_of_torch(up: int, down: int, lowest: float) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimiser, lowest, 1.0, step_size_up=up, step_size_down=down, cycle_momentum=False
    )
    for step in range(2 * (up + down) + 1):
        found = cyclic_factor(step, up_steps=up, down_steps=down, lowest=lowest)
        assert found == pytest.approx(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()


def test_the_mean_over_questions_is_the_sum_with_a_smaller_gradient() -> None:
    assert loss_named("bce-mean-answers") is bce_sum
    assert gradient_share("bce-mean-answers", 128) == 1 / 128
    assert gradient_share("bce-sum", 128) == gradient_share("ce-sum", 128) == 1
    logits, targets = torch.randn(8, 5), torch.rand(8, 5)
    original = 5 * nn.functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(bce_sum(logits, targets) / 8, original)
