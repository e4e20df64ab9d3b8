"""Values in HDF5 files: types, sizes and chunks that cannot be taken, one by one."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_files import with_grid

from trar.errors import RawDataError
from trar.pipeline.readers import hdf5_images, hdf5_rows
from trar.pipeline.readers.hdf5_images import Hdf5Images, scan_hdf5


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("i4", "int32, expected float16, float32 or float64"),
        ("S4", "its type is text, not a plain number"),
        (np.dtype([("a", "f4")]), "its type is compound"),
        (bool, "its type is enum"),
        (h5py.string_dtype(), "its type is text"),
    ],
)
def test_types_that_are_no_features(tmp_path: Path, dtype: Any, message: str) -> None:
    made = with_grid(tmp_path / "a.h5", dtype=dtype)
    if dtype == "i4":
        made[...] = 1
    made.file.close()
    with pytest.raises(RawDataError, match=f"a.h5, dataset features: {message}"):
        scan_hdf5(tmp_path / "a.h5", "val")


def test_float_that_is_not_numpys(tmp_path: Path) -> None:
    """bfloat16: libhdf5 would convert it, its bytes alone mean something else."""
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple((4, 2, 3, 3))
        made = h5py.Dataset(h5py.h5d.create(file.id, b"features", kind, space))
        made[...] = np.ones((4, 2, 3, 3), np.float32)
    with pytest.raises(RawDataError, match="its type is float16, not a plain number"):
        scan_hdf5(tmp_path / "a.h5", "val")


def test_values_that_cannot_be_read_here(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"

    def refused(message: str) -> None:
        with pytest.raises(RawDataError, match=f"a.h5, dataset features: {message}"):
            scan_hdf5(path, "val")

    values = np.ones((4, 2, 3, 3), np.float32)
    with_grid(path, dtype="f4", data=values, compression="lzf").file.close()
    refused(r"compressed with lzf, expected gzip or nothing; repack it \(h5repack -f NONE OLD NEW")
    with_grid(path, dtype="f4", data=values, scaleoffset=2).file.close()
    refused("compressed with scaleoffset")
    with_grid(path, dtype="f4", external=[(tmp_path / "b", 0, 10**4)]).file.close()
    refused("its values lie in other files; gather them")
    with_grid(path, dtype="f4").file.close()
    refused("its values were never written; make the file again")
    one = with_grid(path, dtype="f4", chunks=(1, 2, 3, 3))
    one[:3] = 1
    one.file.close()
    refused("3 of its 4 chunks are there, the rest was never written; make the file again")
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4, 2, 3, 3))
        h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F32LE, space, plist)
    refused("its values lie in a header; repack it")
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4, 2, 3, 3), "f4")
        layout[:] = h5py.VirtualSource(tmp_path / "c.h5", "x", (4, 2, 3, 3))
        file.create_virtual_dataset("features", layout)
    refused("its values lie in other files")


def test_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    with_grid(tmp_path / "b.h5", data=np.ones((4, 2, 3, 3), np.float32)).file.close()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = h5py.ExternalLink(tmp_path / "b.h5", "features")
    with pytest.raises(RawDataError, match="it holds no dataset"):
        scan_hdf5(tmp_path / "a.h5", "val")


def test_compressed_chunks_of_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one image costs is bounded, whatever the chunks are."""
    values = np.random.default_rng(0).random((4, 2, 3, 3))
    with_grid(tmp_path / "a.h5", data=values, chunks=(3, 2, 3, 3), compression=1).file.close()
    scan = scan_hdf5(tmp_path / "a.h5", "val")
    monkeypatch.setattr(hdf5_rows, "_KEPT_BYTES", 500)  # one chunk has 432
    for row in (3, 0, 1, 3, 2, 2):
        np.testing.assert_array_equal(scan.read(row).features, values[row])
    monkeypatch.setattr(hdf5_rows, "_MAX_INFLATED_BYTES", 431)
    expected = (
        r"reading rows 0 to 1 takes 432 B, one image may take 431 B: its compressed chunks of "
        r"\(3, 2, 3, 3\) hold many images each; repack it \(h5repack -l features:CHUNK=1x2x3x3 OLD"
    )
    with pytest.raises(RawDataError, match=expected):
        scan_hdf5(tmp_path / "a.h5", "val")


