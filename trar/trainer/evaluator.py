"""What a model answers to the questions of a split, and what that scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trar.errors import ConfigError
from trar.features.reader import FeatureStore
from trar.trainer.batch import model_inputs, noise_keys
from trar.trainer.checkpoint import Checkpoint, load_checkpoint
from trar.trainer.distributed import Ranks
from trar.trainer.loader import InOrder, Loader
from trar.trainer.metrics import VqaScore
from trar.trainer.metrics.vqa import Rules
from trar.trainer.question_batches import Questions
from trar.trainer.sampler import Rows
from trar.trainer.scoring import Predictions, score_answers
from trar.trainer.store_check import check_store

ScoredModel = nn.Module | Checkpoint | Path | str
PREFETCH = 4
NOISE_SEED = 0  # of routing with noise at evaluation: a question is always answered alike


def evaluate(
    model: ScoredModel,
    store: FeatureStore | Path | str,
    split: str,
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    device: str = "auto",
    rules: Rules = "official",
    progress: Callable[[int, int], None] = lambda *_: None,
    keep_logits: Callable[[NDArray[np.float32]], None] = lambda _: None,
    ranks: Ranks | None = None,
) -> VqaScore:
    """Score a model, a checkpoint or its path on a question split of a store.

    Questions with ten annotators are scored by the VQA ``rules`` (official is of 2021), data sets
    with one answer per question by exact match, as the store says. See ``predict`` for the rest.

    Raises:
        StoreError: no such split, or a split without answers.
        CheckpointError: a checkpoint that does not fit the store.
    """
    store = _open(store)
    store.answers_of(split)  # a split without answers is refused before the work, not after it
    predictions = predict(
        model,
        store,
        split,
        batch_size=batch_size,
        max_tokens=max_tokens,
        device=device,
        progress=progress,
        keep_logits=keep_logits,
        ranks=ranks,
    )
    return score_answers(store, split, predictions.answers, rules=rules)


def predict(
    model: ScoredModel,
    store: FeatureStore | Path | str,
    split: str,
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda *_: None,
    keep_logits: Callable[[NDArray[np.float32]], None] = lambda _: None,
    ranks: Ranks | None = None,
) -> Predictions:
    """The most likely answer to every question of a split.

    ``batch_size`` and ``max_tokens`` come from the checkpoint's config where not given; a bare
    ``nn.Module`` needs ``max_tokens``, stays on its device, and keeps its training mode.
    ``progress(done, total)`` counts questions; ``keep_logits`` is given those of every answer,
    (b, a), batch by batch. Each of several ``ranks`` answers its share of every batch, and all of
    them get all answers.

    Raises:
        StoreError: no such split, or an image that does not match its checksum.
        CheckpointError: a checkpoint that does not fit the store.
    """
    store = _open(store)
    if not isinstance(model, nn.Module):
        checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
        check_store(checkpoint, store)
        store = checkpoint.view_of(store)
        batch_size = batch_size or checkpoint.config.data.eval_batch_size
        said = checkpoint.config.data.max_tokens
        max_tokens = max_tokens or said or store.longest_question
        model = checkpoint.model(pick_device(device))
    if max_tokens is None:
        raise TypeError("max_tokens is needed with a bare module: how it was trained is not known")
    batch_size = batch_size or 64
    questions = Questions(store, [split], max_tokens=max_tokens, targets=False)
    place, ranks = next(model.parameters()).device, ranks or Ranks()
    order = InOrder(len(questions), batch_size)
    loader = Loader(
        questions, order, prefetch=PREFETCH, rank=ranks.rank, ranks=ranks.ranks, device=place
    )
    labels, logits = np.empty(len(questions), np.int64), np.empty(len(questions), np.float32)
    own: list[Rows] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), loader.stream() as stream:
            for step, loaded in enumerate(stream):
                rows = loader.rows(0, step)
                if len(rows):  # a short last batch may have nothing for this rank
                    batch = loaded.to(place)
                    keys = noise_keys(model, batch, NOISE_SEED)
                    scored = model(*model_inputs(model, batch), **keys)
                    best, label = scored.max(dim=1)
                    logits[rows], labels[rows] = best.float().cpu().numpy(), label.cpu().numpy()
                    keep_logits(scored.float().cpu().numpy())
                    own.append(rows)
                progress(min((step + 1) * batch_size, len(questions)), len(questions))
    finally:
        model.train(was_training)
    if ranks.ranks > 1:
        mine = np.concatenate([np.empty(0, np.int64), *own])
        for rows, label, logit in ranks.gather((mine, labels[mine], logits[mine])):
            labels[rows], logits[rows] = label, logit
    answers = store.answers.answers
    return Predictions(questions.ids, [answers[label] for label in labels.tolist()], logits)


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        ConfigError: CUDA was asked for by name and there is none.
    """
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ConfigError(
            "device is 'cuda', but torch sees no CUDA device; use --device auto or cpu"
        )
    return torch.device("cuda" if name != "cpu" and present else "cpu")


def _open(store: FeatureStore | Path | str) -> FeatureStore:
    return store if isinstance(store, FeatureStore) else FeatureStore(store)
