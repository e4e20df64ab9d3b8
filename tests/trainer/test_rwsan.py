"""RWSAN: shared weights, and keys and values computed once."""

from __future__ import annotations

import torch
from systems import batch_for, small_model

from trar.trainer.models import build_model
from trar.trainer.models.rwsan import LowRankCrossAttention, RwsanConfig


def test_keys_and_values_of_the_question_are_computed_once() -> None:
    model = small_model("rwsan", question_repeats=3, image_repeats=3)
    calls = {"query": 0, "key": 0, "value": 0}

    def count(name: str):
        def add(*_: object) -> None:
            calls[name] += 1

        return add

    guided = model.image_block.guided
    for name in calls:
        getattr(guided, name).register_forward_hook(count(name))
    model(*batch_for(2))
    assert calls == {"query": 9, "key": 1, "value": 1}


def test_computing_them_once_changes_no_logit_and_no_gradient(monkeypatch) -> None:
    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model = small_model("rwsan")
        logits = model(*batch_for(4))
        logits.square().sum().backward()
        return logits, [parameter.grad for parameter in model.parameters()]

    once = run()
    forward = LowRankCrossAttention.forward
    monkeypatch.setattr(LowRankCrossAttention, "keys_and_values", lambda self, y: y)
    monkeypatch.setattr(
        LowRankCrossAttention,
        "forward",
        lambda self, x, y, keep: forward(self, x, _again(self, y), keep),
    )
    each_time = run()
    assert torch.equal(once[0], each_time[0])
    for gradient, other in zip(once[1], each_time[1], strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-12)


def _again(attention: LowRankCrossAttention, y: torch.Tensor):
    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    return heads(attention.key(y)), heads(attention.value(y))


def test_the_published_sizes_have_the_published_number_of_parameters() -> None:
    config = RwsanConfig(vocabulary_size=20572, answer_count=3129)
    with torch.device("meta"):
        model = build_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 19_540_139


def test_more_rounds_need_no_more_parameters() -> None:
    few, many = (small_model("rwsan", question_repeats=n, image_repeats=n) for n in (1, 5))
    assert few.state_dict().keys() == many.state_dict().keys()
    inputs = batch_for(2)
    many.load_state_dict(few.state_dict())
    assert not torch.allclose(few(*inputs), many(*inputs))
