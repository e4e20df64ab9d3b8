"""From the settings of a run to the loader that feeds it, within the memory that it may use."""

from __future__ import annotations

import torch

from trar.errors import ConfigError, StoreError
from trar.features.reader import FeatureStore
from trar.trainer.config import DEFAULT_EVAL_SPLIT, TrainConfig
from trar.trainer.distributed import Ranks
from trar.trainer.loader import Loader
from trar.trainer.orders import OrderSettings, make_order
from trar.trainer.preset_files import load_preset
from trar.trainer.question_batches import Questions
from trar.trainer.question_index import QuestionIndex
from trar.trainer.run_settings import DataSettings
from trar.trainer.subsets import Selection


def open_store(config: TrainConfig) -> FeatureStore:
    """The store of a run, checked as it is read as far as the settings say, with their tokens and
    targets.

    Raises:
        StoreError: it has no such tokens or targets.
    """
    store = FeatureStore(config.store, config.dataset, verify_reads=config.data.verify_reads)
    return store.using(config.data.tokenizer, config.data.targets)


def training_loader(
    config: TrainConfig, store: FeatureStore, *, device: torch.device, ranks: Ranks
) -> Loader:
    """The loader of this rank's share of the training batches.

    Raises:
        StoreError: a split that the store does not have, or one without answers.
        ConfigError: nothing to learn from, a selection without questions, a window too small.
    """
    data = config.data
    max_tokens = data.max_tokens or store.longest_question
    questions = Questions(store, config.splits, max_tokens=max_tokens, targets=True)
    if not questions.scored_answers:
        raise ConfigError(
            f"{store.path}: no question of {config.split} has an answer that is in the answer "
            f"dictionary ({len(store.answers):,} answers); train on another split, or prepare the "
            "store with answers that fit"
        )
    settings = order_settings(data)
    index = QuestionIndex.from_store(store, config.splits, settings.selection.columns)
    return Loader(
        questions,
        make_order(settings, seed=config.seed, batch_size=data.batch_size, questions=index),
        threads=data.threads,
        prefetch=data.prefetch,
        rank=ranks.rank,
        ranks=ranks.ranks,
        device=device,
    )


def scored_split(config: TrainConfig, store: FeatureStore) -> tuple[str | None, str | None]:
    """The split to score after each epoch, or None and the reason to tell.

    Raises:
        StoreError: the user's own ``eval_split`` is not in the store, or has no answers.
    """
    split = config.eval_split
    if split is None:
        return None, None
    if split in config.splits:
        return None, (
            f"training on {config.split} includes {split}: nothing is scored on the way; predict "
            "a split that is not trained on, for example `trar predict --split test`"
        )
    if split not in store.meta.question_splits:
        if split == load_preset(config.preset).get("eval_split", DEFAULT_EVAL_SPLIT):
            return None, (
                f"{store.path} has no split {split}: nothing is scored on the way; add it with "
                f"`trar-data prepare --split {split}`"
            )
        raise StoreError(
            f"eval_split is {split}, {store.path} has {', '.join(store.meta.question_splits)}; "
            f"choose one of them, none (--set eval_split=null), or add {split} with `trar-data "
            f"prepare --split {split}`"
        )
    if not store.meta.question_splits[split].answered:
        raise StoreError(
            f"{store.path}: split {split} has no answers to score against; choose another "
            "eval_split, or none with --set eval_split=null"
        )
    return split, None


def order_settings(data: DataSettings) -> OrderSettings:
    """What ``data`` says about the order.

    Raises:
        ConfigError: ``where`` or ``mix`` is not of the form that they have.
    """
    return OrderSettings(
        order=data.order,
        window_bytes=data.window,
        block_images=data.block_images,
        length_pool=data.length_buckets,
        selection=Selection.parse(
            where=data.where,
            fraction=data.fraction,
            limit=data.limit,
            mix=data.mix,
            epoch_questions=data.epoch_questions,
        ),
    )
