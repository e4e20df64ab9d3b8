"""What every container must do: the same numbers, the same bytes again, no damage unnoticed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from disk import fill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ragged_store import WIDTH, make_ragged
from raw_data import edit_json, tree
from stores import make_store
from training import small_config

from trar.cli import data as trar_data
from trar.errors import DiskError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.containers import open_backend
from trar.features.schema import Container, FeatureSpec, read_meta
from trar.pipeline import PrepareConfig, prepare
from trar.trainer.loop import train

CONTAINERS: tuple[Container, ...] = ("zarr", "hdf5")


@pytest.fixture(scope="session", params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> Container:
    return request.param


@pytest.fixture(scope="session")
def made(container: Container, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store in the container, to be read only."""
    return make_store(tmp_path_factory.mktemp(container) / "tiny", container=container).path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """The same store, to be damaged."""
    shutil.copytree(made, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="session")
def prepared(container: Container, vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store root that an undisturbed prepare makes of real questions."""
    root = tmp_path_factory.mktemp(container) / "features"
    prepare(config(vqa_raw, root, container))
    return root


def config(raw: Path, store: Path, container: Container, **changes: object) -> PrepareConfig:
    settings = {"raw": raw, "store": store, "shard_images": 20, "workers": 0, **changes}
    return PrepareConfig(format=container, **settings)


def shard_file(store: Path, split: str, shard: int) -> Path:
    meta = read_meta(store)
    files = open_backend(store, meta.container).shard_files(split, shard, meta.feature)
    return store / files["features"]


def shard_file_of(store: Path, container: Container, split: str, shard: int) -> Path:
    """The same in a folder that is no store yet."""
    spec = FeatureSpec(64, 12, "float16", (8, 8))
    return store / open_backend(store, container).shard_files(split, shard, spec)["features"]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def read_in_child(store: FeatureStore, send: object) -> None:
    send.put(store.read("train", [5]).features)  # type: ignore[attr-defined]


PREPARE = """
import sys
from pathlib import Path
from trar.pipeline import PrepareConfig, prepare
raw, store, container = sys.argv[1:]
prepare(PrepareConfig(
    raw=Path(raw), store=Path(store), format=container, shard_images=20, workers=0))
"""


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

    def test_prepare_makes_the_same_store_in_workers_and_by_parts(
        self, container: Container, vqa_raw: Path, prepared: Path, tmp_path: Path
    ) -> None:
        prepare(config(vqa_raw, tmp_path / "workers", container, workers=2))
        assert tree(tmp_path / "workers") == tree(prepared)
        prepare(config(vqa_raw, tmp_path / "parts", container, split="train"))
        opened = FeatureStore(tmp_path / "parts")
        result = prepare(PrepareConfig(raw=vqa_raw, store=tmp_path / "parts", shard_images=20))
        assert (result.made, result.kept) == (["val"], ["train"])
        assert tree(tmp_path / "parts") == tree(prepared)
        opened.read("train2014", [3])  # a reader of the old store goes on
        assert verify_store(tmp_path / "parts") == []

    def test_dry_run_bounds_what_the_command_writes(
        self, container: Container, vqa_raw: Path, tmp_path: Path
    ) -> None:
        arguments = ["prepare", "--raw", str(vqa_raw), "--store", str(tmp_path / "s")]
        arguments += ["--format", container, "--shard-images", "20", "--workers", "0", "--json"]
        plan = json.loads(CliRunner().invoke(trar_data, [*arguments, "--dry-run"]).stdout)
        made = json.loads(CliRunner().invoke(trar_data, arguments).stdout)
        assert made["store"]["container"] == container
        assert plan["write_bytes"] >= sum(len(one) for one in tree(tmp_path / "s").values())
        shown = CliRunner().invoke(trar_data, ["info", "--store", str(tmp_path / "s")])
        assert f", {container}, " in shown.output

    def test_killed_prepare_goes_on_to_the_same_bytes(
        self, container: Container, vqa_raw: Path, prepared: Path, tmp_path: Path
    ) -> None:
        store = tmp_path / "s"
        process = subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(vqa_raw), str(store), container],
            stderr=subprocess.DEVNULL,
        )
        receipts = store / "vqa/.prepare"
        while len(list(receipts.glob("train2014-*.json"))) < 2:  # in the middle of the features
            assert process.poll() is None, "prepare ended before it could be killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(StoreError, match="unfinished store"):
            FeatureStore(store)
        first = shard_file_of(store / "vqa", container, "train2014", 0)
        moment = first.stat().st_mtime_ns
        prepare(config(vqa_raw, store, container))
        assert tree(store) == tree(prepared)
        assert first.stat().st_mtime_ns == moment

    def test_disk_that_fills_midway_keeps_finished_shards(
        self, container: Container, vqa_raw: Path, prepared: Path, small_disk: Path
    ) -> None:
        def fill_at_image_50(stage: str, done: int, total: int) -> None:
            if done == 50:
                fill(small_disk)

        with pytest.raises(DiskError, match=r"No space left on device; free some space"):
            prepare(config(vqa_raw, small_disk / "s", container), fill_at_image_50)
        (small_disk / "ballast").unlink()
        store = small_disk / "s/vqa"
        assert not (store / "store.json").exists()
        assert not list(store.rglob("*.partial"))
        finished = {
            path: path.stat().st_mtime_ns
            for path in (shard_file_of(store, container, "train2014", n) for n in (0, 1))
        }
        prepare(config(vqa_raw, small_disk / "s", container))
        assert {path: path.stat().st_mtime_ns for path in finished} == finished
        assert tree(small_disk / "s") == tree(prepared)

    def test_table_that_meets_a_full_disk_is_a_disk_error(
        self, container: Container, small_disk: Path
    ) -> None:
        backend = open_backend(small_disk, container)
        fill(small_disk)
        with pytest.raises(DiskError, match="No space left on device"):
            backend.write_table("questions/train", {"ids": np.arange(100_000)})

    def test_shards_of_the_other_container_do_not_count(
        self, container: Container, vqa_raw: Path, prepared: Path, tmp_path: Path
    ) -> None:
        """Stopped in one container, done in the other: nothing of the first is left."""
        other: Container = "zarr" if container == "hdf5" else "hdf5"

        def stop(stage: str, done: int, total: int) -> None:
            if done == 50:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(config(vqa_raw, tmp_path / "s", other), stop)
        assert list((tmp_path / "s/vqa/.prepare").glob("*.json"))
        prepare(config(vqa_raw, tmp_path / "s", container))
        assert tree(tmp_path / "s") == tree(prepared)

    def test_changed_raw_files_are_made_anew(
        self, container: Container, vqa_raw: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(vqa_raw, tmp_path / "data")
        prepare(config(tmp_path / "data", tmp_path / "s", container))
        path = sorted((tmp_path / "data/vqa/feats/val2014").glob("*.npy"))[5]
        np.save(path, np.load(path) + 1)
        questions = tmp_path / "data/vqa/raw/v2_OpenEnded_mscoco_train2014_questions.json"
        edit_json(questions, lambda value: value["questions"][4].update(question="What is it?"))
        result = prepare(config(tmp_path / "data", tmp_path / "s", container))
        assert set(result.remade) == {"val2014", "train"}
        again = config(tmp_path / "data", tmp_path / "s", container)
        assert prepare(again).remade == []
        store = FeatureStore(tmp_path / "s")
        assert store.questions("train").texts[4] == "What is it?"
        assert verify_store(tmp_path / "s") == []

    def test_other_container_of_a_finished_store_is_refused(
        self, container: Container, vqa_raw: Path, prepared: Path
    ) -> None:
        other: Container = "zarr" if container == "hdf5" else "hdf5"
        with pytest.raises(StoreError, match=f"this store is in {container}, --format {other}"):
            prepare(config(vqa_raw, prepared, other))

    def test_images_left_out_are_refused_alike(
        self, container: Container, vqa_raw: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(vqa_raw, tmp_path / "data")
        path = sorted((tmp_path / "data/vqa/feats/val2014").glob("*.npy"))[3]
        path.write_bytes(b"junk" * 99)
        prepare(config(tmp_path / "data", tmp_path / "s", container, on_bad_image="skip"))
        store = FeatureStore(tmp_path / "s")
        (image_id,) = store.skipped("val2014")
        row = store.image_ids("val2014").tolist().index(image_id)
        with pytest.raises(StoreError, match=f"image {image_id} of val2014 was left out"):
            store.read("val2014", [row])
        assert verify_store(tmp_path / "s") == []

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
