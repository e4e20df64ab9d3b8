"""Saved logits: what one model says of every question and answer, for ensembles and inspection.

An ``.npz`` that ``numpy.load`` reads: ``logits`` (q, a) float32 or float16, ``question_ids`` (q,)
int64, ``answers`` (a,) text in label order, and ``about``, JSON of ``LogitsAbout``. It is written
and read in blocks of rows, never whole: test2015 has 447,793 x 3,129 logits, 5.2 GiB.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import ScoreError
from trar.features.reader import FeatureStore
from trar.fileio import atomic_write, disk_errors, need_space

if TYPE_CHECKING:
    from trar.trainer.checkpoint import Checkpoint

LogitsType = Literal["float32", "float16"]

_BLOCK_ROWS = 1024
_REMEDY = "save it again with `trar eval` or `trar predict --save-logits`"


class LogitsAbout(msgspec.Struct, frozen=True):
    """Where logits come from: a question split of a store, and a checkpoint trained on
    ``trained_on``, a sum of splits."""

    dataset: str
    split: str
    store_fingerprint: str
    answers_digest: str
    checkpoint: str
    trained_on: str


@contextlib.contextmanager
def logits_writer(
    path: Path,
    checkpoint: Checkpoint,
    store: FeatureStore,
    split: str,
    kind: LogitsType = "float32",
) -> Iterator[LogitsWriter]:
    """Take the logits of a split block by block and write them to ``path``, atomically.

    Raises:
        DiskError: no room for all of them, found before the first; or ``path`` cannot be written.
    """
    ids, answers = store.questions(split).ids, checkpoint.answers
    about = LogitsAbout(
        store.dataset,
        split,
        store.meta.fingerprint,
        answers.digest,
        str(checkpoint.path),
        "+".join(checkpoint.trained_on),
    )
    shape = (len(ids), len(answers))
    size_bytes = shape[0] * shape[1] * np.dtype(kind).itemsize
    with disk_errors(path):
        need_space(path.parent, size_bytes, f"saving {path.name}")
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        _write_array(archive, "about", np.array(msgspec.json.encode(about).decode()))
        _write_array(archive, "question_ids", np.asarray(ids, np.int64))
        _write_array(archive, "answers", np.array(answers.answers))
        with _member(archive, "logits") as member:
            writer = LogitsWriter(member, shape, kind)
            yield writer
            assert writer.rows == len(ids), "a row of logits for every question"


class LogitsWriter:
    """Rows of logits, in the order of the questions."""

    def __init__(self, member: IO[bytes], shape: tuple[int, int], kind: LogitsType) -> None:
        self.rows = 0
        self._member, self._kind = member, np.dtype(kind)
        header = {"descr": self._kind.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)

    def write(self, logits: NDArray[Any]) -> None:
        """The next rows, (b, a)."""
        self._member.write(np.ascontiguousarray(logits, self._kind).tobytes())
        self.rows += len(logits)


class LogitsFile:
    """A file that ``logits_writer`` wrote; a context manager.

    Raises:
        ScoreError: no such file, or none of logits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with disk_errors(path):
                self._archive = zipfile.ZipFile(path)
            self.about = msgspec.json.decode(str(self._array("about")), type=LogitsAbout)
            self.question_ids: NDArray[np.int64] = self._array("question_ids")
            self.answers: list[str] = self._array("answers").tolist()
            with self._archive.open("logits.npy") as member:
                shape, _, self.kind = _header(member)
        except FileNotFoundError:
            raise ScoreError(f"{path}: no such file; {_REMEDY}") from None
        except IsADirectoryError:
            raise ScoreError(f"{path}: a folder; give a file of saved logits (.npz)") from None
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError, msgspec.DecodeError) as error:
            raise ScoreError(f"{path}: not a file of saved logits ({error}); {_REMEDY}") from None
        expected = (len(self.question_ids), len(self.answers))
        if shape != expected:
            raise ScoreError(
                f"{path}: logits of shape {shape}, expected {expected} for its questions and "
                f"answers; {_REMEDY}"
            )

    def __enter__(self) -> LogitsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()

    def blocks(self, rows: int = _BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
        """All logits, ``rows`` questions at a time, (rows, a).

        Raises:
            ScoreError: damaged.
        """
        row_bytes = len(self.answers) * self.kind.itemsize
        left = len(self.question_ids)
        try:
            with self._archive.open("logits.npy") as member:
                _header(member)
                while left:
                    count = min(rows, left)
                    data = member.read(count * row_bytes)
                    block = np.frombuffer(data, self.kind).reshape(count, -1)
                    yield block.astype(np.float32, copy=False)
                    left -= count
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ScoreError(f"{self.path}: damaged ({error}); {_REMEDY}") from None

    def _array(self, name: str) -> NDArray[Any]:
        with self._archive.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # without a time, so that the same logits are the same bytes
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with _member(archive, name) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _header(member: IO[bytes]) -> tuple[Sequence[int], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version != (1, 0):
        raise ValueError(f"npy version {version}")
    return np.lib.format.read_array_header_1_0(member)
