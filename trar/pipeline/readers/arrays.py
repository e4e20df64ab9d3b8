"""Feature arrays from ``.npy`` and ``.npz`` files. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.fileio import disk_errors
from trar.pipeline.transforms import fits_grid

SUFFIXES = (".npy", ".npz")


def read_features(path: Path, grid: int) -> NDArray[Any]:
    """The features of one image: the array of a ``.npy``, or the first array of a ``.npz`` whose
    shape fits the grid.

    Raises:
        RawDataError: unreadable, empty, cut short, an object array, or no array that fits.
    """
    try:
        with disk_errors(path):
            return _read_npz(path, grid) if path.suffix == ".npz" else _read_npy(path)
    except FileNotFoundError:
        raise RawDataError(f"{path}: missing; it was there when this run began") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        size = path.stat().st_size if path.exists() else 0
        what = "empty" if size == 0 else f"not readable as {path.suffix} ({error})"
        raise RawDataError(
            f"{path}: {what}; {size} bytes: cut short or damaged; copy or extract it again"
        ) from error


def _read_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        shape, dtype = _read_header(file)
        _refuse_objects(dtype, str(path))
        _refuse_short(path.stat().st_size - file.tell(), shape, dtype, str(path))
        file.seek(0)
        return np.asarray(np.load(file, allow_pickle=False))


def _read_npz(path: Path, grid: int) -> NDArray[Any]:
    found = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                shape, dtype = _read_header(file)
                header_bytes = file.tell()
            found.append(f"{name} {shape} {dtype}")
            if fits_grid(shape, grid) and not dtype.hasobject:
                where = f"{path}, array {name}"
                _refuse_short(member.file_size - header_bytes, shape, dtype, where)
                with archive.open(member) as file:
                    return np.asarray(npy_format.read_array(file, allow_pickle=False))
    cells = grid * grid
    raise RawDataError(
        f"{path}: no array of shape ({cells}, f), (f, {cells}) or (f, {grid}, {grid}) for a "
        f"{grid}x{grid} grid; it holds {', '.join(found) or 'nothing'}. Use features of that grid, "
        "or --grid for another side"
    )


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(file)
    else:
        shape, _, dtype = npy_format.read_array_header_2_0(file)
    return shape, dtype


def _refuse_objects(dtype: np.dtype[Any], where: str) -> None:
    if dtype.hasobject:
        raise RawDataError(
            f"{where}: an object array; loading it would run code from the file, so it is refused. "
            "Save the features as a plain float array"
        )


def _refuse_short(
    held_bytes: int, shape: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> None:
    """Refuse a header that claims more than the file holds, before memory is set aside for it."""
    claimed = dtype.itemsize
    for size in shape:
        claimed *= size
    if claimed > held_bytes:
        raise RawDataError(
            f"{where}: its header claims {claimed} bytes of {shape} {dtype}, the file holds "
            f"{held_bytes}: cut short or damaged; copy or extract it again"
        )
