"""Batches hold what the store holds, in the order asked, and trouble reaches the caller."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import StorePlan, make_store

from trar.errors import StoreError
from trar.features.reader import FeatureStore
from trar.trainer.batch import Batch
from trar.trainer.loader import BatchStream, Questions

SPLITS = ("train", "val")


def questions_of(store: FeatureStore, *splits: str, max_tokens: int = 14) -> Questions:
    return Questions(store, splits or SPLITS, max_tokens=max_tokens, targets=True)


def parts(count: int, size: int) -> list[np.ndarray]:
    order = np.random.default_rng(0).permutation(count)
    return [order[at : at + size] for at in range(0, count, size)]


def expected_row(store: FeatureStore, row: int) -> dict[str, object]:
    """One question of train + val, read without any of the loader's code."""
    split = "train"
    if row >= len(store.questions("train")):
        split, row = "val", row - len(store.questions("train"))
    table, tokens, targets = store.questions(split), store.tokens(split), store.targets(split)
    image = int(table.image_row[row])
    own = slice(targets.offsets[row], targets.offsets[row + 1])
    return {
        "id": int(table.ids[row]),
        "features": store.read(split, [image]).features[0],
        "cells": store.cells(split)[image],
        "tokens": tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]],
        "label": targets.label[own],
        "score": targets.score[own],
    }


def check(store: FeatureStore, rows: np.ndarray, batch: Batch, max_tokens: int) -> None:
    assert len(batch) == len(rows)
    longest = 1
    for place, row in enumerate(rows.tolist()):
        one = expected_row(store, row)
        assert batch.question_ids[place].item() == one["id"]
        np.testing.assert_array_equal(batch.features[place].numpy(), one["features"])
        np.testing.assert_array_equal(batch.cells[place].numpy(), one["cells"])
        tokens = one["tokens"][:max_tokens]
        longest = max(longest, len(tokens))
        padded = [*tokens, *[0] * (batch.tokens.shape[1] - len(tokens))]
        assert batch.tokens[place].tolist() == padded
        here = batch.target_row == place
        np.testing.assert_array_equal(batch.target_label[here].numpy(), one["label"])
        np.testing.assert_array_equal(batch.target_score[here].numpy(), one["score"])
    assert batch.tokens.shape[1] == longest


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 40), prefetch=st.integers(1, 5), max_tokens=st.integers(1, 6))
def test_the_stream_gives_what_the_store_holds(
    shared_store: FeatureStore, size: int, prefetch: int, max_tokens: int
) -> None:
    questions = questions_of(shared_store, max_tokens=max_tokens)
    order = parts(len(questions), size)
    seen = 0
    with BatchStream(questions, order, prefetch=prefetch) as stream:
        for rows, batch in zip(order, stream, strict=True):
            check(shared_store, rows, batch, max_tokens)
            seen += len(batch)
    assert seen == len(questions) == 165


def test_an_image_asked_about_many_times_is_read_once(
    shared_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = questions_of(shared_store)
    rows = np.array([0, 1, 2, 150, 0])  # an image of train with three questions, one of val
    read: list[int] = []
    original = FeatureStore.read

    def counted(self: FeatureStore, split: str, wanted: np.ndarray, out: np.ndarray) -> object:
        read.extend(wanted)
        return original(self, split, wanted, out)

    monkeypatch.setattr(FeatureStore, "read", counted)
    batch = questions.batch(rows, questions.buffer(len(rows)))
    assert len(read) == 2
    monkeypatch.undo()
    check(shared_store, rows, batch, 14)


def test_a_split_without_answers_loads_without_targets(shared_store: FeatureStore) -> None:
    questions = Questions(shared_store, ["test"], max_tokens=14, targets=False)
    batch = questions.batch(np.arange(4), questions.buffer(4))
    assert len(batch.target_row) == 0
    assert questions.scored_answers == 0
    with pytest.raises(StoreError, match="the questions of split 'test' have no answers"):
        questions_of(shared_store, "test")


def test_a_batch_gives_its_buffer_back_only_for_the_one_after_the_next(
    shared_store: FeatureStore,
) -> None:
    questions = questions_of(shared_store)
    order = parts(len(questions), 8)
    places = set()
    with BatchStream(questions, order, prefetch=2) as stream:
        for batch in stream:
            before = batch.features.clone()
            places.add(batch.features.data_ptr())
            threading.Event().wait(0.002)  # the thread reads on in the meantime
            assert torch.equal(batch.features, before)
    assert len(places) <= 3


def test_a_damaged_image_is_named_in_the_training_loop(tmp_path: Path) -> None:
    store = make_store(tmp_path / "tiny", StorePlan(images={"train": 12, "val": 3, "test": 1}))
    shard = next((store.path / "arrays.zarr/images/train/features/c").rglob("1/0/0"))
    damaged = bytearray(shard.read_bytes())
    damaged[0] ^= 1
    shard.write_bytes(damaged)
    questions = questions_of(FeatureStore(store.path))
    stream = BatchStream(questions, parts(len(questions), 8), prefetch=3)
    with stream, pytest.raises(StoreError, match=r"c/1/0/0: image 37 \(row 10 of train\)"):
        list(map(len, stream))
    assert not loader_threads()


def test_leaving_early_stops_the_thread(shared_store: FeatureStore) -> None:
    questions = questions_of(shared_store)
    with BatchStream(questions, parts(len(questions), 4), prefetch=2) as stream:
        next(stream)
        assert loader_threads()
    assert not loader_threads()
    with pytest.raises(StopIteration):
        next(stream)


def test_an_error_of_the_caller_stops_the_thread(shared_store: FeatureStore) -> None:
    questions = questions_of(shared_store)

    def endless() -> Iterator[np.ndarray]:
        while True:
            yield np.arange(4)

    def interrupted() -> None:
        with BatchStream(questions, endless(), prefetch=2) as stream:
            next(stream)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not loader_threads()


def test_the_time_spent_waiting_is_measured(shared_store: FeatureStore) -> None:
    questions = questions_of(shared_store)
    with BatchStream(questions, parts(len(questions), 50), prefetch=1) as stream:
        list(map(len, stream))
        assert stream.waited_s > 0


def test_parts_of_a_batch_make_up_the_whole(shared_store: FeatureStore) -> None:
    questions = questions_of(shared_store)
    rows = np.arange(9)
    whole = questions.batch(rows, questions.buffer(9))
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        check_part = whole.part(start, stop)
        np.testing.assert_array_equal(check_part.question_ids, whole.question_ids[start:stop])
        alone = questions.batch(rows[start:stop], questions.buffer(stop - start))
        assert torch.equal(check_part.target_row, alone.target_row)
        assert torch.equal(check_part.target_label, alone.target_label)
        assert torch.equal(check_part.features, alone.features)


def test_a_batch_moves_to_a_device_as_float32(shared_store: FeatureStore) -> None:
    questions = questions_of(shared_store)
    batch = questions.batch(np.arange(3), questions.buffer(3)).to(torch.device("cpu"))
    assert batch.features.dtype == torch.float32
    assert batch.tokens.dtype == torch.int64


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "trar-loader"]
