"""HDF5 files of features: every layout and way of storing, read without trusting libhdf5."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers import hdf5_images, hdf5_layout, hdf5_probe, hdf5_rows
from trar.pipeline.readers.hdf5_images import Hdf5Images, scan_hdf5
from trar.pipeline.readers.image import Form

DATA = Path(__file__).parents[1] / "data"
STORAGE: dict[str, dict[str, Any]] = {
    "one piece": {},
    "chunks": {"chunks": (2, 5, 7)},
    "chunk per image": {"chunks": (1, 12, 24), "compression": "gzip"},
    "gzip": {"chunks": (3, 5, 24), "compression": "gzip"},
    "shuffled gzip": {"chunks": (3, 12, 7), "compression": "gzip", "shuffle": True},
    "checksums": {"chunks": (3, 5, 7), "fletcher32": True},
    "everything": {"chunks": (2, 5, 7), "compression": 9, "shuffle": True, "fletcher32": True},
    "larger than the array": {"chunks": (16, 16, 32), "maxshape": (None,) * 3, "compression": 1},
}


@pytest.fixture(scope="module")
def real() -> dict[str, NDArray[Any]]:
    """8 images of 12 regions of COCO, in an order that is not that of their ids."""
    with np.load(DATA / "MILVLG-rosita/regions_cut.npz") as archive:
        order = [3, 0, 7, 1, 5, 2, 6, 4]
        return {name: archive[name][order] for name in archive.files}


def spatial(boxes: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.float32]:
    """x1 y1 x2 y2 w h relative to the image, as detection_features_converter.py computes them."""
    scale = np.stack([sizes[:, 1], sizes[:, 0]] * 2, 1).astype(np.float32)
    x1, y1, x2, y2 = np.moveaxis(boxes / scale[:, None], -1, 0)
    return np.stack([x1, y1, x1 + (x2 - x1), y1 + (y2 - y1), x2 - x1, y2 - y1], -1)


def save_ids(path: Path, ids: Sequence[int]) -> None:
    table = {image_id: row for row, image_id in enumerate(ids)}
    path.with_name(f"{path.stem}_imgid2idx.pkl").write_bytes(pickle.dumps(table, 2))


def save_fixed(
    path: Path, real: dict[str, NDArray[Any]], dtype: str = "<f4", **storage: Any
) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("image_features", data=real["x"].astype(dtype), **storage)
        file["image_bb"] = real["boxes"]
        file["spatial_features"] = spatial(real["boxes"], real["sizes"])
    save_ids(path, real["ids"].tolist())
    return path


def check_fixed(images: Hdf5Images, real: dict[str, NDArray[Any]], dtype: str = "<f4") -> None:
    ids = real["ids"].tolist()
    assert images.ids.tolist() == [one for one in sorted(ids) if one in images.ids]
    for row, image_id in enumerate(images.ids.tolist()):
        place = ids.index(image_id)
        raw = images.read(row)
        assert raw.features.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(raw.features, real["x"][place].astype(dtype))
        np.testing.assert_array_equal(raw.boxes, real["boxes"][place])
        assert raw.size == tuple(real["sizes"][place].tolist())
        assert images.regions(row) == 12


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
def test_fixed_regions(tmp_path: Path, real: dict[str, NDArray[Any]], storage: Any) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real, **storage)
    images = scan_hdf5(path, "val2014")
    assert len(images) == 8
    check_fixed(images, real)
    for start, stop in ((0, 3), (2, 8), (7, 8), (0, 8)):
        part = pickle.loads(pickle.dumps(images.part(start, stop)))
        assert len(part) == stop - start
        check_fixed(part, real)
        check_fixed(part.part(0, 1), real)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("storage", ["one piece", "everything"])
def test_types_and_byte_orders(
    tmp_path: Path, real: dict[str, NDArray[Any]], dtype: str, storage: str
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real, dtype, **STORAGE[storage])
    check_fixed(scan_hdf5(path, "val2014"), real, dtype)


@pytest.mark.parametrize("storage", [{}, {"chunks": (5, 7), "compression": "gzip"}])
@pytest.mark.parametrize("positions", [{}, {"chunks": (3, 1), "shuffle": True, "compression": 1}])
def test_adaptive_regions(tmp_path: Path, storage: Any, positions: Any) -> None:
    rng = np.random.default_rng(0)
    counts = [4, 1, 9, 3]
    ends = np.cumsum(counts)
    ids = [9, 3, 7, 5]
    x, boxes = rng.random((17, 8), np.float32), rng.random((17, 4), np.float32)
    path = tmp_path / "train.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image_features", data=x, **storage)
        file["image_bb"] = boxes
        starts = np.stack([ends - counts, ends], 1).astype("i4")
        file.create_dataset("pos_boxes", data=starts, **positions)
    save_ids(path, ids)
    images = scan_hdf5(path, "train2014")
    for one in (images, pickle.loads(pickle.dumps(images.part(1, 3)))):
        for row, image_id in enumerate(one.ids.tolist()):
            place = ids.index(image_id)
            chosen = slice(ends[place] - counts[place], ends[place])
            raw = one.read(row)
            np.testing.assert_array_equal(raw.features, x[chosen])
            np.testing.assert_array_equal(raw.boxes, boxes[chosen])
            assert raw.size is None
            assert one.regions(row) == counts[place]


@pytest.mark.parametrize("bad", [(-1, 3), (3, 3), (5, 3), (3, 18), (-(2**62), 2**62)])
@pytest.mark.parametrize("storage", [{}, {"chunks": (5, 8)}])
def test_ranges_outside_concern_their_image_alone(
    tmp_path: Path, bad: tuple[int, int], storage: Any
) -> None:
    path = tmp_path / "train.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image_features", data=np.ones((17, 8), np.float32), **storage)
        file["image_bb"] = np.ones((17, 4), np.float32)
        file["pos_boxes"] = np.array([[0, 4], bad])
    save_ids(path, [9, 3])
    images = scan_hdf5(path, "train2014").part(0, 2)
    assert images.regions(1) == len(images.read(1).features) == 4
    for ask in (images.read, images.regions):
        with pytest.raises(RawDataError, match=r"image 3: its regions are said to be .* of 17"):
            ask(0)


@pytest.mark.parametrize("storage", [{}, {"chunks": (2, 3, 4, 4), "compression": "gzip"}])
def test_grid_of_clevr(tmp_path: Path, storage: Any) -> None:
    values = np.random.default_rng(0).random((5, 6, 7, 7), np.float32)
    with h5py.File(tmp_path / "val.h5", "w") as file:
        file.create_dataset("features", data=values, **storage)
    images = scan_hdf5(tmp_path / "val.h5", "val")
    assert images.ids.tolist() == [0, 1, 2, 3, 4]
    assert images.name(3) == f"{tmp_path}/val.h5, dataset features, image 3"
    for row in range(5):
        raw = images.with_form(Form(7)).read(row)
        np.testing.assert_array_equal(raw.features, values[row])
        assert (raw.boxes, raw.size) == (None, None)
        assert images.regions(row) == 49
    np.testing.assert_array_equal(images.part(3, 5).read(1).features, values[4])


def test_ids_of_another_place(tmp_path: Path, real: dict[str, NDArray[Any]]) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    table = (tmp_path / "val36_imgid2idx.pkl").rename(tmp_path / "ids.pkl")
    with pytest.raises(RawDataError, match=r"val36_imgid2idx.pkl or val36_imgid2idx.json, is not"):
        scan_hdf5(path, "val2014")
    check_fixed(scan_hdf5(path, "val2014", table), real)
    names = {f"COCO_val2014_{one:012}": row for row, one in enumerate(real["ids"].tolist())}
    (tmp_path / "val36_imgid2idx.json").write_text(json.dumps({"VQA_imgid2id": names}))
    check_fixed(scan_hdf5(path, "val2014"), real)
    with pytest.raises(RawDataError, match=r"an image of val2014 .* among those of train2014"):
        scan_hdf5(path, "train2014")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 1, 2, 3, 4, 5, 6], "7 image ids, val36.hdf5 has 8 images; they are not of one"),
        ([0, 1, 2, 3, 4, 5, 6, 6], "the rows are not 0 to 7, each once"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "the rows are not 0 to 7, each once"),
    ],
)
def test_ids_that_do_not_fit(
    tmp_path: Path, real: dict[str, NDArray[Any]], rows: list[int], message: str
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    table = dict(zip(range(100, 108), rows, strict=False))
    (tmp_path / "val36_imgid2idx.pkl").write_bytes(pickle.dumps(table))
    with pytest.raises(RawDataError, match=f"val36_imgid2idx.pkl: {message}"):
        scan_hdf5(path, "val2014")


@pytest.mark.parametrize(
    ("column", "value"), [(2, 0.0), (3, np.nan), (2, -1.0), (3, 1e-9), (2, 7.0)]
)
def test_sizes_that_cannot_be_told(
    tmp_path: Path, real: dict[str, NDArray[Any]], column: int, value: float
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    with h5py.File(path, "r+") as file:
        file["spatial_features"][:, :, column] = value
    raw = scan_hdf5(path, "val2014").read(0)
    assert raw.size is None
    assert raw.boxes is not None


def test_spatial_features_of_another_form_are_left_alone(
    tmp_path: Path, real: dict[str, NDArray[Any]]
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    with h5py.File(path, "r+") as file:
        del file["spatial_features"]
        file["spatial_features"] = np.zeros((8, 12, 5))
    assert scan_hdf5(path, "val2014").read(0).size is None


def test_real_file_of_questions_is_an_unknown_layout() -> None:
    expected = (
        r"orig-val.h5: not a layout known here: it holds answers \(9,\) int64, .*"
        r"programs \(9, 16\) int32, .*; expected features \(N, f, g, g\) as clevr-iep"
    )
    with pytest.raises(RawDataError, match=expected):
        scan_hdf5(DATA / "kexinyi-ns-vqa/orig-val.h5", "val")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "it holds no dataset"),
        ({"features": (5, 196, 1024)}, r"it holds features \(5, 196, 1024\) float32"),
        ({"features": (5, 8, 7, 6)}, "it holds features"),
        ({"features": (0, 8, 7, 7)}, "it holds features"),
        ({"image_features": (5, 6, 8)}, "it holds image_features"),
        ({"image_features": (5, 6, 8), "image_bb": (5, 7, 4)}, r"it holds image_bb \(5, 7, 4\)"),
        ({"image_features": (5, 8), "image_bb": (5, 4)}, "it holds image_bb"),
        ({"image_features": (5, 8), "image_bb": (5, 4), "pos_boxes": (2, 3)}, "it holds image_bb"),
        ({"group/features": (5, 8, 7, 7)}, "it holds group/features"),
    ],
)
def test_unknown_layouts(tmp_path: Path, shapes: dict[str, Any], message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, shape in shapes.items():
            file[name] = np.ones(shape, np.float32)
    with pytest.raises(RawDataError, match=f"a.h5: not a layout known here: {message}"):
        scan_hdf5(tmp_path / "a.h5", "val")


def with_grid(path: Path, **storage: Any) -> h5py.Dataset:
    """``features`` (4, 2, 3, 3) in a file that stays open while its dataset is alive."""
    return h5py.File(path, "w").create_dataset("features", (4, 2, 3, 3), **storage)


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


def test_files_that_are_no_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(RawDataError, match=r"a.h5: missing"):
        scan_hdf5(path, "val")
    path.touch()
    with pytest.raises(RawDataError, match=r"a.h5: an empty file"):
        scan_hdf5(path, "val")
    path.write_bytes(b"<html>" * 100)
    with pytest.raises(
        RawDataError, match=r"a.h5: not readable as HDF5 \(.*signature.*600 bytes: a"
    ):
        scan_hdf5(path, "val")
    with h5py.File(path, "w", userblock_size=512) as file:
        file["features"] = np.ones((4, 2, 3, 3))
    with pytest.raises(RawDataError, match="it begins with a user block of 512 bytes"):
        scan_hdf5(path, "val")
    with h5py.File(path, "w") as file:
        for number in range(1000):
            file[str(number)] = np.zeros(1)
    with pytest.raises(RawDataError, match="it holds 1000 datasets or more"):
        scan_hdf5(path, "val")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("storage", ["one piece", "everything"])
def test_cut_file_is_refused(
    tmp_path: Path, real: dict[str, NDArray[Any]], share: float, storage: str
) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real, **STORAGE[storage])
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(RawDataError, match=r"val36.hdf5: not readable as HDF5 \(.*truncated file"):
        scan_hdf5(path, "val2014")


def test_file_cut_after_the_scan(tmp_path: Path, real: dict[str, NDArray[Any]]) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    images = scan_hdf5(path, "val2014")
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(RawDataError, match=r"val36.hdf5: .*9000"):
        images.read(4)


PROBES = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": r"libhdf5 died of it \(SIGSEGV\)",
    "import os; os.kill(os.getpid(), 40)": r"libhdf5 died of it \(.*40\)",
    "import time; time.sleep(60)": "libhdf5 found no end of it in 1 seconds",
    "raise MemoryError('much')": r"libhdf5 gave no account of it \(MemoryError: much\)",
    "": "libhdf5 gave no account of it; copy",
    "print('{')": "libhdf5 gave no account of it; copy",
    "print('[]')": "libhdf5 gave no account of it; copy",
    "print('{\"datasets\": [{}]}')": "libhdf5 gave no account of it; copy",
}


@pytest.mark.parametrize(("program", "message"), PROBES.items())
def test_probe_that_dies_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    (tmp_path / "probe.py").write_text(program)
    (tmp_path / "a.h5").write_bytes(b"x")
    monkeypatch.setattr(hdf5_layout, "_PROBE", tmp_path / "probe.py")
    monkeypatch.setattr(hdf5_layout, "TIMEOUT_S", 1 if "sleep" in program else 60)
    with pytest.raises(RawDataError, match=f"a.h5: {message}"):
        scan_hdf5(tmp_path / "a.h5", "val")


ENTRY = {"name": "features", "type": "<f4", "shape": [4, 2, 3, 3]}
CHUNKED = {**ENTRY, "chunk": [1, 2, 3, 3], "chunks": 4}
GOOD_TABLE = [[0, 72, 0]] * 4


@pytest.mark.parametrize(
    ("entry", "table", "message"),
    [
        (ENTRY, [], "its header does not say where its values are"),
        ({**ENTRY, "offset": -8}, [], "its header claims 280 bytes of a file of 1000"),
        ({**ENTRY, "offset": 800}, [], "its header claims 1088 bytes of a file of 1000"),
        ({**ENTRY, "offset": 2**63}, [], "its header claims 9223372036854776096 bytes"),
        ({**ENTRY, "type": "O", "offset": 0}, [], "its type is O"),
        ({**ENTRY, "type": "", "offset": 0}, [], "its type is ;?"),
        (CHUNKED, GOOD_TABLE[:3], "its header does not say where"),
        ({**CHUNKED, "chunks": -1}, GOOD_TABLE, "its header does not say where"),
        ({**CHUNKED, "chunks": 2**60}, GOOD_TABLE, "its header does not say where"),
        ({**CHUNKED, "chunk": [0, 2, 3, 3]}, GOOD_TABLE, "its header does not say where"),
        ({**CHUNKED, "chunk": [4]}, GOOD_TABLE, "its header does not say where"),
        ({**CHUNKED, "chunk": [2, 2, 3, 3]}, GOOD_TABLE, "its table of chunks leads outside"),
        (CHUNKED, [*GOOD_TABLE[:3], [929, 72, 0]], "its table of chunks leads outside"),
        (CHUNKED, [*GOOD_TABLE[:3], [-1, 72, 0]], "its table of chunks leads outside"),
        (CHUNKED, [*GOOD_TABLE[:3], [2**62, 2**62, 0]], "its table of chunks leads outside"),
        (CHUNKED, [*GOOD_TABLE[:3], [8, 71, 0]], "its chunks are not of the size"),
    ],
)
def test_claims_are_compared_with_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: dict[str, Any],
    table: list[list[int]],
    message: str,
) -> None:
    numbers = np.array(table, np.int64).tobytes()
    line = json.dumps({"datasets": [entry]}).encode() + b"\n"
    program = f"import sys; sys.stdout.buffer.write({line + numbers!r})"
    (tmp_path / "probe.py").write_text(program)
    (tmp_path / "a.h5").write_bytes(bytes(1000))
    monkeypatch.setattr(hdf5_layout, "_PROBE", tmp_path / "probe.py")
    with pytest.raises(RawDataError, match=f"a.h5, dataset features: {message}"):
        scan_hdf5(tmp_path / "a.h5", "val")


def test_too_many_chunks_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_grid(tmp_path / "a.h5", data=np.ones((4, 2, 3, 3)), chunks=(1, 1, 1, 1)).file.close()
    answer, tables = hdf5_probe.probe(str(tmp_path / "a.h5"))
    assert answer["datasets"][0]["chunks"] == len(tables[0]) == 72
    monkeypatch.setattr(hdf5_probe, "MAX_CHUNKS", 71)
    answer, tables = hdf5_probe.probe(str(tmp_path / "a.h5"))
    assert answer["datasets"][0]["problem"].startswith("72 chunks are too many; repack it")
    assert not tables


def test_regions_are_no_grid(tmp_path: Path, real: dict[str, NDArray[Any]]) -> None:
    images = scan_hdf5(save_fixed(tmp_path / "val36.hdf5", real), "val2014")
    assert images.with_form(Form(None, 24)) is images
    with pytest.raises(RawDataError, match="regions with boxes, not a 6x6 grid; leave --grid out"):
        images.with_form(Form(6))


def test_fingerprint_follows_the_data(tmp_path: Path, real: dict[str, NDArray[Any]]) -> None:
    path = save_fixed(tmp_path / "val36.hdf5", real)
    images = scan_hdf5(path, "val2014")
    assert images.fingerprint() == scan_hdf5(path, "val2014").fingerprint()
    assert images.part(0, 4).fingerprint() != images.part(4, 8).fingerprint()
    save_ids(path, real["ids"][::-1].tolist())
    other = scan_hdf5(path, "val2014")
    assert other.fingerprint() != images.fingerprint()
    save_fixed(path, {**real, "x": np.concatenate([real["x"]] * 2, axis=2)})
    assert scan_hdf5(path, "val2014").fingerprint() != images.fingerprint()


def test_libhdf5_is_never_loaded_here() -> None:
    code = "import sys, trar.pipeline.readers.hdf5_images; print('h5py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
