"""Stores compressed with zstd: the same values, the same damage found, less of the disk."""

from __future__ import annotations

import multiprocessing
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from raw_data import tree
from stores import StorePlan, make_store

from trar.cli import data
from trar.errors import StoreError
from trar.features import FeatureStore, verify_store
from trar.features.chunk_table import ChunkTable, read_chunk_table
from trar.features.convert import convert_store
from trar.features.schema import read_meta
from trar.trainer.memory_bound import memory_bound

PLANS = {"grid": {"width": 32}, "ragged": {"width": 32, "most_regions": 30}}


@pytest.fixture(scope="module", params=PLANS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one store twice, ``plain/tiny`` and ``zstd/tiny``; copy it to change it."""
    folder = tmp_path_factory.mktemp("compressed")
    make_store(folder / "plain/tiny", StorePlan(**PLANS[request.param]))
    make_store(folder / "zstd/tiny", StorePlan(**PLANS[request.param], compression="zstd"))
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "zstd/tiny", tmp_path / "tiny")
    return tmp_path / "tiny"


def shard_file(store: Path, shard: int = 0) -> Path:
    tail = "0" if read_meta(store).feature.ragged else "0/0"
    return store / f"arrays.zarr/images/train/features/c/{shard}/{tail}"


def table_of(store: Path) -> ChunkTable:
    meta = read_meta(store)
    return read_chunk_table(store, "train", meta.image_splits["train"].chunks(meta.feature))


def read_all(store: FeatureStore, send: object) -> None:
    send.send(store.read("train", range(40)).features)


@pytest.mark.parametrize("access", ["auto", "preadv", "mmap", "library"])
@pytest.mark.parametrize("verify", ["all", "none"])
def test_values_are_those_of_the_plain_store(made: Path, access: str, verify: str) -> None:
    rows = np.random.default_rng(3).permutation(40)
    plain = FeatureStore(made / "plain").read("train", rows)
    opened = FeatureStore(made / "zstd", access=access, verify_reads=verify)
    batch = opened.read("train", rows)
    np.testing.assert_array_equal(batch.features, plain.features)
    np.testing.assert_array_equal(batch.lengths, plain.lengths)


def test_threads_and_processes_read_it(made: Path) -> None:
    store, plain = FeatureStore(made / "zstd"), FeatureStore(made / "plain")
    expected = plain.read("train", range(40)).features
    with ThreadPoolExecutor(4) as threads:
        for batch in threads.map(lambda _: store.read("train", range(40)), range(8)):
            np.testing.assert_array_equal(batch.features, expected)
    for start in ("fork", "spawn"):
        context = multiprocessing.get_context(start)
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=read_all, args=(store, send))
        process.start()
        np.testing.assert_array_equal(receive.recv(), expected)
        process.join()


def test_it_is_smaller_and_says_so(made: Path) -> None:
    sizes = {name: shard_file(made / name / "tiny").stat().st_size for name in ("plain", "zstd")}
    assert sizes["zstd"] < 0.9 * sizes["plain"]
    assert verify_store(made / "zstd/tiny") == []
    info = CliRunner().invoke(data, ["info", "--store", str(made / "zstd")])
    assert re.search(r"float16.*, zstd", info.output)


def test_zarr_python_reads_it_and_the_table_has_sizes(made: Path) -> None:
    arrays = [
        zarr.open_array(made / name / "tiny/arrays.zarr", path="images/train/features", mode="r")
        for name in ("plain", "zstd")
    ]
    np.testing.assert_array_equal(arrays[0][:], arrays[1][:])
    table = table_of(made / "zstd/tiny")
    assert table.size is not None
    assert len(set(table.size.tolist())) > 1
    assert (table.size < read_meta(made / "zstd/tiny").feature.chunk_bytes).all()
    assert not (table.offset % 64).any()


def test_the_same_input_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    convert_store(made / "plain", tmp_path / "a", "zarr", compress="zstd")
    convert_store(made / "zstd", tmp_path / "b", "zarr")
    arrays = tree(made / "zstd/tiny/arrays.zarr")
    assert tree(tmp_path / "a/tiny/arrays.zarr") == arrays
    assert tree(tmp_path / "b/tiny/arrays.zarr") == arrays


def test_hdf5_and_back_are_the_plain_store(made: Path, tmp_path: Path) -> None:
    convert_store(made / "zstd", tmp_path / "h", "hdf5")
    assert read_meta(tmp_path / "h/tiny").feature.compression is None
    convert_store(tmp_path / "h", tmp_path / "z", "zarr")
    assert tree(tmp_path / "z/tiny/arrays.zarr") == tree(made / "plain/tiny/arrays.zarr")
    place = ["--store", str(made / "zstd"), "--to", str(tmp_path / "n")]
    result = CliRunner().invoke(data, ["convert", *place, "--format", "zarr", "--compress", "none"])
    assert result.exit_code == 0, result.output
    assert tree(tmp_path / "n/tiny/arrays.zarr") == tree(made / "plain/tiny/arrays.zarr")


def test_every_flipped_bit_is_found_and_never_read_as_numbers(store: Path) -> None:
    path, table, rng = shard_file(store), table_of(store), np.random.default_rng(0)
    whole = path.read_bytes()
    held = np.flatnonzero(table.shard == 0)
    for chunk in rng.choice(held, 40):
        at = int(table.offset[chunk] + rng.integers(table.size[chunk]))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        opened = FeatureStore(store, verify_reads="none")
        with pytest.raises(StoreError, match=r"does not match its crc32c: damaged; `trar-data rep"):
            opened.read("train", range(40))
        assert any("features" in problem.where for problem in verify_store(store))
    path.write_bytes(whole)
    assert verify_store(store) == []


def test_cut_or_plain_shard_is_refused_and_not_taken_for_another_layout(
    made: Path, store: Path
) -> None:
    whole = shard_file(store).read_bytes()
    for content in (whole[:-1], whole[:100], b"", shard_file(made / "plain/tiny").read_bytes()):
        shard_file(store).write_bytes(content)
        with pytest.raises(StoreError, match=r"bytes, expected .*`trar-data repair"):
            FeatureStore(store)


def test_hdf5_has_no_compression(made: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"one is in HDF5; leave --compress out"):
        convert_store(made / "plain", tmp_path, "hdf5", compress="zstd")
    assert not list(tmp_path.iterdir())


def test_memory_bound_counts_the_tables_alone(made: Path) -> None:
    bounds = [
        memory_bound(
            read_meta(made / name / "tiny"),
            questions=9,
            batch_size=2,
            buffers=1,
            threads=1,
            window_bytes=0,
        )
        for name in ("plain", "zstd")
    ]
    assert bounds[0].mapped == pytest.approx(bounds[1].mapped, rel=0.1)
    chunk_bytes = read_meta(made / "zstd/tiny").feature.chunk_bytes
    assert bounds[1].total == bounds[0].total + 2 * chunk_bytes  # as stored, and decoded
