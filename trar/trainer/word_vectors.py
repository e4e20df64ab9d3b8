"""Where a model's word embeddings start: from the store's word vectors, or at random.

The setting ``data.vectors`` chooses: ``auto`` (the store's only vectors, where their width is
``model.word_width``), ``none``, or the name of vectors in the store. Embeddings stay trainable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trar.errors import ConfigError, StoreError
from trar.features.reader import FeatureStore
from trar.features.vectors import VectorsEntry
from trar.trainer.config import TrainConfig
from trar.trainer.preset_files import suggest

_AT_RANDOM = "word embeddings start at random"


@dataclass(frozen=True)
class StartVectors:
    """``table`` (V, w) of the vectors called ``name``, or None and None; ``note`` tells which and
    why."""

    name: str | None
    table: NDArray[np.float32] | None
    note: str


def choose_vectors(config: TrainConfig, store: FeatureStore) -> StartVectors:
    """The vectors that a new run starts from.

    Raises:
        ConfigError: vectors of that name are not in the store, or of another width.
        StoreError: they are damaged, or not of the store's vocabulary.
    """
    wanted, have = config.data.vectors, store.meta.vectors
    width = getattr(config.model, "word_width", None)
    if width is None:
        return StartVectors(None, None, "word embeddings are the model's own")
    if wanted == "none":
        return StartVectors(None, None, f"{_AT_RANDOM} (data.vectors=none)")
    if wanted == "auto":
        why_not = _why_not(have, width)
        if why_not:
            return StartVectors(None, None, f"{_AT_RANDOM}: {store.path} {why_not}")
        wanted = next(iter(have))
    if wanted not in have:
        raise ConfigError(
            f"data.vectors is {wanted!r}{suggest(wanted, list(have))}; {store.path} has "
            f"{', '.join(have) or 'no word vectors'}. Choose one of those, auto or none, or add "
            "them with `trar-data prepare --vectors SOURCE`"
        )
    entry = have[wanted]
    if entry.width != width:
        raise ConfigError(
            f"data.vectors={wanted} has {entry.width} numbers a word, model.word_width is {width}; "
            f"set model.word_width={entry.width}, or choose other vectors"
        )
    if entry.tokens != len(store.vocabulary):
        raise StoreError(
            f"{store.path}: the word vectors {wanted} are of {entry.tokens:,} tokens, the "
            f"vocabulary has {len(store.vocabulary):,}; prepare this dataset again"
        )
    share = 100 * entry.covered / max(entry.tokens, 1)
    return StartVectors(
        wanted,
        store.vectors(wanted),
        f"word embeddings start from {entry.made_from} ({entry.covered:,} of {entry.tokens:,} "
        f"tokens, {share:.1f} %)",
    )


def start_embeddings(model: nn.Module, start: StartVectors) -> None:
    """Put the vectors, where there are any, into the model's word embeddings."""
    if start.table is not None:
        with torch.no_grad():
            model.get_parameter("embedding.weight").copy_(torch.from_numpy(start.table))


def _why_not(have: dict[str, VectorsEntry], width: int) -> str | None:
    if not have:
        return "has no word vectors (`trar-data prepare --vectors SOURCE` adds them)"
    if len(have) > 1:
        return f"has several vectors ({', '.join(have)}); choose with --set data.vectors=NAME"
    (entry,) = have.values()
    if entry.width != width:
        return f"has vectors of {entry.width} numbers a word, model.word_width is {width}"
    return None
