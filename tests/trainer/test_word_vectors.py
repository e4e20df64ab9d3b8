"""Embeddings start from the store's vectors, or at random and the run says why."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stores import make_store
from torch import Tensor
from training import small_config

from trar.errors import ConfigError, StoreError
from trar.features.reader import FeatureStore
from trar.features.schema import write_meta
from trar.features.vectors import write_vectors
from trar.trainer.loop import train
from trar.trainer.progress import Progress
from trar.trainer.run_folder import read_log
from trar.trainer.word_vectors import choose_vectors

EMBEDDING = "model.embedding.weight"


def add_vectors(store: FeatureStore, name: str, width: int, tokens: int | None = None) -> None:
    """Put vectors into a store that there is."""
    size = tokens or len(store.vocabulary)
    table = np.random.default_rng(len(name)).normal(size=(size, width)).astype(np.float32)
    table[1] = 0
    entry = write_vectors(store.path, name, table, size - 1, f"{name}.txt")
    vectors = {**store.meta.vectors, name: entry}
    write_meta(store.path, msgspec.structs.replace(store.meta, vectors=vectors))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Its vectors are as wide as the word embeddings of the small model."""
    made = make_store(tmp_path / "features/tiny")
    add_vectors(made, "glove", 8)
    return FeatureStore(made.path)


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return {name: one for name, one in load_file(checkpoint).items() if name.startswith("model.")}


# a rate at which no weight moves: what is saved after the epoch is what training began with
STILL = ("schedule.epochs=1", "optim.lr=1e-30")


def test_embeddings_start_from_the_vectors_and_nothing_else_changes(
    store: FeatureStore, tmp_path: Path
) -> None:
    given = weights(train(small_config(store.path, tmp_path / "a", *STILL)).checkpoint)
    random = weights(
        train(small_config(store.path, tmp_path / "b", *STILL, "data.vectors=none")).checkpoint
    )
    table = store.vectors("glove")
    assert table is not None
    np.testing.assert_allclose(given.pop(EMBEDDING).numpy(), table, rtol=0, atol=1e-20)
    assert not np.allclose(random.pop(EMBEDDING).numpy(), table)
    assert given.keys() == random.keys()
    for name in given:
        torch.testing.assert_close(given[name], random[name], rtol=0, atol=1e-20)


def test_embeddings_are_trained_further(store: FeatureStore, tmp_path: Path) -> None:
    result = train(small_config(store.path, tmp_path, "schedule.epochs=1"))
    table = store.vectors("glove")
    assert table is not None
    assert not np.array_equal(weights(result.checkpoint)[EMBEDDING].numpy(), table)


def test_a_resumed_run_goes_on_with_the_checkpoints_embeddings(
    store: FeatureStore, tmp_path: Path
) -> None:
    whole = train(small_config(store.path, tmp_path / "a"))
    config = small_config(store.path, tmp_path / "b")

    def stop(told: Progress) -> None:
        if told.stage == "train" and told.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, stop)
    told: list[Progress] = []
    resumed = train(config, told.append, resume="auto")
    one, other = load_file(whole.checkpoint), load_file(resumed.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not [note for note in told if note.note and "embeddings" in note.note]
    starts = [line for line in read_log(resumed.run) if line["event"] == "start"]
    assert len(starts) == 1


def test_a_run_that_begins_again_in_its_folder_says_so_once(
    store: FeatureStore, tmp_path: Path
) -> None:
    config = small_config(store.path, tmp_path, "schedule.epochs=1")

    def stop(told: Progress) -> None:
        if told.stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, stop)
    result = train(config, resume="auto")
    assert [line["event"] for line in read_log(result.run)].count("start") == 1


def test_what_embeddings_start_from_is_told_and_logged(store: FeatureStore, tmp_path: Path) -> None:
    told: list[Progress] = []
    result = train(small_config(store.path, tmp_path, "schedule.epochs=1"), told.append)
    size = len(store.vocabulary)
    note = (
        f"word embeddings start from glove.txt ({size - 1} of {size} tokens, "
        f"{100 * (size - 1) / size:.1f} %)"
    )
    assert note in [one.note for one in told if one.stage == "note"]
    assert read_log(result.run)[0] == {
        "event": "start",
        "epoch": 0,
        "vectors": "glove",
        "note": note,
    }


def choose(store: FeatureStore, *sets: str) -> tuple[str | None, str]:
    start = choose_vectors(small_config(store.path, store.path / "runs", *sets), store)
    assert (start.table is None) == (start.name is None)
    return start.name, start.note


def test_a_store_without_vectors_starts_at_random(shared_store: FeatureStore) -> None:
    name, note = choose(shared_store)
    assert name is None
    assert note == (
        f"word embeddings start at random: {shared_store.path} has no word vectors "
        "(`trar-data prepare --vectors SOURCE` adds them)"
    )
    assert choose(shared_store, "data.vectors=none") == (
        None,
        "word embeddings start at random (data.vectors=none)",
    )


def test_vectors_of_another_width_are_left_alone_unless_named(store: FeatureStore) -> None:
    name, note = choose(store, "model.word_width=10")
    assert name is None
    assert note.endswith("has vectors of 8 numbers a word, model.word_width is 10")
    message = (
        "data.vectors=glove has 8 numbers a word, model.word_width is 10; set model.word_width=8, "
        "or choose other vectors"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        choose(store, "model.word_width=10", "data.vectors=glove")


def test_of_several_one_is_named(store: FeatureStore) -> None:
    add_vectors(store, "w2v", 8)
    both = FeatureStore(store.path)
    name, note = choose(both)
    assert name is None
    assert note.endswith("has several vectors (glove, w2v); choose with --set data.vectors=NAME")
    assert choose(both, "data.vectors=w2v")[0] == "w2v"


def test_a_name_that_is_not_there(store: FeatureStore, shared_store: FeatureStore) -> None:
    message = r"data\.vectors is 'golve' \(did you mean glove\?\); .*tiny has glove\. Choose one"
    with pytest.raises(ConfigError, match=message):
        choose(store, "data.vectors=golve")
    with pytest.raises(ConfigError, match=r"has no word vectors\. Choose one of those, auto"):
        choose(shared_store, "data.vectors=glove")


def test_vectors_that_cannot_be_used_leave_no_folder(store: FeatureStore, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(ConfigError, match=r"data\.vectors is 'other'"):
        train(small_config(store.path, runs, "data.vectors=other"))
    path = store.path / store.meta.vectors["glove"].file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="the word vectors cannot be read"):
        train(small_config(store.path, runs))
    assert not runs.exists()


def test_vectors_of_another_vocabulary_are_refused(store: FeatureStore) -> None:
    add_vectors(store, "glove", 8, tokens=5)
    with pytest.raises(StoreError, match=r"vectors glove are of 5 tokens, the vocabulary has \d+"):
        choose(FeatureStore(store.path))


def test_training_does_not_import_spacy() -> None:
    program = "import sys, trar.trainer, trar.trainer.loop; sys.exit('spacy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
