"""The model that a run begins with: what its recipe and its store say, untrained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trar.features.reader import FeatureStore
from trar.trainer.config import TrainConfig
from trar.trainer.model_sizes import feature_sizes, model_config
from trar.trainer.models import build_model
from trar.trainer.word_vectors import StartVectors, start_embeddings


def whole_model_config(config: TrainConfig, store: FeatureStore) -> Any:
    """The config of the model that a run trains on a store that it can read, of ``MODELS``."""
    return model_config(
        config.model,
        vocabulary_size=len(store.vocabulary),
        answer_count=len(store.answers),
        features=feature_sizes(store),
    )


def new_model(
    config: TrainConfig, store: FeatureStore, start: StartVectors, device: torch.device
) -> nn.Module:
    """The untrained model: the same weights for the same seed on every device, and all but the
    word embeddings the same whatever those start from."""
    torch.manual_seed(config.seed)
    model = build_model(whole_model_config(config, store))
    start_embeddings(model, start)
    return model.to(device)
