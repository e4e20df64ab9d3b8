"""Orders use every question once an epoch, from few images at a time, whatever was asked before."""

from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from question_indexes import IMAGE_BYTES, indexes, make_index

from trar.errors import CheckpointError, ConfigError
from trar.trainer.orders import Order, OrderSettings, Position, make_order
from trar.trainer.question_index import QuestionIndex
from trar.trainer.sampler import rank_part
from trar.trainer.shuffle_quality import shuffle_quality
from trar.trainer.subsets import Selection

BATCH = 4
orders = st.builds(
    OrderSettings,
    order=st.sampled_from(["global", "block"]),
    window_bytes=st.integers(2 * BATCH * IMAGE_BYTES, 60 * IMAGE_BYTES),
    block_images=st.integers(1, 12),
    length_pool=st.sampled_from([0, 1, 3, 100]),
)
seeds = st.integers(0, 2**40)
epochs = st.integers(0, 3)


def order_of(index: QuestionIndex, how: OrderSettings, seed: int = 0, batch: int = BATCH) -> Order:
    return make_order(how, seed=seed, batch_size=batch, questions=index)


def all_rows(order: Order, epoch: int = 0) -> list[np.ndarray]:
    return [order.rows(epoch, step) for step in range(order.steps)]


@given(indexes, orders, seeds, epochs, st.integers(1, BATCH))
def test_every_question_comes_once_an_epoch_in_full_batches(
    index: QuestionIndex, how: OrderSettings, seed: int, epoch: int, batch: int
) -> None:
    order = order_of(index, how, seed, batch)
    batches = all_rows(order, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(index)))
    assert all(len(rows) == batch for rows in batches[:-1])
    assert order.questions == len(index)
    assert batches[0].dtype == np.int64


@given(indexes, orders, seeds, st.data())
def test_a_batch_depends_on_seed_epoch_and_step_alone(
    index: QuestionIndex, how: OrderSettings, seed: int, data: st.DataObject
) -> None:
    order = order_of(index, how, seed)
    places = st.tuples(epochs, st.integers(0, order.steps - 1))
    for epoch, step in data.draw(st.lists(places, max_size=8)):
        fresh = order_of(index, how, seed).rows(epoch, step)
        np.testing.assert_array_equal(order.rows(epoch, step), fresh)
        moved = pickle.loads(pickle.dumps(order))
        np.testing.assert_array_equal(moved.rows(epoch, step), fresh)


@given(indexes, orders, seeds, st.integers(1, 8))
def test_the_parts_of_all_ranks_make_the_global_batch(
    index: QuestionIndex, how: OrderSettings, seed: int, ranks: int
) -> None:
    order = order_of(index, how, seed)
    for rows in all_rows(order):
        parts = [rank_part(rows, rank, ranks) for rank in range(ranks)]
        np.testing.assert_array_equal(np.concatenate(parts), rows)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)


def test_the_global_order_is_the_same_in_every_version() -> None:
    """A checkpoint of an older version goes on in the order that it began with."""
    order = order_of(make_index([8]), OrderSettings(), seed=20211010)
    assert np.concatenate(all_rows(order)).tolist() == [2, 4, 1, 6, 3, 0, 5, 7]
    index = make_index([300])
    for epoch in range(3):
        expected = np.random.default_rng(np.random.SeedSequence((5, epoch))).permutation(300)
        got = np.concatenate(all_rows(order_of(index, OrderSettings(), seed=5), epoch))
        np.testing.assert_array_equal(got, expected)


def test_block_and_bucket_orders_are_the_same_in_every_version() -> None:
    index = make_index([12], [6])
    block = OrderSettings("block", window_bytes=4 * IMAGE_BYTES, block_images=2)
    buckets = OrderSettings(length_pool=3)
    got = [np.concatenate(all_rows(order_of(index, how, 1, 2))) for how in (block, buckets)]
    assert got[0].tolist() == [7, 0, 1, 9, 6, 3, 8, 11, 4, 5, 2, 10]
    assert got[1].tolist() == [4, 7, 0, 5, 11, 8, 1, 10, 3, 2, 6, 9]


