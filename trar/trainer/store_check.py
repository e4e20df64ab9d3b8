"""Whether a store is one that a checkpoint can be evaluated or trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from trar.errors import CheckpointError
from trar.features.reader import FeatureStore
from trar.features.schema import StoreMeta
from trar.trainer.checkpoint import Checkpoint
from trar.trainer.model_sizes import check_readable, feature_sizes


def check_store(
    checkpoint: Checkpoint, store: FeatureStore, *, same_store: bool = False
) -> str | None:
    """Refuse a store whose questions or images mean something else to the model of ``checkpoint``.

    Returns a remark where the store has other contents but the same vocabulary, answers and
    feature sizes, which is fine for evaluation; ``same_store`` refuses that too.

    Raises:
        CheckpointError: what differs, and which store to use.
    """
    meta = checkpoint.view_of(store).meta
    _check_vocabulary(checkpoint, store.path, meta)
    answers = meta.answer_schemes[checkpoint.config.data.targets]
    if answers.digest != checkpoint.answers.digest:
        raise CheckpointError(
            f"{checkpoint.path}: the checkpoint has {len(checkpoint.answers):,} answers (digest "
            f"{checkpoint.answers.digest[:8]}…), {store.path} has {answers.answers:,} "
            f"({answers.digest[:8]}…, made from {_made_from(answers.made_from)}): its labels "
            "mean other answers; prepare the store with the checkpoint's answers "
            "(--answers FILE), or use the store it was trained on"
        )
    check_readable(checkpoint.config.model.system, store)
    found = feature_sizes(store)
    if checkpoint.features != found:
        raise CheckpointError(
            f"{checkpoint.path}: the checkpoint reads {checkpoint.features.describe()}, "
            f"{store.path} has {found.describe()}; use a store of the same features"
        )
    if meta.fingerprint == checkpoint.store_fingerprint:
        return None
    remark = (
        f"{store.path} (fingerprint {meta.fingerprint[:8]}…) is not the store that "
        f"{checkpoint.path.name} was trained on ({checkpoint.store_fingerprint[:8]}…)"
    )
    if same_store:
        raise CheckpointError(
            f"{remark}: going on would train on other data than the run began with; "
            "use the store it began with, or start a new run"
        )
    return f"{remark}; vocabulary, answers and feature sizes are the same"


def _check_vocabulary(checkpoint: Checkpoint, folder: Path, meta: StoreMeta) -> None:
    vocabulary, entry = checkpoint.vocabulary, meta.vocabularies[checkpoint.config.data.tokenizer]
    if entry.digest == vocabulary.digest:
        return
    trained, present = set(vocabulary.sources), set(entry.made_from)
    without = f": the store was made without {', '.join(sorted(trained - present))}"
    raise CheckpointError(
        f"{checkpoint.path}: the checkpoint's vocabulary has {len(vocabulary):,} tokens (digest "
        f"{vocabulary.digest[:8]}…), {folder} has {entry.tokens:,} ({entry.digest[:8]}…)"
        f"{without if trained - present else ''}; the checkpoint's is made from "
        f"{_made_from(vocabulary.sources)}, the store's from "
        f"{_made_from(entry.made_from)}; "
        "prepare the store with the checkpoint's question files, or use the store it was "
        "trained on"
    )


def _made_from(sources: Mapping[str, int] | Sequence[str]) -> str:
    if isinstance(sources, Mapping):
        sources = [f"{name} ({count:,})" for name, count in sources.items()]
    return ", ".join(sources) or "unknown files"
