"""Our LXMERT, with and without spans and sparsity, against outputs of the original code: logits
and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_files import Reference, load_reference, reference_names

from trar.trainer.importers import import_state
from trar.trainer.importers.lxmert import name_table, why_unused
from trar.trainer.importers.names import rename

NAMES = reference_names("lxmert")


@pytest.fixture(params=NAMES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return load_reference(request.param)


def by_original_name(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Gradients, those of the free parameters carried over to the span and alpha they stand for."""
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, attention in model.attentions():
        for kind, slope in (("span", 1.0), ("alpha", 0.99)):
            logit = getattr(attention, f"{kind}_logit")
            if logit is not None:
                share = logit.detach().sigmoid()
                gradients[f"{name}.{kind}_logit"] = logit.grad / (slope * share * (1 - share))
    named = rename(name_table(model.config), gradients)
    return {name.replace(".alpha", ".alpha_chooser"): x.numpy() for name, x in named.items()}


def test_all_four_references_are_here() -> None:
    assert len(NAMES) == 4


def test_logits_and_gradients_equal_the_original_code(reference: Reference) -> None:
    state, sizes = reference.part("state/"), reference.sizes
    model = import_state("lxmert", state, sizes)
    assert (model.config.adaptive_span, model.config.entmax) == (
        sizes["adaptive_span"],
        sizes["entmax"],
    )
    image, question, boxes, cotangent = reference.inputs("image", "question", "box", "cotangent")
    logits = model(image, question, None, boxes, torch.ones(len(image), 2))
    reference.check_logits(logits)

    (logits * cotangent).sum().backward()
    gradients = by_original_name(model)
    taken = {name.replace(".alpha_chooser", ".alpha") for name in gradients}
    assert taken.isdisjoint(why_unused(state))
    assert taken | why_unused(state).keys() == state.keys()
    expected = {  # a span has one row for each place in the batch there
        name: value.sum(0).ravel() if name.endswith("current_val") else value
        for name, value in reference.part("grad/").items()
    }
    assert expected.keys() == gradients.keys()
    arrays = {f"grad/{name}": value for name, value in expected.items()}
    Reference(sizes, arrays).check_gradients(gradients)
