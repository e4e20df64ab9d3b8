"""A checkpoint of the original code as a checkpoint file of ours, which ``eval`` and ``predict``
take like any other.

The tensors tell most sizes; windows, heads, routing and the switches come from a recipe. What the
weights were trained on is in neither, and is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trar.errors import CheckpointError, ConfigError
from trar.features.answers import AnswerDictionary
from trar.features.reader import FeatureStore
from trar.features.text import Vocabulary
from trar.features.word_pieces import vocabulary_from_json
from trar.fileio import disk_errors
from trar.trainer.checkpoint import Checkpoint, save_checkpoint
from trar.trainer.config import TrainConfig
from trar.trainer.importers import ImportedTensor, Original, import_checkpoint
from trar.trainer.model_sizes import feature_sizes
from trar.trainer.rates import epoch_temperature
from trar.trainer.store_check import check_store

_PRESETS = {
    "trar": "vqa-soft-avg",
    "mcan": "mcan-small",
    "rwsan": "rwsan-vqa",
    "lxmert": "lxmert-vqa",
}
_CLEVR_PRESETS = {"trar": "clevr-hard-fc", "mcan": "mcan-clevr"}
# What a recipe says and tensors do not tell; the rest of a model's settings is read off them.
_TOLD = (
    *("orders", "heads", "routing", "binarize", "question_repeats", "image_repeats"),
    *("adaptive_span", "distance", "span_ramp", "span_penalty", "entmax", "dropout", "layer_drop"),
    *("text_tokens", "objects"),
)
_SIZES = (
    *("layers", "width", "ff_width", "word_width", "flat_hidden", "flat_width"),
    *("pooling", "question_rank", "image_rank", "guided_rank"),
    *("language_layers", "object_layers", "cross_layers", "positions", "text_tokens", "objects"),
    *("adaptive_span", "distance", "span_ramp", "entmax"),
)


def preset_for(original: Original) -> str:
    """The recipe that weights are taken to be of where nobody says."""
    by_system = _CLEVR_PRESETS if original.on_clevr else _PRESETS
    return by_system[original.system]


def import_file(
    original: Original,
    out: Path,
    *,
    config: TrainConfig,
    vocabulary: Vocabulary,
    answers: AnswerDictionary,
    store: FeatureStore | None = None,
    same_pooling: bool = True,
    head_answers: Sequence[str] | None = None,
) -> list[ImportedTensor]:
    """Write ``original`` as our checkpoint ``out``; returns what became of every name in it.

    ``config`` says what the tensors do not: heads, windows, routing and switches, and on which
    splits the weights were trained; it must be of their system. Its sizes give way to those of
    the tensors, and its pooling too unless ``same_pooling``. With a ``store`` the checkpoint is
    held against that.

    Raises:
        CheckpointError: ``out`` exists, or the weights do not fit the recipe, the vocabulary, the
            answers or the store.
        DiskError: no space or no permission.
    """
    if out.exists():
        raise CheckpointError(f"{out}: exists already, and is never overwritten; choose --out")
    settings = config.model
    if settings.system != original.system:
        raise CheckpointError(
            f"{original.path}: these are weights of {original.system}, preset {config.preset} is "
            f"of {settings.system}; choose a preset that fits, such as {preset_for(original)}"
        )
    grid = feature_sizes(store).grid_side if store else config.data.grid
    told = {name: getattr(settings, name) for name in _TOLD if hasattr(settings, name)}
    model, report = import_checkpoint(
        original,
        vocabulary=vocabulary,
        answers=answers,
        sizes={**told, "grid": grid},
        head_answers=head_answers,
    )
    whole: Any = model.config
    pooling = getattr(settings, "pooling", None)
    if same_pooling and pooling and whole.pooling != pooling:
        raise CheckpointError(
            f"{original.path}: the weights are of {whole.pooling} pooling, preset "
            f"{config.preset} has {pooling}; choose a preset that fits"
        )
    sizes = {name: getattr(whole, name) for name in _SIZES if hasattr(settings, name)}
    checkpoint = Checkpoint(
        path=out,
        config=config.model_copy(update={"model": settings.model_copy(update=sizes)}),
        epoch=original.epoch,
        step=0,
        dataset=store.dataset if store else "clevr" if config.loss == "ce-sum" else "vqa",
        store_fingerprint=store.meta.fingerprint if store else "",
        feature_dim=whole.feature_dim,
        grid_side=getattr(whole, "grid_side", grid),
        vocabulary=vocabulary,
        answers=answers,
        history=(),
    )
    if store is not None:
        check_store(checkpoint, store)
    if original.system == "trar":
        model.get_buffer("temperature").fill_(_last_temperature(config, original.epoch))
    without_moments = torch.optim.Adam(model.parameters())
    save_checkpoint(checkpoint, model, without_moments)
    return report


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a store (``vocabulary-*.json``).

    Raises:
        ConfigError: missing, or not JSON.
        StoreError: not a vocabulary.
    """
    return vocabulary_from_json(_json(path, "--vocabulary"), where=str(path))


def read_answers(path: Path) -> AnswerDictionary:
    """The answers of a store (``answers-*.json``), a published ``answer_dict.json``, or a list in
    the order of their labels, as LXMERT's ``trainval_label2ans.json``.

    Raises:
        ConfigError: missing, or not JSON.
        StoreError: not an answer dictionary.
    """
    said = _json(path, "--answers")
    if isinstance(said, list) and all(isinstance(one, str) for one in said):
        return AnswerDictionary(tuple(said))
    return AnswerDictionary.from_json(said, where=str(path))


def read_head_answers(path: Path) -> list[str]:
    """The answers of LXMERT's pre-training in the order of its answer head: ``all_ans.json``, or a
    plain list.

    Raises:
        ConfigError: missing, not JSON, or no list of answers.
    """
    said = _json(path, "--pretrained-answers")
    listed: list[Any] = said if isinstance(said, list) else [None]
    answers = [one.get("ans") if isinstance(one, dict) else one for one in listed]
    known = [one for one in answers if isinstance(one, str)]
    if len(known) < len(answers):
        raise ConfigError(
            f'{path}: expected a list of answers, or of objects with "ans", as LXMERT\'s '
            "data/lxmert/all_ans.json is"
        )
    return known


def _last_temperature(config: TrainConfig, epoch: int) -> float:
    """What training ended with, which the originals do not save."""
    return epoch_temperature(config, (epoch or config.schedule.epochs) - 1)


def _json(path: Path, option: str) -> Any:
    try:
        with disk_errors(path):
            return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {option} takes one of a store") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); {option} takes a file of a store") from None
