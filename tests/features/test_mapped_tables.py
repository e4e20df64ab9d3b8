"""Tables of a store are maps of its files: checked, read-only, and no memory of the process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stores import make_store
from zarr.codecs import Crc32cCodec

from trar.errors import StoreError
from trar.features import FeatureStore
from trar.features.hdf5_backend import Hdf5Backend
from trar.features.mapped import SMALL_BYTES
from trar.features.schema import Container
from trar.features.zarr_backend import ZarrBackend
from trar.features.zarr_columns import map_column, write_column

BACKENDS = {"zarr": ZarrBackend, "hdf5": Hdf5Backend}
LARGE = np.arange(SMALL_BYTES, dtype=np.int64)
TABLE = {
    "ids": LARGE,
    "label": LARGE.astype(np.int32)[::-1].copy(),
    "score": np.linspace(0, 1, len(LARGE), dtype=np.float32),
    "type": (LARGE % 7).astype(np.uint8),
    "kind": (LARGE % 300).astype(np.uint16),
    "pairs": LARGE.reshape(-1, 2),
    "small": np.arange(3),
    "none": np.zeros(0, np.float32),
}


def is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return type(getattr(base, "obj", base)).__name__ == "mmap"


@pytest.fixture(params=BACKENDS)
def container(request: pytest.FixtureRequest) -> Container:
    return request.param


def test_large_columns_are_mapped_and_cannot_be_written(
    container: Container, tmp_path: Path
) -> None:
    backend = BACKENDS[container](tmp_path)
    backend.write_table("questions/train", TABLE)
    found = backend.read_table("questions/train")
    assert sorted(found) == sorted(TABLE)
    for name, values in TABLE.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
        assert is_mapped(found[name]) == (values.nbytes >= SMALL_BYTES), name
    with pytest.raises(ValueError, match="read-only"):
        found["ids"][0] = 1


def test_a_column_is_one_chunk_to_other_tools(container: Container, tmp_path: Path) -> None:
    big = {"ids": np.arange((1 << 20) + 5)}
    BACKENDS[container](tmp_path).write_table("questions/train", big)
    if container == "zarr":
        array = zarr.open_array(tmp_path / "arrays.zarr/questions/train/ids", mode="r")
        assert array.chunks == array.shape
        np.testing.assert_array_equal(array[:], big["ids"])
    else:
        with h5py.File(tmp_path / "tables/questions/train.h5", "r") as file:
            assert file["ids"].chunks == file["ids"].shape
            assert file["ids"].fletcher32
            np.testing.assert_array_equal(file["ids"][:], big["ids"])


@pytest.mark.parametrize("name", ["ids", "small"])
def test_flipped_byte_of_a_column_is_found_when_it_is_read(
    container: Container, tmp_path: Path, name: str
) -> None:
    backend = BACKENDS[container](tmp_path)
    backend.write_table("questions/train", TABLE)
    path, place = tmp_path / f"arrays.zarr/questions/train/{name}/c/0", 17
    if container == "hdf5":
        path = tmp_path / "tables/questions/train.h5"
        with h5py.File(path, "r") as file:
            place = file[name].id.get_chunk_info(0).byte_offset + 17
    data = bytearray(path.read_bytes())
    data[place] ^= 32
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"questions/train.*does not match its crc32c.*prepare th"):
        backend.read_table("questions/train")


def test_column_of_another_length(tmp_path: Path) -> None:
    backend = ZarrBackend(tmp_path)
    backend.write_table("questions/train", TABLE)
    path = tmp_path / "arrays.zarr/questions/train/ids/c/0"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StoreError, match=r"ids/c/0 has \d+ bytes, expected \d+"):
        backend.read_table("questions/train")
    path.unlink()
    with pytest.raises(StoreError, match=r"No such file"):
        backend.read_table("questions/train")


@settings(max_examples=30, deadline=None)
@given(
    values=arrays.arrays(
        st.sampled_from(["bool", "uint8", "uint16", "int32", "int64", "float32", "float64"]),
        arrays.array_shapes(max_dims=2, min_side=0),
    )
)
def test_zarr_python_reads_what_is_written_as_a_column(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("column")
    files = write_column(folder, "a/b", values)
    found = sorted(str(p.relative_to(folder)) for p in (folder / "a/b").rglob("*") if p.is_file())
    assert found == sorted(files)
    np.testing.assert_array_equal(zarr.open_array(folder / "a/b", mode="r")[...], values)
    mapped = map_column(folder / "a/b")
    if values.dtype == np.float64 or not values.size:
        assert mapped is None  # not a type of the store's, or no chunk: zarr-python's to read
    else:
        np.testing.assert_array_equal(mapped, values)


def test_columns_of_several_chunks_are_still_read(tmp_path: Path) -> None:
    """Stores of earlier versions have a chunk for each 2^20 numbers."""
    ZarrBackend(tmp_path / "z").write_table("questions/train", TABLE)
    array = zarr.create_array(
        tmp_path / "z/arrays.zarr",
        name="questions/train/ids",
        shape=LARGE.shape,
        dtype=LARGE.dtype,
        chunks=(1000,),
        filters=None,
        compressors=[Crc32cCodec()],
        overwrite=True,
    )
    array[:] = LARGE + 1
    np.testing.assert_array_equal(
        ZarrBackend(tmp_path / "z").read_table("questions/train")["ids"], LARGE + 1
    )
    backend = Hdf5Backend(tmp_path / "h")
    backend.write_table("questions/train", TABLE)
    with h5py.File(tmp_path / "h/tables/questions/train.h5", "a") as file:
        checksum = file["ids"].attrs["crc32c"]
        del file["ids"]
        file.create_dataset("ids", data=LARGE, chunks=(1000,), fletcher32=True)
        file["ids"].attrs["crc32c"] = checksum
    np.testing.assert_array_equal(backend.read_table("questions/train")["ids"], LARGE)


ANONYMOUS = """
import sys
from pathlib import Path
import numpy as np
from trar.features.containers import open_backend

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024

backend = open_backend(Path(sys.argv[1]), sys.argv[2])
backend.read_table("small")
before = anonymous()
table = backend.read_table("large")
total = sum(int(column.sum()) for column in table.values())
print(anonymous() - before, sum(column.nbytes for column in table.values()), total)
"""


def test_tables_take_no_memory_of_the_process(container: Container, tmp_path: Path) -> None:
    """In a process of its own: 32 MiB of columns, read whole, add less than a tenth of that."""
    backend = BACKENDS[container](tmp_path)
    backend.write_table("small", {"a": np.arange(SMALL_BYTES)})
    values = np.arange(1 << 21)
    backend.write_table("large", {"a": values, "b": values})
    done = subprocess.run(
        [sys.executable, "-c", ANONYMOUS, str(tmp_path), container],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, size_bytes, total = map(int, done.stdout.split())
    assert (size_bytes, total) == (2 * values.nbytes, 2 * int(values.sum()))
    assert grown < size_bytes / 10


def test_chunk_table_that_is_not_the_listed_one(container: Container, tmp_path: Path) -> None:
    """It may lead to another image, sound in itself: no checksum of a chunk would tell."""
    made = make_store(tmp_path / "made", container=container).path
    shutil.copytree(made, tmp_path / "tiny")
    path = tmp_path / "tiny/chunk-table/train.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    store = FeatureStore(tmp_path / "tiny", verify_reads="none")
    with pytest.raises(StoreError, match=r"train.safetensors: the chunk table cannot be read"):
        store.read("train", [0])
