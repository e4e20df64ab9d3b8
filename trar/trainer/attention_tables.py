"""What a trained model has learned about its attention: spans, alphas and sparsity of its heads,
and how the path controller of TRAR weighs its windows.

o = orders (windows), b = questions of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.batch import model_inputs, noise_keys
from trar.trainer.checkpoint import Checkpoint
from trar.trainer.evaluator import NOISE_SEED, PREFETCH, pick_device
from trar.trainer.figures import mean_figures, spread_batches
from trar.trainer.loader import InOrder, Loader
from trar.trainer.models import Trar
from trar.trainer.question_batches import Questions
from trar.trainer.store_check import check_store
from trar.trainer.table_plots import draw_table

Learned = Literal["span", "alpha"]
_SWITCH = {"span": "adaptive_span", "alpha": "entmax"}


@dataclass(frozen=True)
class HeadValues:
    """One attention of the model, by its name, and the value of each of its heads."""

    attention: str
    heads: tuple[float, ...]


@dataclass(frozen=True)
class RoutingWeights:
    """The mean weight of each order in each layer over ``questions`` of one ``question_type``
    (``all``: of every type); ``weights`` has a tuple of one weight an order for each layer."""

    question_type: str
    questions: int
    weights: tuple[tuple[float, ...], ...]


def learned_by_head(checkpoint: Checkpoint, what: Learned) -> list[HeadValues]:
    """The span, as a share of the keys' length, or the alpha of every head that has learned one.

    Raises:
        ConfigError: the model of this checkpoint learns none.
    """
    model: Any = checkpoint.model()
    named = model.attentions() if hasattr(model, "attentions") else []
    found = [(name, getattr(one, what)) for name, one in named]
    rows = [HeadValues(name, tuple(x.tolist())) for name, x in found if x is not None]
    if not rows:
        raise ConfigError(
            f"{checkpoint.path}: its heads have learned no {what}; train lxmert with "
            f"--set model.{_SWITCH[what]}=true"
        )
    return rows


def sparsity_by_head(
    checkpoint: Checkpoint,
    store: FeatureStore,
    split: str,
    *,
    questions: int,
    device: str = "auto",
) -> list[HeadValues]:
    """The share of exact zeros among the weights of every head that can have any, over at most so
    many ``questions`` of a split, evenly spread.

    Raises:
        ConfigError: the model of this checkpoint has no such heads.
        StoreError: no such split.
        CheckpointError: a checkpoint that does not fit the store.
    """
    model, _, asked = _opened(checkpoint, store, split, device)
    batches = spread_batches(asked, questions, checkpoint.config.data.eval_batch_size)
    found = mean_figures(model, batches).get("sparsity", {})
    if not found:
        raise ConfigError(
            f"{checkpoint.path}: no weight of its heads is ever zero; train lxmert with "
            "--set model.entmax=true or --set model.adaptive_span=true"
        )
    return [HeadValues(name, tuple(shares)) for name, shares in found.items()]


def routing_weights(
    checkpoint: Checkpoint,
    store: FeatureStore,
    split: str,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[RoutingWeights]:
    """How a TRAR model weighs its windows over the questions of a split: of all, then by type, the
    most frequent first.

    Raises:
        ConfigError: another model.
        StoreError: no such split.
        CheckpointError: a checkpoint that does not fit the store.
    """
    model, store, questions = _opened(checkpoint, store, split, device)
    if not isinstance(model, Trar):
        raise ConfigError(
            f"{checkpoint.path}: {checkpoint.config.model.system} routes nothing; give a "
            "checkpoint of trar"
        )
    place, batch_size = model.temperature.device, checkpoint.config.data.eval_batch_size
    order = InOrder(len(questions), batch_size)
    loader = Loader(questions, order, prefetch=PREFETCH, device=place)
    shape = (len(questions), model.config.layers, len(model.config.orders))
    weights = np.empty(shape, np.float32)
    with torch.inference_mode(), loader.stream() as stream:
        for step, loaded in enumerate(stream):
            batch, record = loaded.to(place), []  # type: ignore[var-annotated]
            keys = noise_keys(model, batch, NOISE_SEED)
            model(*model_inputs(model, batch), **keys, record=record)
            rows = loader.rows(0, step)
            weights[rows] = torch.stack(record, dim=1).float().cpu().numpy()
            progress(int(rows[-1]) + 1, len(questions))
    table = store.questions(split)
    counts = np.bincount(table.type, minlength=len(table.type_names))
    by_type = [
        _mean(table.type_names[number], weights[table.type == number])
        for number in np.argsort(-counts, kind="stable").tolist()
        if counts[number]
    ]
    return [_mean("all", weights), *by_type]


def plot_heads(rows: Sequence[HeadValues], what: str, path: Path) -> None:
    """Draw attentions by heads as a map of colours into ``path``; errors as ``draw_table``."""
    values = [row.heads for row in rows]
    heads = [str(number) for number in range(len(values[0]))]
    draw_table(values, [row.attention for row in rows], heads, ("head", what), path)


def plot_routing(rows: Sequence[RoutingWeights], orders: Sequence[int], path: Path) -> None:
    """Draw the weights over all questions, layers by windows; errors as ``draw_table``."""
    values = rows[0].weights
    layers = [f"layer {number}" for number in range(len(values))]
    draw_table(values, layers, [str(order) for order in orders], ("window", "weight"), path)


def _opened(
    checkpoint: Checkpoint, store: FeatureStore, split: str, device: str
) -> tuple[nn.Module, FeatureStore, Questions]:
    """The model, the store as it reads it, and the questions of a split."""
    check_store(checkpoint, store)
    store = checkpoint.view_of(store)
    longest = checkpoint.config.data.max_tokens or store.longest_question
    questions = Questions(store, [split], max_tokens=longest, targets=False)
    return checkpoint.model(pick_device(device)), store, questions


def _mean(name: str, weights: Any) -> RoutingWeights:
    means = weights.mean(0, dtype=np.float64)
    return RoutingWeights(name, len(weights), tuple(tuple(row) for row in means.tolist()))
