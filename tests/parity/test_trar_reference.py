"""Our TRAR against outputs of the original code: logits and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
from reference_files import Reference, load_reference, reference_names

from trar.trainer.importers import import_state, to_original

NAMES = reference_names("trar_")


@pytest.fixture(params=NAMES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return load_reference(request.param)


def adapter_of(reference: Reference) -> str:
    return "grid_linear" if reference.sizes["dataset"] == "clevr" else "frcn_linear"


def test_all_six_references_are_here() -> None:
    assert len(NAMES) == 6


def test_logits_and_gradients_equal_the_original_code(reference: Reference) -> None:
    state = reference.part("state/")
    model = import_state("trar", state, reference.sizes)
    image, question, cotangent = reference.inputs("image", "question", "cotangent")
    logits = model(image, question)
    reference.check_logits(logits)

    (logits * cotangent).sum().backward()
    gradients = to_original(
        {
            name: p.new_zeros(p.shape) if p.grad is None else p.grad
            for name, p in model.named_parameters()
        },
        model.config,
        adapter=adapter_of(reference),
    )
    assert gradients.keys() == state.keys()
    reference.check_gradients({name: x.numpy() for name, x in gradients.items()})


def test_weights_exported_under_original_names_are_the_original_weights(
    reference: Reference,
) -> None:
    state = reference.part("state/")
    wrapped = {f"module.{name}": value for name, value in state.items()}
    model = import_state("trar", wrapped, reference.sizes)
    exported = to_original(model.state_dict(), model.config, adapter=adapter_of(reference))
    assert exported.keys() == state.keys()
    for name, value in exported.items():
        np.testing.assert_array_equal(value, state[name])
