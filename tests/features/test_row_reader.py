"""Every way to read images gives what the container's own library gives, or an error by name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_store import WIDTH, make_ragged
from stores import CONTAINERS, shard_file

from trar.errors import StoreError
from trar.features import FeatureStore
from trar.features.buffers import aligned_empty
from trar.features.containers import open_backend
from trar.features.ragged_parts import cut
from trar.features.schema import Container, read_meta

ACCESSES = ("preadv", "mmap", "library")
VERIFIED = ("all", "sample", "none")
LENGTHS = [10, 100, 36, 0, 64, 64, 1, 77, 63, 65, 90, 12]


def values_of(store: Path, split: str) -> np.ndarray:
    """All features of a split, by the library alone."""
    meta = read_meta(store)
    if meta.container == "zarr":
        return zarr.open_group(store / "arrays.zarr", mode="r")[f"images/{split}/features"][:]
    shards = range(meta.image_splits[split].shards(meta.feature))
    parts = []
    for shard in shards:
        with h5py.File(shard_file(store, split, shard), "r") as file:
            parts.append(file["features"][:])
    return np.concatenate(parts)


class TestEqualsTheLibrary:
    @pytest.mark.parametrize("access", ACCESSES)
    def test_any_rows_in_any_order(self, made: Path, access: str) -> None:
        expected = values_of(made, "train")
        stores = [FeatureStore(made, access=access, verify_reads=one) for one in VERIFIED]

        @settings(max_examples=20, deadline=None)
        @given(rows=st.lists(st.integers(0, len(expected) - 1), max_size=12))
        def check(rows: list[int]) -> None:
            for store in stores:
                batch = store.read("train", rows)
                np.testing.assert_array_equal(batch.features, expected[rows])
                assert batch.features.dtype == expected.dtype

        check()

    @pytest.mark.parametrize("container", CONTAINERS)
    @pytest.mark.parametrize("access", ACCESSES)
    def test_any_ragged_rows_in_any_order(
        self, container: Container, access: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("ragged") / "vqa"
        features, _ = make_ragged(folder, LENGTHS, 2, container=container)
        flat = values_of(folder, "val")
        np.testing.assert_array_equal(flat[: sum(LENGTHS)], np.concatenate(features))
        stores = [FeatureStore(folder, access=access, verify_reads=one) for one in VERIFIED]

        @settings(max_examples=20, deadline=None)
        @given(rows=st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=12))
        def check(rows: list[int]) -> None:
            for store in stores:
                batch = store.read("val", rows, np.full((12, 100, WIDTH), 9, np.float16))
                for number, row in enumerate(rows):
                    length = LENGTHS[row]
                    np.testing.assert_array_equal(batch.features[number, :length], features[row])
                    assert not batch.features[number, length:].any()

        check()

    def test_more_ragged_chunks_than_are_read_in_one_call(self, tmp_path: Path) -> None:
        lengths = [100] * 60  # 94 chunks of 64 rows
        features, _ = make_ragged(tmp_path / "vqa", lengths, 40)
        rows = np.random.default_rng(0).permutation(60)
        batch = FeatureStore(tmp_path / "vqa").read("val", rows)
        np.testing.assert_array_equal(batch.features, np.stack(features)[rows])


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=10),
    rows=st.lists(st.integers(0, 9), max_size=8),
    chunk_rows=st.integers(1, 20),
)
def test_parts_of_chunks_cover_each_row_once(
    lengths: list[int], rows: list[int], chunk_rows: int
) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    wanted = np.array([row % len(lengths) for row in rows], np.int64)
    plan = cut(offsets[wanted], np.array(lengths, np.int32)[wanted], chunk_rows)
    found = []
    for number, chunk in enumerate(plan.chunks.tolist()):
        assert plan.of_chunk(number)
        for image, row, begin, count in plan.of_chunk(number):
            assert 0 <= begin < begin + count <= chunk_rows
            found += [(image, row + i, chunk * chunk_rows + begin + i) for i in range(count)]
    expected = [
        (image, i, offsets[row] + i)
        for image, row in enumerate(wanted)
        for i in range(lengths[row])
    ]
    assert sorted(found) == expected
    assert len(set(plan.chunks.tolist())) == len(plan.chunks)


def flip(path: Path, store: Path, row: int) -> None:
    """One bit in the values of image ``row`` of split train."""
    meta = read_meta(store)
    table = open_backend(store, meta.container).resolve_chunks("train")
    with path.open("r+b") as file:
        file.seek(int(table.offset[row]) + 5)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 16]))


class TestDamage:
    """Image row 13 of train lies in its second shard; its id is 46."""

    @pytest.mark.parametrize("verify", ["all", "sample"])
    @pytest.mark.parametrize("access", ACCESSES)
    def test_flipped_bit(self, store: Path, access: str, verify: str) -> None:
        opened = FeatureStore(store, access=access, verify_reads=verify)
        flip(shard_file(store, "train", 1), store, 13)
        for _ in range(2):  # what was found once is found again
            with pytest.raises(StoreError) as error:
                opened.read("train", [0, 13, 2])
            self.names_the_place(error.value, store)
        opened.read("train", [12, 14])

    @pytest.mark.parametrize("access", ACCESSES)
    def test_shard_cut_while_it_is_open(self, store: Path, access: str) -> None:
        opened = FeatureStore(store, access=access)
        opened.read("train", [10])
        with shard_file(store, "train", 1).open("r+b") as file:
            file.truncate(300)
        with pytest.raises(StoreError) as error:
            opened.read("train", [0, 13])
        self.names_the_place(error.value, store)

    @pytest.mark.parametrize("access", ACCESSES)
    @pytest.mark.parametrize("to", ["nothing", "folder", "empty"])
    def test_shard_that_is_gone_or_no_file_when_it_is_first_read(
        self, store: Path, access: str, to: str
    ) -> None:
        opened = FeatureStore(store, access=access)
        shard_file(store, "train", 1).unlink()
        if to == "folder":
            shard_file(store, "train", 1).mkdir()
        if to == "empty":
            shard_file(store, "train", 1).touch()
        with pytest.raises(StoreError) as error:
            opened.read("train", [0, 13])
        self.names_the_place(error.value, store)

    def test_ragged_damage_in_each_access(self, tmp_path: Path) -> None:
        make_ragged(tmp_path / "vqa", [40] * 8, 8)
        path = tmp_path / "vqa/arrays.zarr/images/val/features/c/0/0"
        data = bytearray(path.read_bytes())
        data[448 + 10] ^= 1  # the second chunk begins at 388 (64 x 3 x 2 + 4), rounded up
        path.write_bytes(data)
        for access in ACCESSES:
            store = FeatureStore(tmp_path / "vqa", access=access)
            store.read("val", [0, 4])
            with pytest.raises(StoreError, match=r"c/0/0: a chunk of images 5 to 15 of val .*rep"):
                store.read("val", [0, 2])

    def test_none_returns_the_flipped_byte(self, store: Path) -> None:
        sound = FeatureStore(store).read("train", [13]).features
        flip(shard_file(store, "train", 1), store, 13)
        for access in ("preadv", "mmap"):
            opened = FeatureStore(store, access=access, verify_reads="none")
            found = opened.read("train", [13]).features
            assert (found.view(np.uint8) != sound.view(np.uint8)).sum() == 1

    def test_sample_checks_the_first_and_every_64th_read(self, store: Path) -> None:
        opened = FeatureStore(store, verify_reads="sample")
        opened.read("train", [13])
        flip(shard_file(store, "train", 1), store, 13)
        for _ in range(63):
            opened.read("train", [13])
        with pytest.raises(StoreError, match=r"image 46 \(row 13 of train\) does not match"):
            opened.read("train", [13])

    def names_the_place(self, error: StoreError, store: Path) -> None:
        message = str(error)
        assert message.startswith(
            f"{shard_file(store, 'train', 1)}: image 46 (row 13 of train) "
        ), message
        assert f"`trar-data repair --store {store}` makes it anew" in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"verify_reads": "some"}, "verify_reads is 'some', expected one of all, sample, none"),
        ({"access": "read"}, "access is 'read', expected one of auto, preadv, mmap, library"),
    ],
)
def test_unknown_settings(made: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureStore(made, **settings)


@pytest.mark.parametrize(
    ("verify", "memory", "kind"),
    [
        ("all", "1000 kB", "PreadSource"),
        ("none", "1000 kB", "MmapSource"),
        ("none", "1 kB", "PreadSource"),
    ],
)
def test_auto_maps_what_is_not_verified_and_fits(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: str, memory: str, kind: str
) -> None:
    from trar.features import local_sources

    (tmp_path / "meminfo").write_text(f"MemTotal: 2000 kB\nMemAvailable:   {memory}\n")
    monkeypatch.setattr(local_sources, "MEMORY_INFO", tmp_path / "meminfo")
    store = FeatureStore(made, verify_reads=verify)
    assert type(store._rows._sources.of("train")).__name__ == kind


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(0, 5), max_size=3))
def test_aligned_memory_begins_at_a_cache_line(shape: list[int]) -> None:
    array = aligned_empty(tuple(shape), np.float16)
    assert array.shape == tuple(shape)
    assert array.ctypes.data % 64 == 0 or not array.size
    array[...] = 1


def test_chunks_begin_at_cache_lines(made: Path) -> None:
    table = open_backend(made, read_meta(made).container).resolve_chunks("train")
    spec = read_meta(made).feature
    if read_meta(made).container == "zarr":
        assert not (table.offset % 64).any()
        assert np.diff(table.offset[:10]).max() < spec.chunk_bytes + 4 + 64


def test_source_calls_reuse_no_memory_between_threads(tmp_path: Path) -> None:
    """Ragged batches read at the same time share nothing that one of them could spoil."""
    from concurrent.futures import ThreadPoolExecutor

    features, _ = make_ragged(tmp_path / "vqa", LENGTHS * 4, 3)
    store = FeatureStore(tmp_path / "vqa")

    def check(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, len(features), 16)
        batch = store.read("val", rows)
        return all(
            np.array_equal(batch.features[number, : len(features[row])], features[row])
            for number, row in enumerate(rows)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(64)))
