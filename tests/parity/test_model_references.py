"""Our MCAN and RWSAN against outputs of the original code: logits and every gradient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trar.trainer.importers import import_state, to_original

FOLDER = Path(__file__).parents[1] / "data" / "reference"
TOLERANCE = 1e-9


@pytest.fixture(params=["mcan_vqa", "rwsan_vqa"])
def reference(request):
    with np.load(FOLDER / f"{request.param}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def part(reference: dict, prefix: str) -> dict:
    return {
        name.removeprefix(prefix): value
        for name, value in reference.items()
        if name.startswith(prefix)
    }


def imported(reference: dict) -> torch.nn.Module:
    sizes = json.loads(reference["config"].tobytes())
    return import_state(sizes["system"], part(reference, "state/"), sizes)


def test_logits_and_gradients_equal_the_original_code(reference: dict) -> None:
    model = imported(reference)
    image, question = (torch.from_numpy(reference[f"in/{one}"]) for one in ("image", "question"))
    assert not image.any(-1).all(), "no padded region in the reference"
    logits = model(image, question)
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(logits.detach(), reference["out/logits"], rtol=0, atol=TOLERANCE)

    (logits * torch.from_numpy(reference["in/cotangent"])).sum().backward()
    gradients = to_original({n: p.grad for n, p in model.named_parameters()}, model.config)
    expected = part(reference, "grad/")
    assert gradients.keys() == expected.keys() == part(reference, "state/").keys()
    largest = max(np.abs(value).max() for value in expected.values())
    for name, gradient in gradients.items():
        error = np.abs(gradient.numpy() - expected[name]).max() / largest
        assert error < TOLERANCE, f"{name}: {error}"


def test_weights_exported_under_original_names_are_the_original_weights(reference: dict) -> None:
    model = imported(reference)
    state = part(reference, "state/")
    exported = to_original(model.state_dict(), model.config)
    assert exported.keys() == state.keys()
    for name, value in exported.items():
        np.testing.assert_array_equal(value, state[name])
