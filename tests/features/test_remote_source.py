"""Rows of a store in a bucket: the same as from a disk, in few requests, from any process."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ragged_store import make_ragged
from s3_objects import change, key, upload

from trar.errors import DiskError, StoreError
from trar.features import FeatureStore
from trar.features.place import open_place
from trar.features.remote_source import GAP_BYTES, REQUEST_BYTES, requests
from trar.features.s3_client import Client, client

TRAIN = np.arange(40)


@pytest.fixture(scope="module")
def remote(shared_store: FeatureStore, bucket: str) -> FeatureStore:
    """The shared store in a bucket; not to be changed."""
    upload(shared_store.path, f"{bucket}/tiny")
    return FeatureStore(f"{bucket}/tiny")


@contextmanager
def counted() -> Iterator[list[str]]:
    """The requests that are made meanwhile."""
    seen: list[str] = []
    original = Client._call_s3

    async def count(self: Client, method: str, *args: object, **kwargs: object) -> object:
        seen.append(method)
        return await original(self, method, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_call_s3", count)
        yield seen


def test_rows_are_those_of_the_disk(shared_store: FeatureStore, remote: FeatureStore) -> None:
    rng = np.random.default_rng(0)
    for split, images in (("train", 40), ("val", 15), ("test", 6)):
        rows = rng.integers(images, size=33)  # some twice
        here, there = shared_store.read(split, rows), remote.read(split, rows)
        np.testing.assert_array_equal(here.features, there.features)
        np.testing.assert_array_equal(here.lengths, there.lengths)
        np.testing.assert_array_equal(shared_store.image_ids(split), remote.image_ids(split))
        np.testing.assert_array_equal(shared_store.cells(split), remote.cells(split))
    assert list(remote.questions("train").texts) == list(shared_store.questions("train").texts)
    assert remote.vocabulary.digest == shared_store.vocabulary.digest


def test_ragged_rows_and_boxes_are_what_was_written(bucket: str) -> None:
    """Written straight into the bucket, images across the borders of chunks and shards."""
    lengths = [70, 3, 130, 1, 64, 65, 20, 90]
    features, boxes = make_ragged(open_place(f"{bucket}/ragged"), lengths, 2)
    store = FeatureStore(f"{bucket}/ragged")
    rows = [4, 2, 7, 0, 2]
    batch, found = store.read("val", rows), store.boxes("val", rows)
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(batch.features[number, : lengths[row]], features[row])
        np.testing.assert_array_equal(found[number, : lengths[row]], boxes[row])
        assert not batch.features[number, lengths[row] :].any()


def test_neighbours_come_in_one_request(remote: FeatureStore) -> None:
    """40 images in four shards of ten."""
    remote.read("train", [0])
    with counted() as seen:
        remote.read("train", TRAIN[::-1])
    assert seen == ["get_object"] * 4


def test_threads_share_a_store(shared_store: FeatureStore, remote: FeatureStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        for batch in pool.map(lambda _: remote.read("train", TRAIN), range(8)):
            expected = shared_store.read("train", TRAIN).features
            np.testing.assert_array_equal(batch.features, expected)


def _sum(store: FeatureStore, answer: multiprocessing.SimpleQueue[float]) -> None:
    answer.put(float(store.read("train", TRAIN).features.astype(np.float64).sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_after_this_one_has(method: str, remote: FeatureStore) -> None:
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    expected = float(remote.read("train", TRAIN).features.astype(np.float64).sum())
    process = context.Process(target=_sum, args=(remote, queue))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert queue.get() == expected
    remote.read("train", TRAIN)  # and this one still does
    queue.close()


def test_pickled_store_opens_its_own_connection(remote: FeatureStore) -> None:
    again = pickle.loads(pickle.dumps(remote))
    expected = remote.read("val", [3]).features
    np.testing.assert_array_equal(again.read("val", [3]).features, expected)


def test_shards_that_go_wrong_later_are_named(
    shared_store: FeatureStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(shared_store.path, f"{bucket}/later")
    store = FeatureStore(f"{bucket}/later")
    store.read("train", [0])
    place = f"{bucket}/later/arrays.zarr/images/train/features/c/2/0/0"
    shard = client().cat_file(key(place))
    change(place, shard[:400])
    with pytest.raises(StoreError, match=r"c/2/0/0: image 70 .*is cut short: 80 of 260 bytes"):
        store.read("train", [21])
    with pytest.raises(StoreError, match=r"c/2/0/0: image 76 .*cannot be read: "):
        store.read("train", [0, 23])
    client().rm_file(key(place))
    with pytest.raises(StoreError, match=r"c/2/0/0: image 70 .*is missing: its shard is not there"):
        store.read("train", [21])
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(DiskError, match="no AWS credentials"):
        store.read("train", [0])


@given(
    places=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400)), min_size=1, max_size=60),
    size=st.sampled_from([100, 70_000, 300_000]),
)
def test_requests_cover_every_chunk_and_join_neighbours(
    places: list[tuple[int, int]], size: int
) -> None:
    shard = np.array([one for one, _ in places], np.int32)
    offset = np.array([number * size for _, number in places], np.int64)
    numbers = np.arange(len(places)) + 5
    found = list(requests(shard, offset, numbers, size))
    seen = [int(member) for one in found for member in one.members]
    assert sorted(seen) == numbers.tolist()
    for one in found:
        for member, inside in zip(one.members.tolist(), one.offsets.tolist(), strict=True):
            assert (one.shard, one.start + inside) == (shard[member - 5], offset[member - 5])
            assert one.start + inside + size <= one.stop
        assert one.stop - one.start <= max(size, REQUEST_BYTES)
    for one, other in pairwise(found):
        apart = one.shard != other.shard or other.start - one.stop > GAP_BYTES
        assert apart or other.start + size - one.start > REQUEST_BYTES
