"""HDF5 files written here are HDF5 to everybody, and whatever is done to one ends in one line."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from ragged_store import make_ragged
from raw_data import tree
from stores import make_store

from trar.errors import DiskError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.hdf5_backend import Hdf5Backend
from trar.features.hdf5_columns import MemoryFile, columns_file, read_columns, write_column
from trar.features.hdf5_shard import read_chunks
from trar.features.schema import FeatureSpec, read_meta
from trar.pipeline import PrepareConfig, prepare

SPEC = FeatureSpec(4, 3, "float16", (2, 2))
VALUES = np.arange(60, dtype=np.float16).reshape(5, 4, 3)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("hdf5") / "tiny", container="hdf5").path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "tiny")
    return tmp_path / "tiny"


def write_shard(path: Path, values: np.ndarray = VALUES, shard_images: int = 8) -> None:
    cells = {"cells": values.any(axis=2)}
    Hdf5Backend(path.parent).write_shard(path, SPEC, iter(values), shard_images, lambda: cells)


def write_by(path: Path, change) -> None:
    """A file of ``change(h5py.File)``."""
    with MemoryFile() as made:
        change(made.file)
    path.write_bytes(made.data)


class TestView:
    """``<dataset>.h5``: what other tools see."""

    def test_h5py_sees_the_whole_tree(self, made: Path, shared_store: FeatureStore) -> None:
        with h5py.File(made / "tiny.h5") as view:
            assert set(view) == {"images", "questions", "tokens", "answers", "targets"}
            for split in ("train", "val", "test"):
                images = view["images"][split]
                count = shared_store.meta.image_splits[split].images
                expected = shared_store.read(split, range(count)).features
                np.testing.assert_array_equal(images["features"][:], expected)
                np.testing.assert_array_equal(images["cells"][:], shared_store.cells(split))
                np.testing.assert_array_equal(images["ids"][:], shared_store.image_ids(split))
                assert images["features_crc32c"].shape == (count,)
                columns = shared_store.questions(split).columns()
                assert set(view["questions"][split]) == set(columns)
                for name, values in columns.items():
                    np.testing.assert_array_equal(view["questions"][split][name][...], values)
            targets = view["targets/openvqa/val/score"][:]
            np.testing.assert_array_equal(targets, shared_store.targets("val").score)
            assert view["tokens/openvqa/train/ids"].dtype == np.int32

    def test_ragged_rows_and_boxes_are_joined(self, tmp_path: Path) -> None:
        features, boxes = make_ragged(tmp_path / "vqa", [36, 10, 100, 77], 1, container="hdf5")
        with h5py.File(tmp_path / "vqa/vqa.h5") as view:
            images = view["images/val"]
            np.testing.assert_array_equal(images["features"][:], np.concatenate(features))
            np.testing.assert_array_equal(images["boxes"][:], np.concatenate(boxes))
            np.testing.assert_array_equal(images["offsets"][:], [0, 36, 46, 146, 223])
            np.testing.assert_array_equal(images["sizes"][:, 0], range(4))
            assert "cells" not in images

    def test_it_shows_zeros_where_a_shard_is_missing_and_the_store_does_not(
        self, store: Path
    ) -> None:
        (store / "images/train-00001.h5").unlink()
        with h5py.File(store / "tiny.h5") as view:
            assert not view["images/train/features"][10:20].any()  # the warning of docs/format.md
        with pytest.raises(StoreError, match=r"train-00001\.h5: missing"):
            FeatureStore(store)

    def test_nothing_reads_through_it(self, store: Path) -> None:
        """Adding a split replaces it before store.json: neither may depend on the other."""
        (store / "tiny.h5").write_bytes(b"of another moment")
        FeatureStore(store).read("train", range(40))
        assert [one.where for one in verify_store(store)] == ["tiny.h5"]
        (store / "tiny.h5").unlink()
        assert FeatureStore(store).questions("val").texts[0] == "What colour is it?"

    def test_a_kill_before_store_json_leaves_the_old_store_sound(
        self, vqa_raw: Path, tmp_path: Path
    ) -> None:
        settings = {"raw": vqa_raw, "shard_images": 20, "workers": 0, "format": "hdf5"}
        prepare(PrepareConfig(store=tmp_path / "s", split="train", **settings))
        prepare(PrepareConfig(store=tmp_path / "both", **settings))
        shutil.copy(tmp_path / "both/vqa/vqa.h5", tmp_path / "s/vqa/vqa.h5")
        (tmp_path / "s/vqa/.prepare").mkdir()
        FeatureStore(tmp_path / "s").read("train2014", [0])
        assert verify_store(tmp_path / "s") == []
        prepare(PrepareConfig(store=tmp_path / "s", split="train+val", **settings))
        assert tree(tmp_path / "s") == tree(tmp_path / "both")

    def test_it_is_listed_in_the_store(self, made: Path) -> None:
        assert "tiny.h5" in read_meta(made).files


class TestShard:
    """One file a shard."""

    def test_h5py_reads_what_was_written(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "shard.h5")
        with h5py.File(tmp_path / "shard.h5") as file:
            features = file["features"]
            np.testing.assert_array_equal(features[:], VALUES)
            assert (features.chunks, features.fletcher32) == ((1, 4, 3), True)
            assert features.dtype == np.dtype("<f2")
            np.testing.assert_array_equal(file["cells"][:], VALUES.any(axis=2))
            assert file["cells"].dtype == np.bool_

    def test_values_lie_where_the_chunks_are_said_to_be(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "shard.h5")
        data = (tmp_path / "shard.h5").read_bytes()
        found = read_chunks(tmp_path / "shard.h5")
        assert (np.diff(found.offset) > 0).all()
        for row, offset in enumerate(found.offset.tolist()):
            held = np.frombuffer(data, "<f2", 12, offset).reshape(4, 3)
            np.testing.assert_array_equal(held, VALUES[row])

    def test_images_begin_at_pages(self, tmp_path: Path) -> None:
        spec = FeatureSpec(64, 600, "float16", (8, 8))
        values = np.ones((3, 64, 600), np.float16)
        cells = {"cells": values.any(axis=2)}
        path = tmp_path / "shard.h5"
        Hdf5Backend(tmp_path).write_shard(path, spec, iter(values), 3, lambda: cells)
        assert not (read_chunks(path).offset % 4096).any()

    def test_h5py_notices_a_flipped_byte(self, tmp_path: Path) -> None:
        path = tmp_path / "shard.h5"
        write_shard(path)
        data = bytearray(path.read_bytes())
        data[int(read_chunks(path).offset[2]) + 5] ^= 1
        path.write_bytes(data)
        with h5py.File(path) as file, pytest.raises(OSError, match=r"checksum|fletcher|filter"):
            file["features"][2]

    def test_error_of_the_images_leaves_nothing(self, tmp_path: Path) -> None:
        def broken():
            yield VALUES[0]
            raise StoreError("the raw file ends")

        with pytest.raises(StoreError, match="the raw file ends"):
            Hdf5Backend(tmp_path).write_shard(tmp_path / "shard.h5", SPEC, broken(), 8)
        assert not list(tmp_path.iterdir())


def features(**changes: object):
    """Writes a dataset ``features`` that differs from the layout in ``changes``."""

    def write(file: h5py.File) -> None:
        settings = {"data": VALUES, "chunks": (1, 4, 3), "fletcher32": True, **changes}
        file.create_dataset("features", **settings)
        count = len(file["features"])
        write_column(file, "features_crc32c", np.zeros(count, np.uint32))

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (features(chunks=(1, 2, 3)), r"not in the layout .* chunks \(1, 2, 3\) of \(5, 4, 3\)"),
        (features(fletcher32=False), r"not in the layout of docs/format\.md .* 0 filters"),
        (features(chunks=None, fletcher32=False), r"chunks None of \(5, 4, 3\), 0 filters"),
        (features(data=VALUES.astype(">f2")), r"type >f2"),
        (features(data=VALUES.astype("<f8")), r"type <f8"),
        (features(compression="gzip"), r"features is virtual, external or compressed"),
        (features(data=None, shape=(5, 4, 3), dtype="<f2"), r"claims 120 bytes, 0 are stored"),
        (lambda file: None, r"features is missing or a link to elsewhere"),
        (lambda file: file.create_group("features"), r"features does not hold numbers"),
        (
            lambda file: file.create_dataset("features", data=np.array([b"abc"])),
            r"features does not hold numbers",
        ),
    ],
)
def test_shard_in_another_layout_is_refused(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "shard.h5"
    write_by(path, change)
    with pytest.raises(StoreError, match=message) as error:
        read_chunks(path)
    assert str(error.value).startswith(f"{path}: damaged (")
    assert "prepare this dataset again" in str(error.value)


def test_shard_whose_checksums_are_of_other_chunks(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset("features", data=VALUES, chunks=(1, 4, 3), fletcher32=True)
        write_column(file, "features_crc32c", np.zeros(4, np.uint32))

    write_by(tmp_path / "shard.h5", write)
    with pytest.raises(StoreError, match="4 checksums of 5 chunks"):
        read_chunks(tmp_path / "shard.h5")


class TestColumns:
    """Tables, and whatever stands beside the features."""

    def test_a_wrong_value_with_all_of_hdf5s_own_checksums_right_is_found(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "table.h5"
        path.write_bytes(columns_file({"ids": np.arange(9)}))
        with h5py.File(path, "r+") as file:
            file["ids"][4] = 5
        with pytest.raises(StoreError, match="/ids does not match its crc32c"):
            read_columns(path)

    def test_links_and_virtual_columns_are_not_followed(self, tmp_path: Path) -> None:
        path = tmp_path / "table.h5"
        for link in (h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/other")):
            write_by(path, lambda file, link=link: file.__setitem__("ids", link))
            with pytest.raises(StoreError, match="ids is missing or a link to elsewhere"):
                read_columns(path)

        def virtual(file: h5py.File) -> None:
            layout = h5py.VirtualLayout((5,), "int64")
            layout[:] = h5py.VirtualSource("other.h5", "ids", shape=(5,))
            file.create_virtual_dataset("ids", layout)

        write_by(path, virtual)
        with pytest.raises(StoreError, match="ids is virtual, external or compressed"):
            read_columns(path)

    def test_a_claim_larger_than_the_file_takes_no_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "table.h5"
        write_by(path, lambda file: file.create_dataset("ids", (1 << 50,), "u1", chunks=(1 << 20,)))
        with pytest.raises(StoreError, match=rf"ids claims {1 << 50} bytes, 0 are stored"):
            read_columns(path)

    def test_other_byte_order_and_missing_checksum(self, tmp_path: Path) -> None:
        path = tmp_path / "table.h5"
        write_by(path, lambda file: file.create_dataset("ids", data=np.arange(3, dtype=">i8")))
        with pytest.raises(StoreError, match="/ids is not little-endian"):
            read_columns(path)
        write_by(path, lambda file: file.create_dataset("ids", data=np.arange(3)))
        with pytest.raises(StoreError, match=r"damaged .*crc32c"):
            read_columns(path)

    @pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", b"text" * 99])
    def test_not_an_hdf5_file(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "table.h5"
        path.write_bytes(data)
        with pytest.raises(
            StoreError, match=r"damaged \(.*\); run trar-data repair, or prepare this dataset again"
        ):
            read_columns(path)
        path.unlink()
        with pytest.raises(
            StoreError, match="missing; run trar-data repair, or prepare this dataset again"
        ):
            read_columns(path)

    def test_order_of_columns_changes_nothing(self) -> None:
        one, other = {"a": np.arange(3), "b": np.ones(2)}, {"b": np.ones(2), "a": np.arange(3)}
        assert columns_file(one) == columns_file(other)


@pytest.mark.parametrize(
    "columns",
    [
        {"ids": np.arange(5)},
        {"ids": np.arange(5), "shard_images": np.array([0])},
        {"shard_images": np.array([5])},
        {"ids": np.arange(5), "shard_images": np.zeros(0, np.int64)},
    ],
)
def test_image_table_that_does_not_say_how_it_is_cut(tmp_path: Path, columns: dict) -> None:
    backend = Hdf5Backend(tmp_path)
    backend.write_table("images/train", columns)
    for read in (backend.resolve_chunks, lambda split: backend.read_images_table(split, SPEC)):
        with pytest.raises(StoreError, match=r"tables/images/train\.h5: damaged \(no usable"):
            read("train")


def test_split_of_images_without_any_region(tmp_path: Path) -> None:
    make_ragged(tmp_path / "vqa", [0, 0], 2, container="hdf5")
    store = FeatureStore(tmp_path / "vqa")
    assert store.read("val", [1]).features.shape[1] == 0
    assert verify_store(tmp_path / "vqa") == []


MUTATE = """
import random, resource, sys
from pathlib import Path
from trar.errors import StoreError
from trar.features.hdf5_columns import read_columns
from trar.features.hdf5_shard import read_chunks
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
rng = random.Random(int(sys.argv[1]))
target = Path(sys.argv[2])
for path in map(Path, sys.argv[3:]):
    whole = path.read_bytes()
    for _ in range(400):
        data = bytearray(whole)
        match rng.randrange(3):
            case 0:
                for _ in range(rng.randrange(1, 20)):
                    data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255))
            case 1:
                del data[rng.randrange(len(data)):]
            case 2:
                begin, end, to = sorted(rng.randrange(len(data)) for _ in range(3))
                data[to:to + end - begin] = data[begin:end]
        target.write_bytes(data)
        for read in (read_columns, read_chunks):
            try:
                read(target)
            except StoreError as error:
                assert "\\n" not in str(error)
"""


def test_mutated_files_end_in_one_line_and_never_the_process(made: Path, tmp_path: Path) -> None:
    files = ["images/train-00000.h5", "tables/questions/train.h5", "tables/images/val.h5"]
    seed = str(random.Random(4).randrange(10**6))
    arguments = [seed, str(tmp_path / "x.h5"), *(str(made / name) for name in files)]
    done = subprocess.run(
        [sys.executable, "-c", MUTATE, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_full_disk_while_a_shard_is_written(small_disk: Path) -> None:
    """HDF5 itself would end the process here: the bytes are made in memory."""
    values = np.zeros((40, 4, 3 << 12), np.float16)  # 3.75 MiB for a disk of 3 MiB
    spec = FeatureSpec(4, 3 << 12, "float16", (2, 2))
    with pytest.raises(DiskError, match="No space left on device"):
        Hdf5Backend(small_disk).write_shard(small_disk / "shard.h5", spec, iter(values), 40)
