"""Our LXMERT, with and without spans and sparsity, against outputs of the original code: logits
and every gradient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trar.trainer.importers import import_state
from trar.trainer.importers.lxmert import name_table, why_unused
from trar.trainer.importers.names import rename

FILES = sorted((Path(__file__).parents[1] / "data" / "reference").glob("lxmert*.npz"))
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
    assert len(FILES) == 4


def test_logits_and_gradients_equal_the_original_code(reference: dict) -> None:
    sizes = json.loads(reference["config"].tobytes())
    state, expected = part(reference, "state/"), part(reference, "grad/")
    model = import_state("lxmert", state, sizes)
    assert (model.config.adaptive_span, model.config.entmax) == (
        sizes["adaptive_span"],
        sizes["entmax"],
    )

    image, question, boxes = (
        torch.from_numpy(reference[f"in/{name}"]) for name in ("image", "question", "box")
    )
    logits = model(image, question, None, boxes, torch.ones(len(image), 2))
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(logits.detach(), reference["out/logits"], rtol=0, atol=TOLERANCE)

    (logits * torch.from_numpy(reference["in/cotangent"])).sum().backward()
    gradients = by_original_name(model)
    assert expected.keys() == gradients.keys()
    taken = {name.replace(".alpha_chooser", ".alpha") for name in gradients}
    assert taken.isdisjoint(why_unused(state))
    assert taken | why_unused(state).keys() == state.keys()
    largest = max(np.abs(value).max() for value in expected.values())
    for name, gradient in gradients.items():
        wanted = expected[name]
        if name.endswith("current_val"):  # one row for each place in the batch
            wanted = wanted.sum(0).ravel()
        error = np.abs(gradient - wanted).max() / largest
        assert error < TOLERANCE, f"{name}: {error}"
