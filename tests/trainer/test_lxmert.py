"""LXMERT with its options: what a batch may change, what its settings may be."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import ConfigError
from trar.trainer.models import build_model
from trar.trainer.models.lxmert import Lxmert
from trar.trainer.models.lxmert_config import LxmertConfig

SMALL = LxmertConfig(
    vocabulary_size=30,
    answer_count=7,
    feature_dim=12,
    language_layers=3,
    object_layers=2,
    cross_layers=2,
    width=16,
    heads=4,
    ff_width=24,
    positions=16,
    text_tokens=8,
    objects=6,
    span_ramp=3.0,
)
OPTIONS = {
    "plain": {},
    "span": {"adaptive_span": True},
    "absolute span": {"adaptive_span": True, "distance": "absolute"},
    "entmax": {"entmax": True},
    "layer drop": {"layer_drop": 1},
    "all": {"adaptive_span": True, "entmax": True, "layer_drop": 1},
}


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def config(request) -> LxmertConfig:
    return dataclasses.replace(SMALL, **request.param)


def model_of(config: LxmertConfig) -> Lxmert:
    torch.manual_seed(0)
    model = build_model(config).double().eval()
    with torch.no_grad():  # the first weights are so small that little would depend on them
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith("_logit"):
                parameter.normal_(0, 0.5)
    return model


def inputs(batch: int, tokens: int = 6, objects: int = 6, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, objects, 12, generator=generator, dtype=torch.float64)
    question = torch.randint(1, 30, (batch, tokens), generator=generator)
    cells = torch.ones(batch, objects, dtype=torch.bool)
    cells[1::2, objects - 2 :] = False
    boxes = 200 * torch.rand(batch, objects, 4, generator=generator)
    return [image, question, cells, boxes, torch.full((batch, 2), 200)]


def padded(batch: list[torch.Tensor], tokens: int, objects: int) -> list[torch.Tensor]:
    image, question, cells, boxes, sizes = batch
    return [
        torch.cat([image, torch.full((len(image), objects, 12), 9.0).double()], 1),
        torch.cat([question, question.new_zeros(len(image), tokens)], 1),
        torch.cat([cells, cells.new_zeros(len(image), objects)], 1),
        torch.cat([boxes, boxes.new_ones(len(image), objects, 4)], 1),
        sizes,
    ]


def test_a_sample_has_the_same_logits_in_any_batch_and_padded_or_not(config) -> None:
    model, batch = model_of(config), inputs(64)
    batch[1][::3, 4:] = 0
    whole = model(*batch)
    assert whole.std() > 0.1
    for rows in (slice(0, 1), slice(5, 6), slice(3, 6)):
        part = [one[rows] for one in batch]
        torch.testing.assert_close(model(*part), whole[rows], rtol=0, atol=1e-12)
        torch.testing.assert_close(model(*padded(part, 2, 3)), whole[rows], rtol=0, atol=1e-12)


def test_evaluation_gives_the_same_bits_twice_and_training_does_not(config) -> None:
    model, batch = model_of(config), inputs(4)
    assert torch.equal(model(*batch), model(*batch))
    model.train()
    assert not torch.equal(model(*batch), model(*batch))


def test_every_parameter_but_those_of_bert_s_first_rows_gets_a_gradient(config) -> None:
    model, batch = model_of(config), inputs(8)
    (model(*batch).square().sum() + (model.penalty() or 0)).backward()
    without = {
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    }
    assert without == {"types.weight"}


def test_weights_are_kept_by_a_state_dict(config) -> None:
    model, batch = model_of(config), inputs(2)
    other = build_model(config).double().eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(*batch), model(*batch))


def test_half_precision_is_near_the_whole(config) -> None:
    model, batch = model_of(config).float(), inputs(8)
    batch[0] = batch[0].float()
    whole = model(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(*batch)
    assert half.isfinite().all()
    assert (half - whole).abs().max() < 0.2 * whole.abs().max()


def test_a_step_s_seed_decides_what_is_left_out_and_that_gets_no_gradient() -> None:
    model, batch = model_of(dataclasses.replace(SMALL, layer_drop=1, dropout=0.0)), inputs(4)
    model.train()
    one, two = (model(*batch, step_seed=7) for _ in range(2))
    assert torch.equal(one, two)
    assert any(not torch.equal(one, model(*batch, step_seed=seed)) for seed in range(5))
    one.square().sum().backward()
    unread = {id(p) for p in model.unread_parameters(7)}
    for name, p in model.named_parameters():
        assert p.grad is not None, name  # ranks wait for one of every parameter
        assert bool(p.grad.any()) == (id(p) not in unread) or name == "types.weight", name


def test_pruned_layers_might_as_well_not_be_there() -> None:
    batch = inputs(3)
    model = model_of(dataclasses.replace(SMALL, layer_drop=1))
    pruned = dataclasses.replace(model.config, language_kept=(0, 2), cross_kept=(1,))
    kept = build_model(pruned).double().eval()
    kept.load_state_dict(model.state_dict())
    smaller = (
        build_model(dataclasses.replace(SMALL, language_layers=2, cross_layers=1)).double().eval()
    )
    names = {"language.2.": "language.1.", "cross.1.": "cross.0."}
    state = {}
    for name, value in model.state_dict().items():
        if not name.startswith(("language.1.", "cross.0.")):
            for before, after in names.items():
                name = after + name.removeprefix(before) if name.startswith(before) else name
            state[name] = value
    smaller.load_state_dict(state)
    assert torch.equal(kept(*batch), smaller(*batch))
    assert not torch.equal(kept(*batch), model(*batch))


def test_the_penalty_is_the_mean_span_of_each_attention() -> None:
    everywhere = model_of(dataclasses.replace(SMALL, **OPTIONS["absolute span"]))
    spans = [one.span for _, one in everywhere.attentions()]
    assert len(spans) == 3 + 2 + 3 * 2 - 1  # nothing reads the objects after the last layer
    expected = 0.00512 * sum(span.mean() for span in spans)
    torch.testing.assert_close(everywhere.penalty(), expected)
    of_words = model_of(dataclasses.replace(SMALL, **OPTIONS["span"]))
    assert sum(one.span is not None for _, one in of_words.attentions()) == 3 + 2
    assert model_of(SMALL).penalty() is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layer_drop": 2}, "layer_drop is 2 of 2 object layers; at least one must be left"),
        ({"language_kept": (0, 3)}, r"language_kept is \[0, 3\]; it must be .* from 0 to 2"),
        ({"cross_kept": (1, 0)}, r"cross_kept is \[1, 0\]; it must be ascending"),
        ({"cross_kept": ()}, r"cross_kept is \[\]; it must be ascending numbers"),
        ({"span_ramp": 0.0}, "span_ramp is 0.0; it must be above 0"),
        ({"span_penalty": -1.0}, "span_penalty is -1.0; it must be 0 or more"),
        ({"width": 18}, "width 18 is not a multiple of heads 4"),
    ],
)
def test_settings_that_make_no_model_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **setting)


@given(st.integers(1, 9))
def test_a_question_of_any_length_is_read(tokens: int) -> None:
    model = build_model(SMALL).eval()
    batch = inputs(2, tokens=tokens)
    batch[0] = batch[0].float()
    batch[1][0] = 0
    assert model(*batch).isfinite().all()
