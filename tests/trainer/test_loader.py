"""Batches hold what the store holds, in the order asked, and trouble reaches the caller."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import threading
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_store import make_ragged
from stores import StorePlan, make_store

from trar.errors import CheckpointError, StoreError
from trar.features.reader import FeatureStore
from trar.trainer.batch import Batch
from trar.trainer.loader import InOrder, Loader
from trar.trainer.orders import Order, OrderSettings, make_order
from trar.trainer.question_batches import Questions
from trar.trainer.question_index import QuestionIndex
from trar.trainer.sampler import rank_part

SPLITS = ("train", "val")


def questions_of(store: FeatureStore, *splits: str, max_tokens: int = 14) -> Questions:
    return Questions(store, splits or SPLITS, max_tokens=max_tokens, targets=True)


def order_of(store: FeatureStore, size: int, **settings: object) -> Order:
    index = QuestionIndex.from_store(store, SPLITS)
    return make_order(OrderSettings(**settings), seed=3, batch_size=size, questions=index)


def loader_of(store: FeatureStore, size: int, **settings: object) -> Loader:
    return Loader(questions_of(store), order_of(store, size), **settings)


def contents(batch: Batch) -> tuple[object, ...]:
    """What a batch holds, as values that can be compared and kept."""
    tensors = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return tuple(None if one is None else (one.shape, one.numpy().tobytes()) for one in tensors)


def stream_of(loader: Loader) -> list[tuple[object, ...]]:
    with loader.stream() as stream:
        return [contents(batch) for batch in stream]


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
@given(
    size=st.integers(1, 40),
    threads=st.integers(0, 3),
    prefetch=st.integers(1, 5),
    max_tokens=st.integers(1, 6),
)
def test_the_stream_gives_what_the_store_holds(
    shared_store: FeatureStore, size: int, threads: int, prefetch: int, max_tokens: int
) -> None:
    questions = questions_of(shared_store, max_tokens=max_tokens)
    order = order_of(shared_store, size)
    loader = Loader(questions, order, threads=threads, prefetch=prefetch)
    seen = 0
    with loader.stream() as stream:
        for step, batch in enumerate(stream):
            check(shared_store, order.rows(0, step), batch, max_tokens)
            seen += len(batch)
    assert seen == len(questions) == 165
    assert loader.state_dict() == {"seed": 3, "epoch": 1, "step": 0}


class CountedReads:
    """Which images a store was asked for, by split, in the order asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: list[tuple[str, int]] = []
        self.calls = 0
        original = FeatureStore.read

        def counted(store: FeatureStore, split: str, wanted: np.ndarray, out: np.ndarray) -> object:
            self.images += [(split, int(row)) for row in wanted]
            self.calls += 1
            return original(store, split, wanted, out)

        monkeypatch.setattr(FeatureStore, "read", counted)


@given(st.lists(st.integers(0, 164), min_size=1, max_size=24))
def test_an_image_is_read_once_a_batch_and_a_split_in_one_call(
    shared_store: FeatureStore, rows: list[int]
) -> None:
    questions = questions_of(shared_store)
    with pytest.MonkeyPatch.context() as patch:
        read = CountedReads(patch)
        batch = questions.batch(np.array(rows))
    assert len(set(read.images)) == len(read.images)
    assert read.calls == len({split for split, _ in read.images})
    check(shared_store, np.array(rows), batch, 14)


def test_a_split_without_answers_loads_without_targets(shared_store: FeatureStore) -> None:
    questions = Questions(shared_store, ["test"], max_tokens=14, targets=False)
    batch = questions.batch(np.arange(4))
    assert len(batch.target_row) == 0
    assert questions.scored_answers == 0
    with pytest.raises(StoreError, match="the questions of split 'test' have no answers"):
        questions_of(shared_store, "test")


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_batch_stays_as_it_is_until_the_next_is_asked_for(
    shared_store: FeatureStore, threads: int
) -> None:
    places = set()
    with loader_of(shared_store, 8, threads=threads, prefetch=2).stream() as stream:
        for batch in stream:
            before = batch.features.clone()
            places.add(batch.features.data_ptr())
            threading.Event().wait(0.002)  # the threads read on in the meantime
            assert torch.equal(batch.features, before)
    assert len(places) <= (3 if threads else 1)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    plan = StorePlan(images={"train": 40, "val": 3, "test": 1})
    folder = make_store(tmp_path_factory.mktemp("damaged") / "tiny", plan).path
    shard = next((folder / "arrays.zarr/images/train/features/c").rglob("1/0/0"))
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    return FeatureStore(folder)


