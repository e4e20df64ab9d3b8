"""HDF5 files that are cut, foreign, or claim what is not there; libhdf5 may die of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_files import STORAGE, coco_regions, save_fixed, with_grid
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers import hdf5_layout, hdf5_probe
from trar.pipeline.readers.hdf5_images import scan_hdf5


@pytest.fixture(scope="module")
def real() -> dict[str, NDArray[Any]]:
    return coco_regions()


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