@given(indexes, orders, seeds, epochs)
def test_a_window_holds_the_images_of_its_questions_within_its_bytes(
    index: QuestionIndex, how: OrderSettings, seed: int, epoch: int
) -> None:
    how = replace(how, order="block")
    order = order_of(index, how, seed)
    rows = np.concatenate(all_rows(order, epoch))
    end, read = 0, []
    for window in order.windows(epoch):
        assert window.start == end
        end = window.stop
        assert len(window.images) * IMAGE_BYTES <= how.window_bytes
        keys = index.image_key(rows[window.start : window.stop])
        assert set(keys.tolist()) == set(window.images.tolist())
        assert (np.diff(window.images) > 0).all()
        read += window.images.tolist()
    assert end == len(index)
    # each image once an epoch
    pairs = zip(index.image_split.tolist(), index.image_row.tolist(), strict=True)
    assert sorted(read) == sorted({split << 32 | row for split, row in pairs})


@given(indexes, orders, seeds, epochs, st.integers(1, BATCH))
def test_a_batch_touches_two_windows_at_most(
    index: QuestionIndex, how: OrderSettings, seed: int, epoch: int, batch: int
) -> None:
    how = replace(how, order="block")
    order = order_of(index, how, seed, batch)
    windows = order.windows(epoch)
    served = [window.steps(batch) for window in windows]
    for step, rows in enumerate(all_rows(order, epoch)):
        touched = [number for number, steps in enumerate(served) if step in steps]
        assert 1 <= len(touched) <= 2
        assert touched == list(range(touched[0], touched[-1] + 1))
        held = np.concatenate([windows[number].images for number in touched])
        assert np.isin(index.image_key(rows), held).all()


def test_blocks_are_runs_of_neighbours() -> None:
    index = make_index([1000], [1000])
    how = OrderSettings("block", window_bytes=100 * IMAGE_BYTES, block_images=25)
    windows = order_of(index, how).windows(0)
    assert len(windows) == 10
    for window in windows:
        assert np.count_nonzero(np.diff(window.images) != 1) <= 3
    starts = [window.images[0] for window in windows]
    assert starts != sorted(starts)


def test_only_images_that_are_asked_about_are_read() -> None:
    index = make_index([100], [50])
    chosen = Selection.parse(where="answer_type=number")
    how = OrderSettings("block", 10 * IMAGE_BYTES, 5, selection=chosen)
    order = order_of(index, how)
    keys = index.image_key(np.concatenate(all_rows(order)))
    read = np.concatenate([window.images for window in order.windows(0)])
    assert sorted(read.tolist()) == np.unique(keys).tolist()
    assert len(read) < 50


def test_the_global_order_has_no_windows() -> None:
    assert order_of(make_index([9]), OrderSettings()).windows(0) == ()


def test_a_window_too_small_for_two_batches_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        order_of(make_index([500], [500]), OrderSettings("block", 100 * IMAGE_BYTES), batch=64)
    assert str(error.value) == (
        "data.window: a window of 0.1 MiB holds 100 images of 1.0 KiB, expected at least two "
        "batches of 64; give 0.1 MiB or more, or use data.order=global"
    )


@pytest.mark.parametrize("how", [OrderSettings(), OrderSettings("block", 4 * IMAGE_BYTES, 2)])
def test_every_question_is_equally_likely_at_every_position(how: OrderSettings) -> None:
    """Chi-square over 4,000 epochs: 16 questions x 16 positions, 15 * 15 degrees of freedom."""
    index = make_index([16], [8])
    order = order_of(index, how, seed=3, batch=2)
    seen = np.zeros((16, 16))
    for epoch in range(4000):
        seen[np.concatenate(all_rows(order, epoch)), np.arange(16)] += 1
    chi_square = ((seen - 250) ** 2 / 250).sum()
    assert 165 < chi_square < 300  # all but 0.1 % of uniform orders, on either side


