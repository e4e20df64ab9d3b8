"""Shards written here are Zarr v3 shards to everybody: zarr-python reads the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from trar.errors import StoreError
from trar.features.schema import FeatureSpec
from trar.features.zarr_backend import ZarrBackend
from trar.features.zarr_shard import read_index, write_shard


def write_images(
    folder: Path, values: np.ndarray, shard_images: int, dtype: str = "float16"
) -> tuple[ZarrBackend, list[str]]:
    images, rows, width = values.shape
    backend = ZarrBackend(folder)
    side = round(rows**0.5)
    spec = FeatureSpec(rows, width, dtype, (side, side))
    files = backend.create_images("train", spec, np.arange(images) * 10, shard_images, None)
    for shard, start in enumerate(range(0, images, shard_images)):
        names = backend.shard_files("train", shard, spec)
        part = values[start : start + shard_images]
        for name in names.values():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        backend.write_shard(folder / names["features"], spec, iter(part), shard_images)
        backend.write_side(folder / names["cells"], part.any(axis=2), shard_images)
        files += names.values()
    return backend, files


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"arrays.zarr/images/train/features/c/{shard}/0/0"


@settings(max_examples=20, deadline=None)
@given(
    images=st.integers(1, 9),
    side=st.integers(1, 3),
    width=st.integers(1, 5),
    shard_images=st.integers(1, 5),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_zarr_python_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    images: int,
    side: int,
    width: int,
    shard_images: int,
    dtype: str,
) -> None:
    folder = tmp_path_factory.mktemp("zarr")
    rng = np.random.default_rng(images)
    values = rng.standard_normal((images, side * side, width)).astype(dtype)
    values[0] = 0  # an image of zeros is data here, not an absent chunk
    backend, _ = write_images(folder, values, shard_images, dtype)
    group = zarr.open_group(folder / "arrays.zarr", path="images/train", mode="r")
    np.testing.assert_array_equal(group["features"][:], values)
    np.testing.assert_array_equal(group["cells"][:], values.any(axis=2))
    np.testing.assert_array_equal(group["ids"][:], np.arange(images) * 10)
    table = backend.resolve_chunks("train")
    row_bytes = values[0].nbytes
    for row in range(images):
        path = shard_path(folder, int(table.shard[row]))
        data = path.read_bytes()[table.offset[row] :][:row_bytes]
        np.testing.assert_array_equal(np.frombuffer(data, dtype), values[row].ravel())


def test_shard_is_zarr_pythons_own_but_for_where_chunks_begin(tmp_path: Path) -> None:
    """The same chunks to the byte, each at a multiple of 64, and the same form of index."""
    values = np.arange(60, dtype=np.float16).reshape(5, 4, 3)
    write_images(tmp_path / "ours", values, 3)
    group = zarr.open_group(tmp_path / "theirs", mode="w", zarr_format=3)
    array = group.create_array(
        "features",
        shape=values.shape,
        dtype="float16",
        chunks=(1, 4, 3),
        shards=(3, 4, 3),
        filters=None,
        compressors=[Crc32cCodec()],
    )
    with zarr.config.set({"array.write_empty_chunks": True}):
        array[:] = values
    for shard in ("0", "1"):
        ours = tmp_path / f"ours/arrays.zarr/images/train/features/c/{shard}/0/0"
        theirs = tmp_path / f"theirs/features/c/{shard}/0/0"
        mine, its = read_index(ours, 3), read_index(theirs, 3)
        np.testing.assert_array_equal(mine[:, 1], its[:, 1])
        for number in range(3 if shard == "0" else 2):
            (begin, size), (its_begin, _) = mine[number].tolist(), its[number].tolist()
            assert begin == 64 * number
            chunk = theirs.read_bytes()[its_begin : its_begin + size]
            assert ours.read_bytes()[begin : begin + size] == chunk


def test_zarr_python_notices_a_flipped_byte(tmp_path: Path) -> None:
    values = np.ones((3, 4, 2), np.float16)
    write_images(tmp_path, values, 3)
    shard = shard_path(tmp_path, 0)
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    group = zarr.open_group(tmp_path / "arrays.zarr", path="images/train", mode="r")
    with pytest.raises(ValueError, match="checksum"):
        group["features"][0]


def test_damaged_index_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    write_shard(path, iter(np.ones((2, 4, 3), np.float16)), "float16", 2)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="index does not match its crc32c"):
        read_index(path, 2)
    path.write_bytes(data[:20])
    with pytest.raises(StoreError, match="shorter than its own index"):
        read_index(path, 2)


def test_absent_image_is_an_error_not_zeros(tmp_path: Path) -> None:
    values = np.ones((3, 4, 2), np.float16)
    backend, _ = write_images(tmp_path, values, 3)
    shard = shard_path(tmp_path, 0)
    write_shard(shard, iter(values[:2]), "float16", 3)
    with pytest.raises(StoreError, match="chunk 2 is absent"):
        backend.resolve_chunks("train")


def test_layout_of_another_tool_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "arrays.zarr", mode="w", zarr_format=3)
    images = group.create_group("images/train")
    images.create_array("features", shape=(2, 4, 3), dtype="float16", chunks=(1, 4, 3))
    with pytest.raises(StoreError, match=r"not in the layout of docs/format\.md"):
        ZarrBackend(tmp_path).resolve_chunks("train")


def test_same_form_keeps_shards_another_form_starts_anew(tmp_path: Path) -> None:
    values = np.ones((4, 4, 2), np.float16)
    backend, _ = write_images(tmp_path, values, 2)
    shard = shard_path(tmp_path, 1)
    spec = FeatureSpec(4, 2, "float16", (2, 2))
    backend.create_images("train", spec, np.arange(4), 2, None)
    assert shard.exists()
    backend.create_images("train", spec, np.arange(4), 4, None)
    assert not shard.exists()


def test_tables_round_trip_with_empty_columns(tmp_path: Path) -> None:
    backend = ZarrBackend(tmp_path)
    table = {"ids": np.arange(5), "none": np.zeros(0, np.float32), "byte": np.ones(3, np.uint8)}
    files = backend.write_table("questions/train", table)
    assert all((tmp_path / name).is_file() for name in files)
    back = backend.read_table("questions/train")
    assert sorted(back) == sorted(table)
    for key, values in table.items():
        np.testing.assert_array_equal(back[key], values)
        assert back[key].dtype == values.dtype
