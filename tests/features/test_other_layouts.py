"""Features that another tool has written again: the same values through the library, and why."""

from __future__ import annotations

import logging
import multiprocessing
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from ragged_store import WIDTH, make_ragged
from stores import make_store
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from trar.errors import StoreError
from trar.features import FeatureStore
from trar.features.zarr_shard import read_index

ZARR_FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "gzip": (
        {"chunks": (1, 16, 8), "shards": (10, 16, 8), "compressors": [GzipCodec()]},
        "codecs bytes little-endian, gzip, index at the end",
    ),
    "zstd": (
        {"chunks": (1, 16, 8), "shards": (10, 16, 8), "compressors": [ZstdCodec(level=1)]},
        "codecs bytes little-endian, zstd, index at the end",
    ),
    "zstd and crc32c": (
        {
            "chunks": (1, 16, 8),
            "shards": (8, 16, 8),
            "compressors": [ZstdCodec(level=1), Crc32cCodec()],
        },
        "codecs bytes little-endian, zstd, crc32c, index at the end",
    ),
    "big-endian": (
        {
            "chunks": (1, 16, 8),
            "shards": (10, 16, 8),
            "serializer": BytesCodec(endian="big"),
            "compressors": [Crc32cCodec()],
        },
        "codecs bytes big-endian, crc32c, index at the end",
    ),
    "other chunks": (
        {"chunks": (3, 16, 4), "shards": (12, 16, 8), "compressors": [Crc32cCodec()]},
        r"chunks \(3, 16, 4\) of \(40, 16, 8\)",
    ),
    "no shards": (
        {"chunks": (7, 16, 8), "compressors": None},
        r"chunks \(7, 16, 8\) of \(40, 16, 8\), codecs bytes little-endian\)",
    ),
}
HDF5_FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "gzip": ({"chunks": (1, 16, 8), "compression": "gzip"}, "<f2, .* gzip compression"),
    "big-endian": ({"chunks": (1, 16, 8), "dtype": ">f2"}, ">f2, chunks"),
    "other chunks": ({"chunks": (2, 16, 8)}, r"chunks \(2, 16, 8\)"),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished store of each container, to be copied."""
    folder = tmp_path_factory.mktemp("layouts")
    return {
        "zarr": make_store(folder / "zarr" / "tiny", container="zarr").path,
        "hdf5": make_store(folder / "hdf5" / "tiny", container="hdf5").path,
    }


def rewrite_zarr(store: Path, split: str = "train", **form: Any) -> np.ndarray:
    """Write the features of a split again in another form; returns them."""
    group = zarr.open_group(store / "arrays.zarr", path=f"images/{split}", mode="a")
    values = group["features"][:]
    group.create_array(
        "features", shape=values.shape, dtype=values.dtype, overwrite=True, filters=None, **form
    )
    with zarr.config.set({"array.write_empty_chunks": True}):
        group["features"][:] = values
    return values


def rewrite_hdf5(store: Path, **form: Any) -> np.ndarray:
    """The same for each shard."""
    parts = []
    for path in sorted((store / "images").glob("train-*.h5")):
        with h5py.File(path, "a") as file:
            parts.append(file["features"][:])
            del file["features"]
            file.create_dataset("features", data=parts[-1], **form)
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("container", "rewrite", "form", "reason"),
    [("zarr", rewrite_zarr, *ZARR_FORMS[name]) for name in ZARR_FORMS]
    + [("hdf5", rewrite_hdf5, *HDF5_FORMS[name]) for name in HDF5_FORMS],
)
def test_same_values_and_the_reason_in_the_log(
    stores: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    container: str,
    rewrite: Callable[..., np.ndarray],
    form: dict[str, Any],
    reason: str,
) -> None:
    store = tmp_path / "tiny"
    shutil.copytree(stores[container], store)
    expected = rewrite(store, **form)
    for verify in ("all", "none"):
        opened = FeatureStore(store, verify_reads=verify)
        rows = np.random.default_rng(0).permutation(40)
        np.testing.assert_array_equal(opened.read("train", rows).features, expected[rows])
    opened.read("val", [0])  # the others are still read from their places
    messages = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(messages) == 2  # once a store
    library = (
        "a decoder" if "zstd" in reason else {"zarr": "zarr-python", "hdf5": "h5py"}[container]
    )
    assert re.fullmatch(
        rf"{store}: the features of train are not laid out as trar writes them \(.*{reason}.*"
        rf"through {library}, many times slower; prepare this dataset again for full speed",
        messages[0],
    )


def test_ragged_rows_of_other_chunks(tmp_path: Path) -> None:
    lengths = [10, 100, 36, 0, 64]
    features, _ = make_ragged(tmp_path / "vqa", lengths, 2)
    rewrite_zarr(tmp_path / "vqa", "val", chunks=(50, WIDTH), compressors=[ZstdCodec()])
    batch = FeatureStore(tmp_path / "vqa").read("val", [4, 1, 3, 0])
    for number, row in enumerate([4, 1, 3, 0]):
        np.testing.assert_array_equal(batch.features[number, : lengths[row]], features[row])
        assert not batch.features[number, lengths[row] :].any()


def test_ragged_rows_compressed_with_zstd(tmp_path: Path) -> None:
    features, _ = make_ragged(tmp_path / "vqa", [10, 100, 36, 90], 2)
    form = {"chunks": (64, WIDTH), "shards": (128, WIDTH)}
    rewrite_zarr(tmp_path / "vqa", "val", **form, compressors=[ZstdCodec()])
    batch = FeatureStore(tmp_path / "vqa").read("val", [3, 1])
    np.testing.assert_array_equal(batch.features[0, :90], features[3])
    np.testing.assert_array_equal(batch.features[1], features[1])


@pytest.mark.parametrize("verify", ["all", "none"])
@pytest.mark.parametrize("name", ["zstd", "zstd and crc32c"])
def test_damage_of_compressed_bytes(
    stores: dict[str, Path], tmp_path: Path, name: str, verify: str
) -> None:
    """Every flipped bit with a crc32c; without, at least no image of another length."""
    store = tmp_path / "tiny"
    shutil.copytree(stores["zarr"], store)
    rewrite_zarr(store, **ZARR_FORMS[name][0])
    shard = store / "arrays.zarr/images/train/features/c/0/0/0"
    offset, size = read_index(shard, ZARR_FORMS[name][0]["shards"][0])[3].tolist()
    sound = shard.read_bytes()
    opened = FeatureStore(store, verify_reads=verify)
    opened.read("train", [3])
    with_checksum = "crc32c" in name
    for place in range(offset, offset + size if with_checksum else offset + 2, 7):
        data = bytearray(sound)
        data[place] ^= 4
        shard.write_bytes(data)
        with pytest.raises(StoreError, match=r"c/0/0/0: image 16 \(row 3 of train\) (does|cannot)"):
            opened.read("train", [3])
    shard.write_bytes(sound[: offset + size - 1])
    with pytest.raises(StoreError, match=rf"image 16 .* is cut short: {size - 1} of {size} bytes"):
        opened.read("train", [3])


def test_hdf5_values_are_still_compared_with_their_crc32c(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    store = tmp_path / "tiny"
    shutil.copytree(stores["hdf5"], store)
    rewrite_hdf5(store, chunks=(1, 16, 8), compression="gzip")
    opened = FeatureStore(store)
    with h5py.File(store / "images/train-00001.h5", "a") as file:
        file["features"][3, 0, 0] += 1
    opened.read("train", [12])
    with pytest.raises(StoreError, match=r"image 46 \(row 13 of train\) does not match its crc32c"):
        opened.read("train", [13])


def test_damage_is_not_taken_for_another_layout(stores: dict[str, Path], tmp_path: Path) -> None:
    """Features of another shape or type, and a part that is missing, would be zeros or nonsense."""
    shutil.copytree(stores["zarr"], tmp_path / "a")
    rewrite_zarr(tmp_path / "a", **ZARR_FORMS["no shards"][0])
    (tmp_path / "a/arrays.zarr/images/train/features/c/2/0/0").unlink()
    with pytest.raises(StoreError, match=r"cut short or overwritten|missing"):
        FeatureStore(tmp_path / "a")
    shutil.copytree(stores["zarr"], tmp_path / "b")
    group = zarr.open_group(tmp_path / "b/arrays.zarr", path="images/train", mode="a")
    group.create_array(
        "features", shape=(40, 16, 9), dtype="f2", chunks=(40, 16, 9), overwrite=True
    )
    with pytest.raises(StoreError, match=r"cut short or overwritten|missing"):
        FeatureStore(tmp_path / "b")
    shutil.copytree(stores["hdf5"], tmp_path / "c")
    rewrite_hdf5(tmp_path / "c", compression="gzip", chunks=(1, 16, 8))
    path = tmp_path / "c/images/train-00001.h5"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(StoreError, match=r"cut short or overwritten"):
        FeatureStore(tmp_path / "c")


def test_file_that_vanishes_is_not_read_as_zeros(stores: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "tiny"
    shutil.copytree(stores["zarr"], store)
    rewrite_zarr(store, **ZARR_FORMS["other chunks"][0])
    opened = FeatureStore(store)
    opened.read("train", [0])
    (store / "arrays.zarr/images/train/features/c/1/0/0").unlink()
    with pytest.raises(StoreError, match=r"image 46 \(row 13 of train\) cannot be read: .*missing"):
        opened.read("train", [0, 13])


def _read(store: FeatureStore) -> np.ndarray:
    return store.read("train", range(40)).features


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_forked_process_reads_through_a_library_of_its_own(
    stores: dict[str, Path], container: str
) -> None:
    store = FeatureStore(stores[container], access="library")
    here = _read(store)  # the parent reads first, so its handles cross the fork
    with multiprocessing.get_context("fork").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(_read, (store,)), here)
