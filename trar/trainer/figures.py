"""The figures by which a model in training can be watched, from those models that ``report`` any.

A model's ``report(*inputs, **keys)``, called like the model, goes through a batch and gives what it
has learned, or how it has dealt with these questions, as ``figure -> row -> values (v,)``: for
example ``span -> language.0.attention -> a share for each head``. Values are means over questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trar.trainer.batch import Batch, model_inputs, noise_keys
from trar.trainer.evaluator import NOISE_SEED
from trar.trainer.question_batches import Questions

Figures = dict[str, dict[str, list[float]]]


def spread_batches(questions: Questions, most: int, batch_size: int) -> Iterator[Batch]:
    """At most so many questions, evenly spread over all, in batches."""
    count = min(most, len(questions))
    rows = np.arange(count) * len(questions) // max(count, 1)
    for start in range(0, count, batch_size):
        yield questions.batch(rows[start : start + batch_size])


def mean_figures(model: nn.Module, batches: Iterable[Batch]) -> Figures:
    """What ``model`` reports in evaluation mode, the mean over the questions of ``batches``.

    Nothing random is drawn, and the model is left in the mode that it was in.
    """
    report: Callable[..., dict[str, dict[str, Tensor]]] | None = getattr(model, "report", None)
    if report is None:
        return {}
    device, training = next(model.parameters()).device, model.training
    sums: dict[tuple[str, str], Any] = {}
    questions = 0
    model.eval()
    try:
        with torch.inference_mode():
            for one in batches:
                batch = one.to(device)
                keys = noise_keys(model, batch, NOISE_SEED)
                for figure, rows in report(*model_inputs(model, batch), **keys).items():
                    for row, values in rows.items():
                        sums[figure, row] = sums.get((figure, row), 0.0) + len(batch) * values
                questions += len(batch)
    finally:
        model.train(training)
    figures: Figures = {}
    for (figure, row), total in sums.items():
        figures.setdefault(figure, {})[row] = (total / questions).tolist()
    return figures


def layers_in_training(model: nn.Module, step_seeds: Iterable[int]) -> Figures:
    """``layers_in_training``: the share of the steps with these seeds that each layer of a stack
    takes part in, for a ``model`` in training mode that leaves layers out."""
    layer_use: Callable[[Iterable[int]], dict[str, Tensor]] = getattr(
        model, "layer_use", lambda _: {}
    )
    use = {stack: shares.tolist() for stack, shares in layer_use(step_seeds).items()}
    return {"layers_in_training": use} if use else {}
