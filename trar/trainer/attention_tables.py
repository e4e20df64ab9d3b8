"""What a trained model has learned about its attention: spans and alphas of its heads, and how the
path controller of TRAR weighs its windows.

o = orders (windows), b = questions of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.fileio import disk_errors
from trar.trainer.batch import model_inputs, noise_keys
from trar.trainer.checkpoint import Checkpoint
from trar.trainer.evaluator import PREFETCH, pick_device
from trar.trainer.loader import InOrder, Loader
from trar.trainer.models import Trar
from trar.trainer.question_batches import Questions

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
    checkpoint.check_store(store)
    store = checkpoint.view_of(store)
    place = pick_device(device)
    model = checkpoint.model(place)
    if not isinstance(model, Trar):
        raise ConfigError(
            f"{checkpoint.path}: {checkpoint.config.model.system} routes nothing; give a "
            "checkpoint of trar"
        )
    data, longest = checkpoint.config.data, store.longest_question
    questions = Questions(store, [split], max_tokens=data.max_tokens or longest, targets=False)
    loader = Loader(
        questions, InOrder(len(questions), data.eval_batch_size), prefetch=PREFETCH, device=place
    )
    shape = (len(questions), model.config.layers, len(model.config.orders))
    weights = np.empty(shape, np.float32)
    with torch.inference_mode(), loader.stream() as stream:
        for step, loaded in enumerate(stream):
            batch, record = loaded.to(place), []  # type: ignore[var-annotated]
            keys = noise_keys(model, batch, checkpoint.config.seed)
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


def plot_heads(rows: Sequence[HeadValues], what: Learned, path: Path) -> None:
    """Draw attentions by heads as a map of colours into ``path``.

    Raises:
        ConfigError: matplotlib is not installed, or does not know the file's suffix.
    """
    values = np.array([row.heads for row in rows])
    _draw(values, [row.attention for row in rows], "head", what, path)


def plot_routing(rows: Sequence[RoutingWeights], orders: Sequence[int], path: Path) -> None:
    """Draw the weights over all questions, layers by windows; errors as ``plot_heads``."""
    values = np.array(rows[0].weights)
    names = [f"layer {number}" for number in range(len(values))]
    _draw(values, names, f"window, of {', '.join(map(str, orders))}", "weight", path)


def _mean(name: str, weights: Any) -> RoutingWeights:
    means = weights.mean(0, dtype=np.float64)
    return RoutingWeights(name, len(weights), tuple(tuple(row) for row in means.tolist()))


def _draw(values: Any, names: list[str], across: str, title: str, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "--plot needs matplotlib: pip install 'trar[plots]', or take the table or --json"
        ) from None
    figure = Figure(figsize=(7, 1.5 + 0.22 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, aspect="auto", cmap="viridis")
    figure.colorbar(image)
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(values.shape[1]))
    if path.suffix.lstrip(".") not in figure.canvas.get_supported_filetypes():
        raise ConfigError(
            f"{path}: matplotlib writes no {path.suffix or 'nameless'} files; use .png"
        )
    with disk_errors(path):
        figure.savefig(path, dpi=150)
