"""Our TRAR against outputs of the original code: logits and every gradient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trar.trainer.importers import import_state, to_original

FILES = sorted((Path(__file__).parents[1] / "data" / "reference").glob("trar_*.npz"))
TOLERANCE = 1e-9


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def reference(request):
    with np.load(request.param) as arrays:
        return {name: arrays[name] for name in arrays.files}


def part(reference: dict, prefix: str) -> dict:
    return {
        name.removeprefix(prefix): value
        for name, value in reference.items()
        if name.startswith(prefix)
    }


def test_all_six_references_are_here() -> None:
    assert len(FILES) == 6


def test_logits_and_gradients_equal_the_original_code(reference: dict) -> None:
    sizes = json.loads(reference["config"].tobytes())
    state, expected = part(reference, "state/"), part(reference, "grad/")
    model = import_state(sizes["system"], state, sizes)

    logits = model(
        torch.from_numpy(reference["in/image"]), torch.from_numpy(reference["in/question"])
    )
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(logits.detach(), reference["out/logits"], rtol=0, atol=TOLERANCE)

    (logits * torch.from_numpy(reference["in/cotangent"])).sum().backward()
    adapter = "grid_linear" if sizes["dataset"] == "clevr" else "frcn_linear"
    named = dict(model.named_parameters())
    gradients = to_original(
        {name: p.new_zeros(p.shape) if p.grad is None else p.grad for name, p in named.items()},
        model.config,
        adapter=adapter,
    )
    assert gradients.keys() == state.keys()
    assert expected.keys() <= gradients.keys()
    largest = max(np.abs(value).max() for value in expected.values())
    for name, gradient in gradients.items():
        wanted = expected.get(name, np.zeros(gradient.shape))
        error = np.abs(gradient.numpy() - wanted).max() / largest
        assert error < TOLERANCE, f"{name}: {error}"


def test_weights_exported_under_original_names_are_the_original_weights(reference: dict) -> None:
    sizes = json.loads(reference["config"].tobytes())
    state = part(reference, "state/")
    model = import_state(sizes["system"], {f"module.{k}": v for k, v in state.items()}, sizes)
    adapter = "grid_linear" if sizes["dataset"] == "clevr" else "frcn_linear"
    exported = to_original(model.state_dict(), model.config, adapter=adapter)
    assert exported.keys() == state.keys()
    for name, value in exported.items():
        np.testing.assert_array_equal(value, state[name])