@pytest.mark.parametrize("order", ["global", "block"])
@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_damaged_image_is_named_in_the_training_loop(
    damaged: FeatureStore, threads: int, order: Literal["global", "block"]
) -> None:
    batches = order_of(damaged, 8, order=order, window_bytes=20 * 256, block_images=4)
    stream = Loader(questions_of(damaged), batches, threads=threads).stream()
    with stream:
        with pytest.raises(StoreError, match=r"c/1/0/0: image 37 \(row 10 of train\)"):
            list(map(len, stream))
        with pytest.raises(StoreError, match="row 10 of train"):
            next(stream)  # not an end: whoever goes on is told again
    assert not loader_threads()


def test_an_error_of_the_caller_stops_the_threads(shared_store: FeatureStore) -> None:
    def interrupted() -> None:
        with loader_of(shared_store, 4, threads=3, prefetch=2).stream() as stream:
            next(stream)
            assert loader_threads()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not loader_threads()


def test_the_time_spent_waiting_is_measured(shared_store: FeatureStore) -> None:
    with loader_of(shared_store, 50).stream() as stream:
        list(map(len, stream))
        assert stream.waited_s > 0


def test_a_loader_goes_on_where_another_stopped(shared_store: FeatureStore) -> None:
    whole = loader_of(shared_store, 16)
    epochs = [stream_of(whole), stream_of(whole)]
    first = loader_of(shared_store, 16, threads=4)
    with first.stream() as stream:
        for _ in range(3):
            next(stream)
        state = first.state_dict()
    assert state == {"seed": 3, "epoch": 0, "step": 3}
    second = loader_of(shared_store, 16, threads=0)
    second.load_state_dict(state)
    assert stream_of(second) == epochs[0][3:]
    assert stream_of(second) == epochs[1]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"seed": 4, "epoch": 0, "step": 1}, "order of seed 4, this order has seed 3 and 11 steps"),
        ({"seed": 3, "epoch": 0, "step": 11}, "the position is step 11 in the order of seed 3"),
        ({"seed": 3, "epoch": 0}, "expected seed, epoch and step as whole numbers"),
    ],
)
def test_a_position_of_another_order_is_refused(
    shared_store: FeatureStore, state: dict[str, int], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        loader_of(shared_store, 16).load_state_dict(state)


@pytest.mark.parametrize("order", ["global", "block"])
def test_ranks_share_out_every_batch(
    shared_store: FeatureStore, order: Literal["global", "block"]
) -> None:
    questions = questions_of(shared_store)
    batches = order_of(shared_store, 4, order=order, window_bytes=8 * 256, block_images=2)
    assert batches.questions % 4 == 1  # so the last step has one question: none for two ranks
    for ranks in (2, 3):
        loaders = [Loader(questions, batches, rank=rank, ranks=ranks) for rank in range(ranks)]
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(loader.stream()) for loader in loaders]
            for step, parts in enumerate(zip(*streams, strict=True)):
                rows = batches.rows(0, step)
                ids = np.concatenate([part.question_ids for part in parts])
                np.testing.assert_array_equal(ids, questions.ids[rows])
                for rank, part in enumerate(parts):
                    check(shared_store, rank_part(rows, rank, ranks), part, 14)
            assert step == batches.steps - 1


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(2, 12),
    images=st.integers(2, 30),
    threads=st.integers(0, 4),
    begin=st.integers(0, 9),
)
def test_block_order_reads_each_image_once_and_holds_two_windows(
    shared_store: FeatureStore, size: int, images: int, threads: int, begin: int
) -> None:
    window = max(images, 2 * size) * 256
    order = order_of(shared_store, size, order="block", window_bytes=window, block_images=3)
    loader = Loader(questions_of(shared_store), order, threads=threads)
    with pytest.MonkeyPatch.context() as patch:
        read = CountedReads(patch)
        with loader.stream(1, begin) as stream:
            kept = [(batch.question_ids.clone(), contents(batch)) for batch in stream]
    assert len(set(read.images)) == len(read.images)
    assert begin or len(read.images) == 55
    for step, (ids, batch) in enumerate(kept, begin):
        rows = order.rows(1, step)
        np.testing.assert_array_equal(ids, loader.questions.ids[rows])
        assert batch == contents(loader.questions.batch(rows))
    assert step == order.steps - 1
    held = sum(len(part) for part in loader._windows._parts)
    assert held <= 2 * window
    assert loader.memory_bound().window <= 2 * window


