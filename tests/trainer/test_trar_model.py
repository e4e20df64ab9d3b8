"""The TRAR model: what it promises beyond equality with the original code."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys

import pytest
import torch

from trar.errors import ConfigError
from trar.trainer.models import MODELS, TrarConfig, build_model
from trar.trainer.models.layers import keys_and_values, merge_heads
from trar.trainer.ops.noise import gumbel_noise, sample_keys

SIZES = {
    "vocabulary_size": 20,
    "answer_count": 7,
    "feature_dim": 6,
    "grid_side": 4,
    "orders": (0, 1, 2),
    "layers": 2,
    "width": 8,
    "heads": 2,
    "ff_width": 12,
    "word_width": 5,
    "flat_hidden": 8,
    "flat_width": 10,
}


def model_of(**changes):
    torch.manual_seed(1)
    return build_model(TrarConfig(**{**SIZES, **changes})).double().eval()


def batch(size, padded=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(size, 16, 6, dtype=torch.float64, generator=generator)
    question = torch.randint(1, 20, (size, 6), generator=generator)
    if padded:
        image[1::2, 10:] = 0
        question[::2, 4:] = 0
    return image, question


@pytest.mark.parametrize("pooling", ["avg", "attention", "fc"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_result_depends_on_its_own_sample_alone(pooling: str, padded: bool) -> None:
    model = model_of(pooling=pooling)
    image, question = batch(64, padded)
    whole = model(image, question)
    for size in (1, 3):
        parts = [model(image[at : at + size], question[at : at + size]) for at in range(0, 6, size)]
        torch.testing.assert_close(torch.cat(parts), whole[:6], rtol=0, atol=1e-12)
    again = model(image, question)
    assert torch.equal(whole, again)


def test_trailing_padding_of_questions_changes_nothing() -> None:
    model = model_of()
    image, question = batch(3)
    question[1] = 0  # nothing but padding
    longer = torch.nn.functional.pad(question, (0, 5))
    result = model(image, question)
    assert result.isfinite().all()
    torch.testing.assert_close(model(image, longer), result, rtol=0, atol=1e-12)


def test_cells_are_found_by_zero_features_when_not_given() -> None:
    model = model_of()
    image, question = batch(4)
    cells = torch.ones(4, 16, dtype=torch.bool)
    cells[1::2, 10:] = False
    assert torch.equal(model(image, question), model(image, question, cells))
    image[0] = 0
    assert model(image, question).isfinite().all()


def test_features_of_half_precision_are_taken() -> None:
    image, question = batch(2)
    assert model_of()(image.half(), question).dtype == torch.float64


@pytest.mark.parametrize("switches", [{}, {"attn_dropout": "per_order", "pool_mask": False}])
@pytest.mark.parametrize("pooling", ["avg", "attention", "fc"])
def test_every_parameter_learns(switches, pooling) -> None:
    model = model_of(
        routing="hard", pooling=pooling, empty_window="uniform", layer_norm="fast", **switches
    ).train()
    model(*batch(4)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def routes_of(model, *, seed=None, temperature=None, keys=None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    record: list = []
    model(*batch(3), temperature=temperature, generator=generator, keys=keys, record=record)
    return record


def test_noise_of_hard_routing_is_in_training_only_and_from_the_generator() -> None:
    model = model_of(routing="hard", dropout=0.0)
    assert all(map(torch.equal, routes_of(model, seed=1), routes_of(model, seed=2)))
    model.train()
    assert all(map(torch.equal, routes_of(model, seed=1), routes_of(model, seed=1)))
    assert not torch.equal(routes_of(model, seed=1)[0], routes_of(model, seed=2)[0])


def test_soft_routing_has_no_noise() -> None:
    model = model_of(dropout=0.0).train()
    assert torch.equal(model(*batch(3)), model(*batch(3)))


def test_binarize_takes_one_order_at_evaluation() -> None:
    record = routes_of(model_of(routing="hard", binarize=True))
    assert len(record) == SIZES["layers"]
    for route in record:
        assert torch.equal(route.sort(-1).values, torch.tensor([[0.0, 0.0, 1.0]] * 3).double())


@pytest.mark.parametrize("pool_mask", [True, False])
@pytest.mark.parametrize("empty_window", ["zero", "uniform"])
def test_one_order_alone_is_the_same_with_gradients_and_in_inference(
    pool_mask, empty_window
) -> None:
    model = model_of(
        routing="hard", eval_alpha="argmax", pool_mask=pool_mask, empty_window=empty_window
    )
    image, question = batch(6)
    with torch.inference_mode():
        alone = model(image, question)
    torch.testing.assert_close(alone, model(image, question), rtol=0, atol=1e-12)


def test_argmax_is_the_best_order_of_softmax() -> None:
    best = routes_of(model_of(routing="hard", eval_alpha="argmax"))[0]
    soft = routes_of(model_of(routing="hard"))[0]
    assert torch.equal(best.argmax(-1), soft.argmax(-1))
    assert torch.equal(best.sum(-1), torch.ones(3).double())


def test_the_originals_noise_at_evaluation_is_a_switch_and_seeded() -> None:
    model = model_of(routing="hard", eval_alpha="gumbel", eval_tau=10.0)
    model.temperature.fill_(0.1)
    assert all(map(torch.equal, routes_of(model), routes_of(model)))
    keys = sample_keys(5, torch.arange(3))
    noisy = routes_of(model, keys=keys)
    assert not torch.equal(noisy[0], routes_of(model, keys=sample_keys(6, torch.arange(3)))[0])
    logits = routes_of(model_of(routing="hard", eval_tau=1.0))[0].log()
    expected = ((logits + gumbel_noise(keys, 2, 3)[0]) / 10).softmax(-1)
    torch.testing.assert_close(noisy[0], expected)


def test_a_samples_noise_does_not_depend_on_its_batch() -> None:
    for model in (
        model_of(routing="hard", eval_alpha="gumbel", binarize=True),
        model_of(routing="hard", dropout=0.0).train(),
    ):
        keys, (image, question) = sample_keys(1, torch.arange(8)), batch(8)
        whole: list = []
        part: list = []
        model(image, question, keys=keys, record=whole)
        model(image[2:5], question[2:5], keys=keys[2:5], record=part)
        for one, other in zip(whole, part, strict=True):
            torch.testing.assert_close(one[2:5], other, rtol=0, atol=1e-12)


def test_eval_tau_replaces_the_saved_temperature_at_evaluation_alone() -> None:
    model = model_of(routing="hard", eval_tau=3.0, dropout=0.0)
    model.temperature.fill_(0.5)
    fixed = routes_of(model)[0]
    model.temperature.fill_(5.0)
    assert torch.equal(routes_of(model)[0], fixed)
    model.train()
    warm = routes_of(model, seed=1)[0]
    model.temperature.fill_(0.5)
    assert not torch.equal(routes_of(model, seed=1)[0], warm)


def test_keys_and_values_of_all_layers_are_those_of_each() -> None:
    model = model_of()
    y = torch.randn(2, 5, 8, dtype=torch.float64)
    layers = [decoder.cross for decoder in model.decoder]
    for layer, pair in zip(layers, keys_and_values(layers, y), strict=True):
        alone = layer.key_value(y).chunk(2, -1)
        for one, other in zip(pair, alone, strict=True):
            torch.testing.assert_close(merge_heads(one), other, rtol=0, atol=1e-12)


def test_no_step_is_taken_over_words_that_all_questions_lack() -> None:
    model = model_of()
    seen: list = []
    model.lstm.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    image, question = batch(4)
    question[:, 3:] = 0
    model(image, question)
    model(image, torch.zeros_like(question))
    assert seen == [3, 1]


@pytest.mark.parametrize("routing", ["soft", "hard"])
def test_bfloat16_autocast_trains_and_is_near_float32(routing) -> None:
    model = model_of(routing=routing, dropout=0.0, empty_window="uniform").float()
    image, question = batch(4)
    wide = model(image.float(), question).detach()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image.float(), question)
    assert half.dtype == torch.bfloat16
    largest = float(wide.abs().max())
    torch.testing.assert_close(half.detach().float(), wide, rtol=0, atol=0.05 * largest)
    half.float().sum().backward()
    for name, parameter in model.named_parameters():
        if routing == "soft" or "router" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def compiled_equals_eager(backend: str) -> None:
    model = model_of(layers=1, dropout=0.0, empty_window="uniform").float().train()
    image, question = batch(4)
    image = image.float()
    parameters = list(model.parameters())
    wanted = model(image, question)
    expected = torch.autograd.grad(wanted.square().sum(), parameters)
    model.compile(backend=backend)
    assert not any("_orig_mod" in name for name in model.state_dict())
    found = model(image, question)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    gradients = torch.autograd.grad(found.square().sum(), parameters)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


# torch.compile's own code warns on some versions
@pytest.mark.filterwarnings("ignore:::torch")
def test_a_traced_model_gives_the_same() -> None:
    compiled_equals_eager("aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::torch")
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_gives_the_same() -> None:
    compiled_equals_eager("inductor")


BLOCKED = ("numpy", "zarr", "dask", "spacy", "pydantic", "yaml", "pandas", "crc32c", "safetensors")


def test_ops_and_models_run_where_only_torch_is() -> None:
    """numpy is blocked for what the package imports itself; torch does without it."""
    code = f"""