def test_questions_of_a_window_are_mixed_uniformly() -> None:
    """Pairs: any two questions of a window are neighbours equally often, of one image or not."""
    index = make_index([12], [4])  # 3 questions an image, all in one window
    order = order_of(index, OrderSettings("block", 4 * IMAGE_BYTES, 2), seed=9, batch=2)
    same = 0
    for epoch in range(3000):
        image = index.image_row[np.concatenate(all_rows(order, epoch))]
        same += np.count_nonzero(image[1:] == image[:-1])
    assert same / (3000 * 11) == pytest.approx(2 / 11, abs=0.01)


def padded_words(index: QuestionIndex, order: Order) -> int:
    return sum(int(index.token_length[rows].max()) * len(rows) for rows in all_rows(order))


@given(indexes, orders, seeds)
def test_length_bucketss_never_pad_more(
    index: QuestionIndex, how: OrderSettings, seed: int
) -> None:
    plain = padded_words(index, order_of(index, replace(how, length_pool=0), seed))
    assert padded_words(index, order_of(index, how, seed)) <= plain


def test_length_bucketss_pad_little_and_mix_their_batches() -> None:
    index = make_index([4000], [500])
    plain = order_of(index, OrderSettings(), batch=20)
    order = order_of(index, OrderSettings(length_pool=100), batch=20)
    needed = int(index.token_length.sum())
    assert padded_words(index, order) < 1.05 * needed < 1.7 * needed < padded_words(index, plain)
    longest = [int(index.token_length[rows].max()) for rows in all_rows(order)]
    assert abs(np.corrcoef(longest[:100], np.arange(100))[0, 1]) < 0.3


@pytest.mark.parametrize("order", ["global", "block"])
def test_an_order_holds_four_bytes_a_question_and_one_epoch(order: str) -> None:
    index = make_index([200_000], [4_000])
    made = order_of(index, OrderSettings(order, 1000 * IMAGE_BYTES, length_pool=10), batch=64)
    made.rows(0, 0)
    tracemalloc.start()
    try:
        for epoch in range(1, 4):
            made.rows(epoch, 0)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * 200_000 + 8 * 4_000 + 30_000
    assert peak < 30 * 200_000


def test_shuffle_quality_is_that_of_chance_for_uniform_orders_and_poor_for_none() -> None:
    index = make_index([6000], [1200])
    place = (index.image_row // 60).astype(np.int64)  # 20 parts of the store
    chance = np.random.default_rng(0).multinomial(32, [1 / 20] * 20, size=2000) / 32
    expected = np.abs(chance - 1 / 20).sum(axis=1).mean() / 2
    mixed = shuffle_quality(order_of(index, OrderSettings(), batch=32), index, place)
    assert mixed.distance == pytest.approx(expected, rel=0.03)
    assert mixed.images == pytest.approx(32, abs=1)
    small, large = (
        shuffle_quality(order_of(index, how, batch=32), index, place)
        for how in (
            OrderSettings("block", 64 * IMAGE_BYTES, 64),
            OrderSettings("block", 600 * IMAGE_BYTES, 8),
        )
    )
    assert mixed.distance < large.distance < 1.3 * mixed.distance < 0.8 < small.distance


@given(seeds, epochs, st.integers(0, 9))
def test_a_position_is_three_integers(seed: int, epoch: int, step: int) -> None:
    position = Position(seed, epoch, step)
    state = position.state_dict()
    assert state == {"seed": seed, "epoch": epoch, "step": step}
    assert Position.from_state(state) == position


@pytest.mark.parametrize(
    "state", [{}, {"seed": 1, "epoch": 2}, {"seed": 1, "epoch": -1, "step": 0}, {"seed": "1"}]
)
def test_a_position_that_is_none_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"expected seed, epoch and step as whole numbers"):
        Position.from_state(state)
