"""Learning rate and temperature by epoch, against the tables of the original."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import ConfigError
from trar.trainer.schedules import learning_rate_factor, temperature


def factors(epochs: int, warmup: int, decay: list[int]) -> list[float]:
    return [
        learning_rate_factor(epoch, warmup_epochs=warmup, decay_epochs=decay, decay_rate=0.2)
        for epoch in range(epochs)
    ]


def temperatures(policy: int, epochs: int, warmup: int = 3) -> list[float]:
    return [
        temperature(policy, epoch, epochs=epochs, warmup_epochs=warmup, largest=10, smallest=0.1)
        for epoch in range(epochs)
    ]


def test_three_epochs_of_warm_up_are_the_quarters_of_the_original() -> None:
    expected = [0.25, 0.5, 0.75, *[1.0] * 7, 0.2, 0.2, 0.04]
    assert factors(13, 3, [10, 12]) == pytest.approx(expected)


def test_without_warm_up_the_first_epoch_has_the_whole_rate() -> None:
    assert factors(2, 0, []) == [1.0, 1.0]


@given(st.integers(0, 40), st.integers(0, 10), st.lists(st.integers(0, 40)), st.floats(0.01, 1.0))
def test_the_factor_is_bounded(epoch: int, warmup: int, decay: list[int], rate: float) -> None:
    factor = learning_rate_factor(epoch, warmup_epochs=warmup, decay_epochs=decay, decay_rate=rate)
    assert 0 <= factor <= 1


def test_slow_policy_falls_evenly_to_the_minimum() -> None:
    found = temperatures(0, 13)
    assert found[:2] == pytest.approx([10, 9.175])
    assert found[-2:] == pytest.approx([0.925, 0.1])


def test_fast_policy_reaches_one_after_the_warm_up() -> None:
    assert temperatures(1, 13)[:5] == pytest.approx([10, 7, 4, 1, 0.9])
    assert temperatures(1, 13)[-1] == pytest.approx(0.1)


def test_fast_policy_stays_at_the_minimum_where_the_original_goes_below() -> None:
    assert temperatures(1, 16)[-1] == 0.1  # 1 / (16 - 3) = 0.077


def test_finetuning_policy_has_the_values_of_the_published_figure() -> None:
    assert temperatures(2, 13)[:4] == pytest.approx([4.25, 4, 3.75, 0.1])


@pytest.mark.parametrize("policy", [0, 1, 2])
def test_a_single_epoch_stays_at_the_maximum(policy: int) -> None:
    assert temperatures(policy, 1) == [10]


@given(st.integers(0, 2), st.integers(1, 30), st.integers(0, 30))
def test_the_temperature_never_falls_below_the_minimum(
    policy: int, epochs: int, warmup: int
) -> None:
    assert min(temperatures(policy, epochs, warmup)) >= 0.1


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"temperature.policy is 3, expected 0, 1 or 2"):
        temperatures(3, 5)
