"""Where the arrays of an HDF5 file lie, found by a process that may die of it.

`hdf5_probe` asks libhdf5 in a child with limits of memory and time; here its answer is checked
against the file's size, so that `hdf5_rows` can read the bytes itself.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.fileio import disk_errors
from trar.pipeline.readers.archive_bytes import Archive

TIMEOUT_S = 120
_PROBE = Path(__file__).with_name("hdf5_probe.py")
_BYTES_PER_SECOND = 1 << 28  # added to the timeout: a chunk table's pages lie all over the file
_MAX_ANSWER_BYTES = 16 << 20
_AGAIN = "copy or download it again"
_NUMBER = re.compile("[<>](?:f[248]|[iu][1248])")


class _Entry(msgspec.Struct):
    name: str
    type: str
    shape: list[int]
    problem: str | None = None
    offset: int | None = None
    chunk: list[int] | None = None
    filters: list[tuple[int, str]] = []
    chunks: int | None = None


class _Answer(msgspec.Struct):
    datasets: list[_Entry] = []
    error: str | None = None


@dataclass(frozen=True)
class Dataset:
    """One array of a file.

    ``offset`` is where it begins if it lies in one piece. Else it is cut into pieces of shape
    ``chunk``, each passed through ``filters`` (HDF5's code and name, in the order of writing), and
    ``table`` (chunks, 3) int64 has each one's offset, stored bytes, and skipped filters by bit.
    ``problem`` says why its values cannot be read at all.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    problem: str | None = None
    offset: int | None = None
    chunk: tuple[int, ...] | None = None
    filters: tuple[tuple[int, str], ...] = ()
    table: NDArray[np.int64] | None = None

    def describe(self) -> str:
        """``image_features (5, 36, 2048) float32``, for messages."""
        known = _NUMBER.fullmatch(self.type)
        return f"{self.name} {self.shape} {np.dtype(self.type).name if known else self.type}"


def read_layout(file: Archive) -> dict[str, Dataset]:
    """Every dataset of a file by name.

    Raises:
        RawDataError: empty, not HDF5, cut short, or so damaged that libhdf5 dies of it.
        DiskError: no space for the list of its chunks in the temporary folder.
    """
    path, size = file.path, file.size
    if size == 0:
        raise RawDataError(f"{path}: an empty file; {_AGAIN}")
    with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as output:
        _run_probe(path, size, output)
        output.seek(0)
        return _parse(path, size, output)


def _run_probe(path: Path, size: int, output: BinaryIO) -> None:
    """Run the child, which writes its answer to ``output``."""
    seconds = TIMEOUT_S + size // _BYTES_PER_SECOND
    environment = {
        **os.environ,
        # the child finds its packages where this process does, and none in the folder it runs in
        "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
        "OPENBLAS_NUM_THREADS": "1",  # each thread would take its share of the memory allowed
    }
    command = [sys.executable, "-P", str(_PROBE), str(path.absolute()), str(seconds)]
    with tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaints,
                env=environment,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RawDataError(
                f"{path}: libhdf5 found no end of it in {seconds} seconds: damaged, or on a disk "
                f"that does not answer; {_AGAIN}"
            ) from None
        complaints.seek(max(0, os.fstat(complaints.fileno()).st_size - 2000))
        lines = complaints.read().decode("ascii", "replace").split("\n")
    if done.returncode < 0:
        raise RawDataError(
            f"{path}: libhdf5 died of it ({_signal_name(-done.returncode)}): damaged; {_AGAIN}"
        )
    complaint = next((line for line in reversed(lines) if line.strip()), "no answer")
    if done.returncode > 0:
        raise RawDataError(f"{path}: libhdf5 gave no account of it ({complaint[:200]}); {_AGAIN}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _parse(path: Path, size: int, output: BinaryIO) -> dict[str, Dataset]:
    line = output.readline(_MAX_ANSWER_BYTES)
    try:
        answer = msgspec.json.decode(line, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RawDataError(f"{path}: libhdf5 gave no account of it; {_AGAIN}") from None
    if answer.error is not None:
        raise RawDataError(
            f"{path}: not readable as HDF5 ({answer.error}); {size} bytes: another kind of file, "
            f"cut short or damaged; {_AGAIN}"
        )
    datasets = {}
    for entry in answer.datasets:
        table = None
        if entry.chunks is not None:
            table = _read_table(output, entry.chunks)
        datasets[entry.name] = _check(entry, table, size)
    return datasets


def _read_table(output: BinaryIO, chunks: int) -> NDArray[np.int64] | None:
    """The next table, or None if it is not there whole."""
    left = os.fstat(output.fileno()).st_size - output.tell()
    if not 0 <= chunks <= left // 24:
        return None
    return np.frombuffer(output.read(24 * chunks), np.int64).reshape(-1, 3)


def _check(entry: _Entry, table: NDArray[np.int64] | None, size: int) -> Dataset:
    """The dataset, or one with a problem where its claims do not fit the file."""
    shape, problem = tuple(entry.shape), entry.problem
    if problem is None:
        problem = _find_problem(entry, table, size)
    if problem is not None:
        return Dataset(entry.name, entry.type, shape, problem)
    chunk = None if entry.chunk is None else tuple(entry.chunk)
    filters = tuple(entry.filters)
    return Dataset(entry.name, entry.type, shape, None, entry.offset, chunk, filters, table)


def _find_problem(entry: _Entry, table: NDArray[np.int64] | None, size: int) -> str | None:
    if not _NUMBER.fullmatch(entry.type):
        return f"its type is {entry.type}"
    item = np.dtype(entry.type).itemsize
    if not entry.shape or min(entry.shape) < 0:
        return "it has no shape"
    if entry.offset is not None:
        end = entry.offset + item * math.prod(entry.shape)
        if entry.offset >= 0 and end <= size:
            return None
        return f"its header claims {end} bytes of a file of {size}: cut short or damaged; {_AGAIN}"
    chunk = entry.chunk
    if chunk is None or table is None or len(chunk) != len(entry.shape) or min(chunk) < 1:
        return f"its header does not say where its values are: damaged; {_AGAIN}"
    grid = [-(-length // step) for length, step in zip(entry.shape, chunk, strict=True)]
    offsets, stored = table[:, 0], table[:, 1]
    # compared without adding: a sum of two hostile numbers would wrap around
    inside = (offsets >= 0) & (stored >= 0) & (offsets <= size) & (stored <= size - offsets)
    if len(table) != math.prod(grid) or not inside.all():
        return f"its table of chunks leads outside of the file of {size} bytes: damaged; {_AGAIN}"
    if not entry.filters and (stored != item * math.prod(chunk)).any():
        return f"its chunks are not of the size that its header states: damaged; {_AGAIN}"
    return None
