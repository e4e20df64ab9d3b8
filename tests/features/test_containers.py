"""What every container must do: the same numbers, the same bytes again, no damage unnoticed."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from disk import fill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ragged_store import WIDTH, make_ragged
from raw_data import tree
from stores import shard_file
from training import small_config

from trar.errors import DiskError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.containers import open_backend
from trar.features.schema import Container, read_meta
from trar.trainer.loop import train


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def read_in_child(store: FeatureStore, send: object) -> None:
    send.put(store.read("train", [5]).features)  # type: ignore[attr-defined]


class TestContainer:
    """Every test here runs on each container."""

    def test_every_accessor_says_what_the_other_container_says(
        self, made: Path, shared_store: FeatureStore
    ) -> None:
        store = FeatureStore(made)
        for split, images in shared_store.meta.image_splits.items():
            rows = np.random.default_rng(0).permutation(images.images)
            expected, found = shared_store.read(split, rows), store.read(split, rows)
            np.testing.assert_array_equal(found.features, expected.features)
            np.testing.assert_array_equal(found.lengths, expected.lengths)
            for name in ("image_ids", "cells", "lengths", "image_names", "skipped"):
                mine, its = getattr(store, name)(split), getattr(shared_store, name)(split)
                np.testing.assert_array_equal(mine, its)
                assert getattr(mine, "dtype", None) == getattr(its, "dtype", None)
        for split, questions in shared_store.meta.question_splits.items():
            names = ["questions", "tokens", *(["answers_of", "targets"] * questions.answered)]
            for name in names:
                mine = getattr(store, name)(split).columns()
                its = getattr(shared_store, name)(split).columns()
                assert mine.keys() == its.keys()
                for key, values in its.items():
                    np.testing.assert_array_equal(mine[key], values)
                    assert mine[key].dtype == values.dtype
        assert store.vocabulary.digest == shared_store.vocabulary.digest
        assert store.answers.digest == shared_store.answers.digest
        assert store.vectors() is None

    def test_sound_store_has_no_problems(self, made: Path) -> None:
        assert verify_store(made) == []

    def test_the_same_input_gives_the_same_bytes_in_another_process_and_second(
        self, made: Path, container: Container, tmp_path: Path
    ) -> None:
        code = (
            "import sys, time; from pathlib import Path; from stores import make_store;"
            "begin = int(time.time())\n"
            "while int(time.time()) == begin: time.sleep(0.01)\n"
            "make_store(Path(sys.argv[1]), container=sys.argv[2])"
        )
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "tiny"), container],
            check=True,
            env={"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "7"},
        )
        assert tree(tmp_path / "tiny", ()) == tree(made, ())

    def test_store_works_wherever_it_is_moved(self, made: Path, tmp_path: Path) -> None:
        shutil.copytree(made, tmp_path / "elsewhere" / "tiny")
        moved = tmp_path / "elsewhere" / "tiny"
        assert verify_store(moved) == []
        for path in moved.rglob("*"):
            assert not path.is_file() or str(made).encode() not in path.read_bytes()

    def test_a_store_can_be_pickled_and_forked(self, made: Path) -> None:
        store = FeatureStore(made)
        expected = store.read("train", [5]).features
        again = pickle.loads(pickle.dumps(store))
        np.testing.assert_array_equal(again.read("train", [5]).features, expected)
        context = multiprocessing.get_context("spawn")
        send = context.Queue()
        child = context.Process(target=read_in_child, args=(store, send))
        child.start()
        np.testing.assert_array_equal(send.get(timeout=60), expected)
        child.join()

    def test_tables_round_trip_with_empty_columns(
        self, container: Container, tmp_path: Path
    ) -> None:
        backend = open_backend(tmp_path, container)
        table = {
            "ids": np.arange(5),
            "none": np.zeros(0, np.float32),
            "byte": np.ones(3, np.uint8),
            "pairs": np.arange(6, dtype=np.int32).reshape(3, 2),
            "half": np.linspace(0, 1, 4, dtype=np.float16),
        }
        files = backend.write_table("questions/train", table)
        assert all((tmp_path / name).is_file() for name in files)
        back = backend.read_table("questions/train")
        assert sorted(back) == sorted(table)
        for key, values in table.items():
            np.testing.assert_array_equal(back[key], values)
            assert back[key].dtype == values.dtype

    def test_missing_table_is_named(self, container: Container, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"questions/none.*prepare this dataset again"):
            open_backend(tmp_path, container).read_table("questions/none")

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_any_flipped_bit_is_found_and_its_file_named(
        self, store: Path, data: st.DataObject
    ) -> None:
        name = data.draw(st.sampled_from(sorted(read_meta(store).files)))
        before = (store / name).read_bytes()
        position = data.draw(st.integers(0, len(before) - 1))
        after = bytearray(before)
        after[position] ^= 1 << data.draw(st.integers(0, 7))
        (store / name).write_bytes(after)
        try:
            assert name in {problem.where for problem in verify_store(store)}
        finally:
            (store / name).write_bytes(before)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_a_flipped_bit_never_becomes_a_wrong_number(
        self, store: Path, made: Path, data: st.DataObject
    ) -> None:
        """Read after the flip: what was stored, or an error; nothing in between."""
        name = data.draw(st.sampled_from(sorted(read_meta(store).files)))
        before = (store / name).read_bytes()
        after = bytearray(before)
        after[data.draw(st.integers(0, len(before) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (store / name).write_bytes(after)
        expected, found = FeatureStore(made), FeatureStore(store)
        try:
            with contextlib.suppress(StoreError):
                rows = np.arange(40)
                np.testing.assert_array_equal(
                    found.read("train", rows).features, expected.read("train", rows).features
                )
            for accessor, split in (
                ("image_ids", "val"),
                ("cells", "val"),
                ("questions", "train"),
                ("tokens", "test"),
                ("targets", "val"),
                ("answers_of", "train"),
            ):
                with contextlib.suppress(StoreError):
                    mine, its = (getattr(one, accessor)(split) for one in (found, expected))
                    if isinstance(mine, np.ndarray):
                        np.testing.assert_array_equal(mine, its)
                        continue
                    for key, values in its.columns().items():
                        np.testing.assert_array_equal(mine.columns()[key], values)
        finally:
            (store / name).write_bytes(before)

    def test_a_flipped_feature_names_shard_and_image(self, store: Path) -> None:
        table = open_backend(store, read_meta(store).container).resolve_chunks("train")
        path = shard_file(store, "train", 1)
        flip(path, int(table.offset[13]) + 17)
        opened = FeatureStore(store)
        opened.read("train", [12, 14])
        with pytest.raises(StoreError, match=r"image 46 \(row 13 of train\) does not match") as why:
            opened.read("train", [12, 13])
        assert str(path) in str(why.value)

    def test_missing_shard_is_refused_and_never_read_as_zeros(self, store: Path) -> None:
        opened = FeatureStore(store)
        path = shard_file(store, "train", 2)
        path.unlink()
        with pytest.raises(StoreError, match="missing"):
            FeatureStore(store)
        assert path.relative_to(store).as_posix() in {one.where for one in verify_store(store)}
        with pytest.raises((StoreError, OSError), match=str(path)):
            opened.read("train", [25])

    @pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1])
    def test_cut_shard_is_refused(self, store: Path, left: float) -> None:
        path = shard_file(store, "train", 3)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * left) if left == 0.5 else int(left)])
        with pytest.raises(StoreError, match=r"bytes, expected .*: cut short or overwritten"):
            FeatureStore(store)
        assert path.relative_to(store).as_posix() in {one.where for one in verify_store(store)}

    def test_swapped_shards_are_found(self, store: Path) -> None:
        one, other = shard_file(store, "train", 0), shard_file(store, "train", 1)
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(kept)
        found = {problem.where for problem in verify_store(store)}
        assert {path.relative_to(store).as_posix() for path in (one, other)} <= found

    def test_absent_image_is_an_error_not_zeros(self, store: Path, container: Container) -> None:
        spec = read_meta(store).feature
        backend = open_backend(store, container)
        values = np.ones((9, spec.rows, spec.width), np.float16)
        sides = {"cells": np.ones((9, spec.rows), np.bool_)}
        backend.write_shard(shard_file(store, "train", 1), spec, iter(values), 10, lambda: sides)
        with pytest.raises(StoreError, match=r"chunk 19 is absent|9 chunks, expected 10"):
            backend.resolve_chunks("train")

    def test_chunk_table_of_other_shards_is_found(self, store: Path) -> None:
        table = store / "chunk-table/train.safetensors"
        table.write_bytes((store / "chunk-table/val.safetensors").read_bytes())
        found = "\n".join(f"{one.where}: {one.what}" for one in verify_store(store))
        assert "the chunk table has 15 chunks, store.json says 40" in found

    @settings(max_examples=15, deadline=None)
    @given(
        lengths=st.lists(st.integers(0, 100), min_size=1, max_size=9).filter(lambda n: sum(n) > 0),
        shard_images=st.integers(1, 4),
        data=st.data(),
    )
    def test_ragged_images_come_back_whatever_the_cuts(
        self,
        container: Container,
        tmp_path_factory: pytest.TempPathFactory,
        lengths: list[int],
        shard_images: int,
        data: st.DataObject,
    ) -> None:
        folder = tmp_path_factory.mktemp("ragged") / "vqa"
        features, boxes = make_ragged(folder, lengths, shard_images, container=container)
        store = FeatureStore(folder)
        rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
        batch, held = store.read("val", rows), store.boxes("val", rows)
        assert batch.features.shape == (len(rows), max(lengths[row] for row in rows), WIDTH)
        for number, row in enumerate(rows):
            np.testing.assert_array_equal(batch.features[number, : lengths[row]], features[row])
            assert not batch.features[number, lengths[row] :].any()
            np.testing.assert_array_equal(held[number, : lengths[row]], boxes[row])
        np.testing.assert_array_equal(store.sizes("val")[:, 0], range(len(lengths)))
        np.testing.assert_array_equal(store.cells("val").sum(axis=1), lengths)
        assert verify_store(folder) == []

    def test_table_that_meets_a_full_disk_is_a_disk_error(
        self, container: Container, small_disk: Path
    ) -> None:
        backend = open_backend(small_disk, container)
        fill(small_disk)
        with pytest.raises(DiskError, match="No space left on device"):
            backend.write_table("questions/train", {"ids": np.arange(100_000)})

    def test_training_does_not_notice_the_container(
        self, made: Path, shared_store: FeatureStore, tmp_path: Path
    ) -> None:
        results = [
            train(small_config(path, tmp_path / str(number), "schedule.epochs=1"))
            for number, path in enumerate((made, shared_store.path))
        ]
        losses = [[epoch["loss"] for epoch in result.history] for result in results]
        assert losses[0] == losses[1]
        assert results[0].scores == results[1].scores