def test_image_larger_than_any(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("features", (2, 17, 1024, 1024), "f4", fillvalue=1)
        made[1, 0, 0, 0] = 1
    with pytest.raises(
        RawDataError, match=r"takes 68.0 MiB, one image may take 64.0 MiB: no image"
    ):
        scan_hdf5(tmp_path / "a.h5", "val")


def test_more_images_than_there_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_grid(tmp_path / "a.h5", data=np.ones((4, 2, 3, 3))).file.close()
    monkeypatch.setattr(hdf5_images, "_MAX_IMAGES", 3)
    with pytest.raises(RawDataError, match="dataset features: claims 4 images, at most 3 are exp"):
        scan_hdf5(tmp_path / "a.h5", "val")


def with_raw_chunk(path: Path, data: bytes, mask: int = 0, **storage: Any) -> Hdf5Images:
    """A file whose image 1 is this chunk as it stands."""
    made = with_grid(path, dtype="f4", chunks=(1, 2, 3, 3), **storage)
    made[...] = 1
    made.id.write_direct_chunk((1, 0, 0, 0), data, mask)
    made.file.close()
    images = scan_hdf5(path, "val")
    assert (images.read(0).features == 1).all()
    return images


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no zlib", "Error -3 while decompressing"),
        (zlib.compress(bytes(72))[:-1], "its compressed data do not end"),
        (zlib.compress(bytes(71)), "holds 71 bytes, expected 72"),
        (zlib.compress(bytes(10**8)), r"\d+ bytes for 72: damaged|its compressed data do not end"),
        (bytes(5000), "5000 bytes for 72: damaged"),
    ],
)
def test_damaged_chunk_is_an_error_of_its_image(tmp_path: Path, data: bytes, message: str) -> None:
    images = with_raw_chunk(tmp_path / "a.h5", data, compression="gzip")
    place = r"a.h5, dataset features, image 1, chunk at byte \d+: "
    with pytest.raises(RawDataError, match=place + f"({message})"):
        images.read(1)


def test_filters_that_a_chunk_skipped(tmp_path: Path) -> None:
    values = np.arange(18, dtype=np.float32)
    images = with_raw_chunk(tmp_path / "a.h5", values.tobytes(), 1, compression="gzip")
    np.testing.assert_array_equal(images.read(1).features.ravel(), values)


def test_checksum_that_does_not_fit(tmp_path: Path) -> None:
    images = with_raw_chunk(tmp_path / "a.h5", bytes(72) + b"abcd", fletcher32=True)
    with pytest.raises(RawDataError, match=r"image 1, chunk at byte .*: its checksum does not fit"):
        images.read(1)


@pytest.mark.parametrize("size", [1, 2, 721, 3 << 20])
@pytest.mark.parametrize("kind", ["random", "ones"])
def test_checksums_of_any_length(tmp_path: Path, size: int, kind: str) -> None:
    """libhdf5 computes the sum that is checked; a byte array has odd lengths too."""
    rng = np.random.default_rng(size)
    values = rng.integers(0, 256, size, np.uint8) if kind == "random" else np.full(size, 255, "u1")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("x", data=values, chunks=(size,), fletcher32=True)
        _, data = made.id.read_direct_chunk((0,))
    found = hdf5_rows._strip_checksum(np.frombuffer(data, np.uint8), "x")
    np.testing.assert_array_equal(found, values)
    with pytest.raises(RawDataError, match="its checksum does not fit"):
        hdf5_rows._strip_checksum(np.frombuffer(b"\x07" + data[1:], np.uint8), "x")
