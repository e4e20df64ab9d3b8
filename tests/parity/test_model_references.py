"""Our MCAN and RWSAN against outputs of the original code: logits and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_files import Reference, load_reference

from trar.trainer.importers import import_state, to_original


@pytest.fixture(params=["mcan_vqa", "rwsan_vqa"])
def reference(request: pytest.FixtureRequest) -> Reference:
    return load_reference(request.param)


def imported(reference: Reference) -> torch.nn.Module:
    return import_state(reference.sizes["system"], reference.part("state/"), reference.sizes)


def test_logits_and_gradients_equal_the_original_code(reference: Reference) -> None:
    model = imported(reference)
    image, question, cotangent = reference.inputs("image", "question", "cotangent")
    assert not image.any(-1).all(), "no padded region in the reference"
    logits = model(image, question)
    reference.check_logits(logits)

    (logits * cotangent).sum().backward()
    gradients = to_original({n: p.grad for n, p in model.named_parameters()}, model.config)
    expected = reference.part("grad/")
    assert gradients.keys() == expected.keys() == reference.part("state/").keys()
    reference.check_gradients({name: x.numpy() for name, x in gradients.items()})


def test_weights_exported_under_original_names_are_the_original_weights(
    reference: Reference,
) -> None:
    model = imported(reference)
    state = reference.part("state/")
    exported = to_original(model.state_dict(), model.config)
    assert exported.keys() == state.keys()
    for name, value in exported.items():
        np.testing.assert_array_equal(value, state[name])
