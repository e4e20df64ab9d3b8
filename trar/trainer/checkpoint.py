"""A checkpoint: one safetensors file that holds all it takes to evaluate, or to train on.

Tensors: ``model.<name>`` (weights and saved buffers), ``optimiser.<moment>.<parameter>``, where
the weights are averaged ``average.<name>``, and within an epoch ``losses``, those of its steps so
far. Random numbers need no state: they are functions of (seed, step). The rest is JSON in the
file's metadata: the config, where the run stood, the vocabulary and the answers in full, and a
crc32c per tensor, since safetensors itself notices no flipped bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trar.errors import CheckpointError, StoreError, TrarError
from trar.features.answers import AnswerDictionary
from trar.features.reader import FeatureStore
from trar.features.text import Vocabulary
from trar.features.word_pieces import vocabulary_from_json
from trar.trainer.config import TrainConfig, config_from, split_names
from trar.trainer.model_sizes import FeatureSizes, model_config
from trar.trainer.models import build_model
from trar.trainer.optim import counters, moments, restore
from trar.trainer.run_folder import newest_checkpoint
from trar.trainer.tensor_file import read_metadata, read_tensors, write_tensors

FORMAT_VERSION = 1
_MODEL, _OPTIMISER, _AVERAGE, _LOSSES = "model.", "optimiser.", "average.", "losses"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file says; its tensors are read when asked for.

    ``epoch`` and ``step`` count what is finished, ``step`` from the beginning of the run and
    ``epoch_step`` from that of the epoch that is not finished. ``history`` has one entry per
    finished epoch: ``epoch`` from 1, ``loss`` per question, ``scores`` or None. ``scaler`` is the
    state of the loss scaling of fp16, ``averaged`` says whether there are averaged weights,
    ``counters`` are the optimiser's.
    """

    path: Path
    config: TrainConfig
    epoch: int
    step: int
    dataset: str
    store_fingerprint: str
    feature_dim: int
    grid_side: int | None
    vocabulary: Vocabulary
    answers: AnswerDictionary
    history: tuple[dict[str, Any], ...]
    epoch_step: int = 0
    scaler: dict[str, Any] | None = None
    averaged: bool = False
    counters: dict[str, int] | None = None

    @property
    def features(self) -> FeatureSizes:
        """The sizes of the features that the model reads."""
        return FeatureSizes(self.feature_dim, self.grid_side)

    @property
    def trained_on(self) -> list[str]:
        """Every question split that the weights have seen: also those of the run that this one
        started from."""
        now = self.config.split
        sums = [*(one.get("split", now) for one in self.history), now]
        return list(dict.fromkeys(name for one in sums for name in split_names(one)))

    def model(
        self, device: torch.device | str = "cpu", *, average: bool | None = None
    ) -> nn.Module:
        """The model with its weights, in evaluation mode; with the averaged ones where there are
        any, unless ``average`` says which.

        Raises:
            CheckpointError: damaged weights, or weights of another model.
        """
        model = build_model(
            model_config(
                self.config.model,
                vocabulary_size=len(self.vocabulary),
                answer_count=len(self.answers),
                features=self.features,
            )
        )
        try:
            model.load_state_dict(self.weights(average=average))
        except RuntimeError as error:
            lines = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.path}: its weights are not those of its own config: {lines}; "
                "it was written by another version of trar, use that one"
            ) from None
        return model.to(device).eval()

    def weights(self, *, average: bool | None = None) -> dict[str, Tensor]:
        """Weights and saved buffers by name, see ``model``.

        Raises:
            CheckpointError: damaged.
        """
        averaged = self.averaged if average is None else average
        return read_tensors(self.path, _AVERAGE if averaged else _MODEL)

    def losses(self) -> list[float]:
        """The summed loss of each step of the epoch that is not finished.

        Raises:
            CheckpointError: damaged.
        """
        found: list[float] = (
            read_tensors(self.path, _LOSSES)[""].tolist() if self.epoch_step else []
        )
        return found

    def restore_optimiser(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Give ``optimiser``, made over ``model.parameters()``, the moments that were saved.

        Raises:
            CheckpointError: damaged moments.
        """
        restore(model, optimiser, read_tensors(self.path, _OPTIMISER), self.counters or {})

    def view_of(self, store: FeatureStore) -> FeatureStore:
        """``store`` with the tokens and targets that these weights are for.

        Raises:
            StoreError: it has no such tokens or targets.
        """
        return store.using(self.config.data.tokenizer, self.config.data.targets)


def save_checkpoint(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    average: nn.Module | None = None,
    losses: Sequence[float] = (),
) -> None:
    """Write ``checkpoint.path`` with the tensors of ``model`` and ``optimiser``, atomically.

    ``average`` is the model with averaged weights, ``losses`` are those of the steps of an
    unfinished epoch.

    Raises:
        DiskError: no space or no permission; an older file of that name is untouched.
    """
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    for name, value in moments(model, optimiser).items():
        tensors[_OPTIMISER + name] = value
    if average is not None:
        tensors |= {_AVERAGE + name: value for name, value in average.state_dict().items()}
    if losses:
        tensors[_LOSSES] = torch.tensor(losses, dtype=torch.float64)
    said = {
        "config": checkpoint.config.model_dump(mode="json"),
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "dataset": checkpoint.dataset,
        "store_fingerprint": checkpoint.store_fingerprint,
        "feature_dim": checkpoint.feature_dim,
        "grid_side": checkpoint.grid_side,
        "vocabulary": checkpoint.vocabulary.to_json(),
        "answers": checkpoint.answers.to_json(),
        "answers_digest": checkpoint.answers.digest,
        "history": list(checkpoint.history),
        "position": {
            "seed": checkpoint.config.seed,
            "epoch": checkpoint.epoch,
            "step": checkpoint.epoch_step,
        },
        "scaler": checkpoint.scaler,
        "counters": counters(optimiser),
        "averaged": average is not None,
    }
    metadata = {
        "format": "pt",  # other readers of safetensors look for it
        "trar_checkpoint": str(FORMAT_VERSION),
        "trar": json.dumps(said, ensure_ascii=False),
    }
    write_tensors(checkpoint.path, tensors, metadata)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read what a checkpoint says. A run folder stands for its newest checkpoint.

    Raises:
        CheckpointError: missing, cut short, not ours, or of another format version.
    """
    path = Path(path)
    if path.is_dir():
        newest = newest_checkpoint(path)
        if newest is None:
            raise CheckpointError(
                f"{path}: no checkpoint-*.safetensors in this folder; give a run's folder"
            )
        path = newest
    metadata = read_metadata(path)
    version = metadata.get("trar_checkpoint")
    if version is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but no checkpoint of trar; "
            "files of the original repositories go through `trar import`"
        )
    if version != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path}: checkpoint format {version}, this version of trar reads format "
            f"{FORMAT_VERSION}; use the version of trar that wrote it"
        )
    try:
        said = json.loads(metadata["trar"])
        vocabulary = vocabulary_from_json(said["vocabulary"])
        answers = AnswerDictionary.from_json(said["answers"])
        if answers.digest != said["answers_digest"]:
            raise StoreError("the answers do not match their digest")
        return Checkpoint(
            path=path,
            config=config_from(TrainConfig, said["config"]),
            epoch=said["epoch"],
            step=said["step"],
            dataset=said["dataset"],
            store_fingerprint=said["store_fingerprint"],
            feature_dim=said["feature_dim"],
            grid_side=said["grid_side"],
            vocabulary=vocabulary,
            answers=answers,
            history=tuple(said["history"]),
            epoch_step=said["position"]["step"],
            scaler=said["scaler"],
            counters=said.get("counters"),
            averaged=said["averaged"],
        )
    except (KeyError, TypeError, ValueError, TrarError) as error:
        raise CheckpointError(
            f"{path}: its description is damaged ({error}); use another checkpoint of the run"
        ) from None
