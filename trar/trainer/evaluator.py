"""What a model answers, and what those answers score by the rule of the data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trar.errors import ConfigError
from trar.features.questions import ANSWER_TYPES
from trar.features.reader import SCHEME, FeatureStore
from trar.trainer.checkpoint import Checkpoint, load_checkpoint
from trar.trainer.loader import BatchStream, Questions
from trar.trainer.metrics import VqaScore, exact, labels, vqa
from trar.trainer.metrics.vqa import Rules

ScoredModel = nn.Module | Checkpoint | Path | str
_PREFETCH = 4


@dataclass(frozen=True)
class Predictions:
    """One answer per question of a split, in the order of its file: ``question_ids`` (q,) int64,
    ``answers`` as text, ``logits`` (q,) float32 of the chosen answers."""

    question_ids: NDArray[np.int64]
    answers: list[str]
    logits: NDArray[np.float32]


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
) -> Predictions:
    """The most likely answer to every question of a split.

    ``batch_size`` and ``max_tokens`` come from the checkpoint's config where not given; a bare
    ``nn.Module`` needs ``max_tokens``, stays on its device, and keeps its training mode.
    ``progress(done, total)`` counts questions.

    Raises:
        StoreError: no such split, or an image that does not match its checksum.
        CheckpointError: a checkpoint that does not fit the store.
    """
    store = _open(store)
    if not isinstance(model, nn.Module):
        checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
        checkpoint.check_store(store)
        batch_size = batch_size or checkpoint.config.data.eval_batch_size
        said = checkpoint.config.data.max_tokens
        max_tokens = max_tokens or said or store.meta.longest_question
        model = checkpoint.model(pick_device(device))
    if max_tokens is None:
        raise TypeError("max_tokens is needed with a bare module: how it was trained is not known")
    batch_size = batch_size or 64
    questions = Questions(store, [split], max_tokens=max_tokens, targets=False)
    rows = np.arange(len(questions))
    parts = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    labels = np.empty(len(rows), np.int64)
    logits = np.empty(len(rows), np.float32)
    place = next(model.parameters()).device
    was_training = model.training
    model.eval()
    done = 0
    try:
        with torch.inference_mode(), BatchStream(questions, parts, prefetch=_PREFETCH) as stream:
            for loaded in stream:
                batch = loaded.to(place)
                best, label = model(batch.features, batch.tokens, batch.cells).max(dim=1)
                stop = done + len(batch)
                logits[done:stop] = best.float().cpu().numpy()
                labels[done:stop] = label.cpu().numpy()
                done = stop
                progress(done, len(rows))
    finally:
        model.train(was_training)
    answers = store.answers.answers
    return Predictions(questions.ids, [answers[label] for label in labels.tolist()], logits)


def score_answers(
    store: FeatureStore, split: str, answers: Sequence[str], *, rules: Rules = "official"
) -> VqaScore:
    """Score one answer per question of a split, in the order of its file, by the store's rule.

    Raises:
        StoreError: no such split, or a split without answers.
    """
    table, truth = store.questions(split), store.answers_of(split)
    type_names = list(table.type_names)
    columns = (
        table.ids.tolist(),
        answers,
        truth.lists(),
        [type_names[number] for number in table.type.tolist()],
        [ANSWER_TYPES[number] for number in truth.type.tolist()],
    )
    rule = store.meta.answer_schemes[SCHEME].rule
    if rule == "exact":
        return exact.score_columns(*columns)
    if rule == "labels" and truth.scores is not None:
        return labels.score_columns(*columns, scores=truth.score_lists())
    return vqa.score_columns(*columns, rules=rules)


def blind_baseline(
    store: FeatureStore | Path | str, train_splits: str, split: str, *, rules: Rules = "official"
) -> VqaScore:
    """What is reached without looking: the most frequent training answer to the same question.

    A question text that training never asked gets the most frequent answer of all. Of answers
    equally frequent the one met first is taken. ``train_splits`` may be a sum (``train+vg``).

    Raises:
        StoreError: no such split, or a split without answers.
    """
    store = _open(store)
    by_text: defaultdict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for name in train_splits.split("+"):
        majority = store.answers_of(name).majority
        for text, answer in zip(store.questions(name).texts, majority, strict=True):
            by_text[text][answer] += 1
            overall[answer] += 1
    usual = overall.most_common(1)[0][0]
    guesses = {text: counts.most_common(1)[0][0] for text, counts in by_text.items()}
    answers = [guesses.get(text, usual) for text in store.questions(split).texts]
    return score_answers(store, split, answers, rules=rules)


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