def test_without_prefetched_steps_left_an_epoch_is_over(shared_store: FeatureStore) -> None:
    loader = Loader(questions_of(shared_store), InOrder(165, 100), threads=4, prefetch=9)
    with loader.stream() as stream:
        assert [len(batch) for batch in stream] == [100, 65]
        assert list(stream) == []
    with pytest.raises(ValueError, match="this stream is not open"):
        next(stream)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, list, list]:
    folder = tmp_path_factory.mktemp("ragged") / "tiny"
    lengths = np.random.default_rng(1).integers(1, 90, 30).tolist()
    features, boxes = make_ragged(folder, lengths, shard_images=4, asked=3)
    return FeatureStore(folder), features, boxes


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("order", ["global", "block"])
def test_ragged_images_are_padded_to_the_longest_of_their_batch(
    ragged: tuple[FeatureStore, list[np.ndarray], list[np.ndarray]],
    order: Literal["global", "block"],
    threads: int,
) -> None:
    store, features, boxes = ragged
    questions = Questions(store, ["val"], max_tokens=14, targets=False)
    batches = make_order(
        OrderSettings(order=order, window_bytes=questions.room(9), block_images=2),
        seed=0,
        batch_size=4,
        questions=QuestionIndex.from_store(store, ["val"]),
    )
    loader = Loader(questions, batches, threads=threads)
    with loader.stream() as stream:
        for step, batch in enumerate(stream):
            images = batches.rows(0, step) // 3
            lengths = [len(features[image]) for image in images]
            assert batch.features.shape[1] == batch.cells.shape[1] == max(lengths)
            assert batch.lengths.tolist() == batch.cells.sum(1).tolist() == lengths
            assert batch.boxes is not None
            assert batch.sizes is not None
            assert batch.sizes.tolist() == [[image, 7] for image in images]
            for place, (image, length) in enumerate(zip(images, lengths, strict=True)):
                got = batch.features[place].numpy()
                np.testing.assert_array_equal(got[:length], features[image])
                np.testing.assert_array_equal(batch.boxes[place, :length].numpy(), boxes[image])
                assert not got[length:].any()
                assert not batch.boxes[place, length:].any()
    assert step == batches.steps - 1


def test_parts_of_a_batch_make_up_the_whole(shared_store: FeatureStore) -> None:
    questions = questions_of(shared_store)
    rows = np.arange(9)
    whole = questions.batch(rows)
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        check_part = whole.part(start, stop)
        np.testing.assert_array_equal(check_part.question_ids, whole.question_ids[start:stop])
        alone = questions.batch(rows[start:stop])
        assert torch.equal(check_part.target_row, alone.target_row)
        assert torch.equal(check_part.target_label, alone.target_label)
        assert torch.equal(check_part.features, alone.features)
        assert torch.equal(check_part.lengths, alone.lengths)


def test_a_batch_moves_to_a_device_as_float32(shared_store: FeatureStore) -> None:
    batch = questions_of(shared_store).batch(np.arange(3)).to(torch.device("cpu"))
    assert batch.features.dtype == torch.float32
    assert batch.tokens.dtype == torch.int64


@pytest.mark.gpu
def test_a_gpu_gets_the_same_batches(shared_store: FeatureStore) -> None:
    """Copies overlap with the filling of the buffers that they are from."""
    expected = stream_of(loader_of(shared_store, 16))
    for threads in (0, 1, 4):
        with loader_of(shared_store, 16, threads=threads, device="cuda").stream() as stream:
            found = [batch.copied_to(torch.device("cpu")) for batch in stream]
        torch.cuda.synchronize()
        assert [contents(batch) for batch in found] == expected


def test_questions_are_sent_to_a_process_without_their_tables(shared_store: FeatureStore) -> None:
    questions = questions_of(shared_store)
    sent = pickle.dumps(questions)
    assert len(sent) < 20_000
    again = pickle.loads(sent)
    rows = np.arange(20, 140, 7)
    assert contents(again.batch(rows)) == contents(questions.batch(rows))


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "trar-loader"]