import sys, torch
for name in {BLOCKED}:
    sys.modules[name] = None
from trar.trainer.importers import to_original
from trar.trainer.models import TrarConfig, build_model
model = build_model(TrarConfig(**{SIZES}))
model(torch.randn(2, 16, 6), torch.ones(2, 3, dtype=torch.int64)).sum().backward()
print(len(to_original(model.state_dict(), model.config)) > 0)
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "True", result.stderr


def test_temperature_is_saved_and_an_argument_overrides_it() -> None:
    model = model_of(routing="hard")
    model.temperature.fill_(0.25)
    saved = model.state_dict()
    assert float(saved["temperature"]) == 0.25
    assert not any("rings" in name for name in saved)
    other = model_of(routing="hard")
    other.load_state_dict(saved)
    assert torch.equal(routes_of(other)[0], routes_of(model)[0])
    warm = routes_of(model, temperature=4.0)[0]
    logits = routes_of(model)[0].log() * 0.25  # up to a constant per row
    torch.testing.assert_close(warm, (logits / 4).softmax(-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 9}, "width 9 is not a multiple of heads 2"),
        ({"orders": (0, 4)}, r"orders \[0, 4\] reach past a grid of 4x4"),
        ({"orders": (1, 1)}, r"orders \[1, 1\] has duplicates"),
        ({"orders": 3}, "orders is 3; it must be a list"),
        ({"routing": "soggy"}, "routing is 'soggy'; choose 'soft' or 'hard'"),
        ({"layers": 0}, "layers is 0; it must be a whole number, 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
        ({"pool_mask": "no"}, "pool_mask is 'no'; it must be true or false"),
        ({"binarize": True}, "it needs routing 'hard'"),
        ({"eval_alpha": "gumbel"}, "eval_alpha is 'gumbel' with routing 'soft'; it needs routing"),
        ({"eval_tau": 0.0, "routing": "hard"}, "eval_tau is 0.0; it must be above 0"),
        ({"eval_tau": "warm", "routing": "hard"}, "eval_tau is 'warm'; it must be a number"),
        ({"eval_alpha": "none"}, "eval_alpha is 'none'; choose 'softmax' or 'argmax' or 'gumbel'"),
        ({"kernel": "cuda"}, "kernel is 'cuda'; choose 'auto' or 'eager' or 'triton'"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        TrarConfig(**{**SIZES, **change})


def test_a_mapping_builds_the_same_model() -> None:
    model = build_model({"system": "trar", **SIZES, "orders": [0, 1, 2]})
    assert model.config == TrarConfig(**SIZES)
    assert hash(model.config) == hash(TrarConfig(**SIZES))
    assert "trar" in MODELS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"system": "trar", "vocabulary_sizes": 3}, "did you mean vocabulary_size?"),
        ({"system": "trar", "vocabulary_size": 3}, "trar needs answer_count"),
        ({"system": "butd"}, "system is 'butd'; choose one of .*trar"),
        ({}, "system is None"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(values)


def test_features_of_another_grid_are_refused() -> None:
    image, question = batch(2)
    with pytest.raises(ConfigError, match="grid_side 4 means 16 cells, the image features have 9"):
        model_of()(image[:, :9], question)


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    config = TrarConfig(vocabulary_size=20572, answer_count=3129)
    with torch.device("meta"):
        count = sum(p.numel() for p in build_model(config).parameters())
        hard = dataclasses.replace(config, routing="hard", pooling="attention")
        attention = sum(p.numel() for p in build_model(hard).parameters())
    assert (count, attention) == (58_605_091, 61_766_185)
