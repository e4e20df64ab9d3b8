"""A checkpoint: one safetensors file that holds all it takes to evaluate, or to train on.

Tensors: ``model.<name>`` (weights and saved buffers) and ``optimiser.<moment>.<parameter>``. The
rest is JSON in the file's metadata: the config, where the run stood, the vocabulary and the
answers in full, and a crc32c per tensor, since safetensors itself notices no flipped bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trar.errors import CheckpointError, StoreError, TrarError
from trar.features.answers import AnswerDictionary
from trar.features.reader import SCHEME, TOKENIZER, FeatureStore
from trar.features.schema import StoreMeta
from trar.features.text import Vocabulary
from trar.trainer.config import ModelSettings, TrainConfig, config_from
from trar.trainer.models import TrarConfig, build_model
from trar.trainer.run_folder import checkpoints_in
from trar.trainer.tensor_file import read_metadata, read_tensors, write_tensors

FORMAT_VERSION = 1
_MODEL, _OPTIMISER = "model.", "optimiser."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file says; its tensors are read when asked for.

    ``epoch`` and ``step`` count what is finished. ``history`` has one entry per finished epoch:
    ``epoch`` from 1, ``loss`` per question, ``scores`` or None.
    """

    path: Path
    config: TrainConfig
    epoch: int
    step: int
    dataset: str
    store_fingerprint: str
    feature_dim: int
    grid_side: int
    vocabulary: Vocabulary
    answers: AnswerDictionary
    history: tuple[dict[str, Any], ...]

    def model(self, device: torch.device | str = "cpu") -> nn.Module:
        """The model with its weights, in evaluation mode.

        Raises:
            CheckpointError: damaged weights, or weights of another model.
        """
        model = build_model(
            model_config(
                self.config.model,
                vocabulary_size=len(self.vocabulary),
                answer_count=len(self.answers),
                feature_dim=self.feature_dim,
                grid_side=self.grid_side,
            )
        )
        try:
            model.load_state_dict(read_tensors(self.path, _MODEL))
        except RuntimeError as error:
            lines = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.path}: its weights are not those of its own config: {lines}; "
                "it was written by another version of trar, use that one"
            ) from None
        return model.to(device).eval()

    def restore_optimiser(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Give ``optimiser``, made over ``model.parameters()``, the moments that were saved.

        Raises:
            CheckpointError: damaged moments.
        """
        moments = read_tensors(self.path, _OPTIMISER)
        state: dict[int, dict[str, Tensor]] = {}
        for number, (name, _) in enumerate(model.named_parameters()):
            of_this = {
                key.partition(".")[0]: value
                for key, value in moments.items()
                if key.partition(".")[2] == name
            }
            if of_this:
                state[number] = of_this
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})

    def check_store(self, store: FeatureStore, *, same_store: bool = False) -> str | None:
        """Refuse a store whose questions or images mean something else to this model.

        Returns a remark where the store has other contents but the same vocabulary, answers and
        feature sizes, which is fine for evaluation; ``same_store`` refuses that too.

        Raises:
            CheckpointError: what differs, and which store to use.
        """
        meta = store.meta
        self._check_vocabulary(store.path, meta)
        answers = meta.answer_schemes[SCHEME]
        if answers.digest != self.answers.digest:
            raise CheckpointError(
                f"{self.path}: the checkpoint has {len(self.answers):,} answers (digest "
                f"{self.answers.digest[:8]}…), {store.path} has {answers.answers:,} "
                f"({answers.digest[:8]}…, made from {_made_from(answers.made_from)}): its labels "
                "mean other answers; prepare the store with the checkpoint's answers "
                "(--answers FILE), or use the store it was trained on"
            )
        wanted = (self.feature_dim, self.grid_side)
        if wanted != feature_sizes(store):
            width, side = feature_sizes(store)
            raise CheckpointError(
                f"{self.path}: the checkpoint reads {wanted[1]}x{wanted[1]} cells of {wanted[0]} "
                f"numbers, {store.path} has {side}x{side} of {width}; use a store of the same "
                "features"
            )
        if meta.fingerprint == self.store_fingerprint:
            return None
        remark = (
            f"{store.path} (fingerprint {meta.fingerprint[:8]}…) is not the store that "
            f"{self.path.name} was trained on ({self.store_fingerprint[:8]}…)"
        )
        if same_store:
            raise CheckpointError(
                f"{remark}: going on would train on other data than the run began with; "
                "use the store it began with, or start a new run"
            )
        return f"{remark}; vocabulary, answers and feature sizes are the same"

    def _check_vocabulary(self, folder: Path, meta: StoreMeta) -> None:
        entry = meta.vocabularies[TOKENIZER]
        if entry.digest == self.vocabulary.digest:
            return
        trained, present = set(self.vocabulary.sources), set(entry.made_from)
        without = f": the store was made without {', '.join(sorted(trained - present))}"
        raise CheckpointError(
            f"{self.path}: the checkpoint's vocabulary has {len(self.vocabulary):,} tokens (digest "
            f"{self.vocabulary.digest[:8]}…), {folder} has {entry.tokens:,} ({entry.digest[:8]}…)"
            f"{without if trained - present else ''}; the checkpoint's is made from "
            f"{_made_from(self.vocabulary.sources)}, the store's from "
            f"{_made_from(entry.made_from)}; "
            "prepare the store with the checkpoint's question files, or use the store it was "
            "trained on"
        )


def save_checkpoint(
    checkpoint: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write ``checkpoint.path`` with the tensors of ``model`` and ``optimiser``, atomically.

    Raises:
        DiskError: no space or no permission; an older file of that name is untouched.
    """
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{_OPTIMISER}{moment}.{name}"] = value
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
        found = checkpoints_in(path)
        if not found:
            raise CheckpointError(f"{path}: no checkpoint-*.safetensors in this folder")
        path = found[max(found)]
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
        vocabulary = Vocabulary.from_json(said["vocabulary"])
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
        )
    except (KeyError, TypeError, ValueError, TrarError) as error:
        raise CheckpointError(
            f"{path}: its description is damaged ({error}); use another checkpoint of the run"
        ) from None


def model_config(
    settings: ModelSettings,
    *,
    vocabulary_size: int,
    answer_count: int,
    feature_dim: int,
    grid_side: int,
) -> TrarConfig:
    """The model's whole config: what the recipe says and what the store decides."""
    return TrarConfig(
        vocabulary_size=vocabulary_size,
        answer_count=answer_count,
        feature_dim=feature_dim,
        grid_side=grid_side,
        **settings.model_dump(),
    )


def feature_sizes(store: FeatureStore) -> tuple[int, int]:
    """Numbers per grid cell, and cells per side of the grid.

    Raises:
        StoreError: regions, or a grid that is no square, which the attention windows need.
    """
    spec = store.meta.feature
    if spec.grid is None:
        raise StoreError(
            f"{store.path}: its features are regions ({spec.describe()}); TRAR routes attention "
            "over a grid: prepare 8x8 or 16x16 .npy or grid-feats-vqa .pth features into a store"
        )
    if spec.grid[0] != spec.grid[1]:
        raise StoreError(
            f"{store.path}: a grid of {spec.grid[0]}x{spec.grid[1]} cells; TRAR needs a square one"
        )
    return spec.width, spec.grid[0]


def _made_from(sources: Any) -> str:
    if isinstance(sources, Mapping):
        return (
            ", ".join(f"{name} ({count:,})" for name, count in sources.items()) or "unknown files"
        )
    return ", ".join(sources) or "unknown files"
