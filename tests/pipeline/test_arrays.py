"""Feature arrays out of files: the right array, or one line that names file and member."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.features.schema import FeatureSpec
from trar.pipeline.readers.arrays import read_features
from trar.pipeline.transforms import orient, prepare_image

SPEC = FeatureSpec(64, 5, "float16", (8, 8))


@given(st.integers(1, 70), st.integers(2, 5))
def test_orientations_agree(width: int, grid: int) -> None:
    cells = grid * grid
    values = np.random.default_rng(width).random((cells, width), np.float32)
    np.testing.assert_array_equal(orient(values, grid, "x"), values)
    np.testing.assert_array_equal(
        orient(np.ascontiguousarray(values.T.reshape(width, grid, grid)), grid, "x"), values
    )
    if width != cells:  # a square array is taken as (cells, channels)
        np.testing.assert_array_equal(orient(values.T, grid, "x"), values)


@pytest.mark.parametrize("shape", [(63, 5), (5,), (2, 64, 5), (5, 8, 9), (256, 5), (64,), ()])
def test_other_shapes_are_never_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(RawDataError, match=r"x: shape .* expected \(64, f\)"):
        orient(np.zeros(shape, np.float32), 8, "x")


def test_first_fitting_array_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "9.npz"
    values = np.arange(320, dtype=np.float32).reshape(64, 5)
    objects = np.array([{} for _ in range(64)], object)
    np.savez(path, boxes=np.zeros((3, 4)), info=objects, x=values.T, later=values + 1)
    np.testing.assert_array_equal(read_features(path, 8), values.T)


def test_fortran_order_is_honoured(tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(320, dtype=np.float32).reshape(64, 5))
    np.save(tmp_path / "1.npy", values)
    np.savez(tmp_path / "1.npz", x=values)
    for name in ("1.npy", "1.npz"):
        np.testing.assert_array_equal(read_features(tmp_path / name, 8), values)


def test_archive_without_a_fitting_array_lists_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "9.npz"
    np.savez(path, x=np.zeros((256, 2048), np.float16), boxes=np.zeros((3, 4)))
    with pytest.raises(RawDataError, match=r"9.npz: .*x \(256, 2048\) float16, boxes \(3, 4\)"):
        read_features(path, 8)


def test_object_array_of_an_archive_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "9.npz"
    np.savez(path, x=np.array([{} for _ in range(64)], object))
    with pytest.raises(RawDataError, match="no array of shape"):
        read_features(path, 8)


def huge_header() -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (64, 10**9)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + bytes(100)


def test_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "9.npy").write_bytes(huge_header())
    with zipfile.ZipFile(tmp_path / "9.npz", "w") as archive:
        archive.writestr("x.npy", huge_header())
    for name in ("9.npy", "9.npz"):
        with pytest.raises(RawDataError, match=r"claims 256000000000 bytes .* file holds 100"):
            read_features(tmp_path / name, 8)


@given(position=st.integers(0, 3000), value=st.integers(0, 255), cut=st.integers(0, 3000))
def test_mutated_archives_give_an_array_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "9.npz"
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.random.default_rng(0).random((64, 5), np.float32))
    data = bytearray(stream.getvalue())
    data[position % len(data)] = value
    path.write_bytes(data if cut > len(data) else data[:cut])
    message = ""
    try:
        read_features(path, 8)
    except RawDataError as error:
        message = str(error)
    assert not message or str(path) in message


def test_cells_are_found_before_the_cast() -> None:
    values = np.zeros((64, 5), np.float32)
    values[3, 2] = 1e-20  # becomes 0 in float16, but the cell is there
    image = prepare_image(values, SPEC, "x")
    assert image.cells.nonzero()[0].tolist() == [3]
    assert not image.values.any()


@given(st.floats(-60000, 60000, width=32), st.sampled_from(["float16", "float32", "float64"]))
def test_cast_error_is_stated(value: float, dtype: str) -> None:
    values = np.full((64, 5), value, dtype)
    image = prepare_image(values, SPEC, "x")
    found = np.abs(image.values.astype(np.float64) - values.astype(np.float64)).max()
    assert image.cast_error == pytest.approx(float(found), abs=1e-6)
    assert image.largest_value == pytest.approx(abs(float(values[0, 0])))


def test_infinity_is_refused() -> None:
    values = np.zeros((64, 5), np.float32)
    values[1, 1] = -np.inf
    with pytest.raises(RawDataError, match="1 of 320 values are NaN or infinite"):
        prepare_image(values, SPEC, "x")
