"""Word vectors cut to a vocabulary: the starting values of a model's word embeddings.

A table is float32 (V, w): V tokens in id order, w numbers each; a row of zeros is a token without
a vector. It is kept beside the arrays in ``vectors/<name>.safetensors`` as the tensor ``vectors``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from trar.errors import REMAKE, StoreError
from trar.fileio import atomic_write, disk_errors

FOLDER = "vectors"
_TENSOR = "vectors"


class VectorsEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table: its file, shape, how many of its tokens have a vector, and its digest.

    ``digest`` is the sha256 of the table's little-endian float32 bytes; ``made_from`` names the
    source for people, such as "en_vectors_web_lg 2.1.0".
    """

    file: str
    name: str
    width: int
    tokens: int
    covered: int
    digest: str
    made_from: str


def write_vectors(
    folder: Path, name: str, table: NDArray[np.float32], covered: int, made_from: str
) -> VectorsEntry:
    """Write a table (V, w) into the dataset ``folder``, atomically; equal tables, equal bytes.

    Raises:
        DiskError: no space or no permission.
    """
    assert table.ndim == 2, table.shape
    file_name = f"{FOLDER}/{name}.safetensors"
    plain = np.ascontiguousarray(table, "<f4")
    with disk_errors(folder):
        (folder / FOLDER).mkdir(exist_ok=True)
    with atomic_write(folder / file_name) as file:
        file.write(save({_TENSOR: plain}))
    tokens, width = plain.shape
    return VectorsEntry(file_name, name, width, tokens, covered, _digest(plain), made_from)


def read_vectors(folder: Path, entry: VectorsEntry) -> NDArray[np.float32]:
    """The table (V, w) of an entry of the dataset ``folder``.

    Raises:
        StoreError: missing, damaged, or of another shape than the entry says.
    """
    path = folder / entry.file
    try:
        with disk_errors(path):
            data = path.read_bytes()
        table = load(data)[_TENSOR]
    except (OSError, SafetensorError, KeyError) as error:
        raise StoreError(f"{path}: the word vectors cannot be read ({error}); {REMAKE}") from error
    if table.dtype != np.float32 or table.shape != (entry.tokens, entry.width):
        raise StoreError(
            f"{path}: the word vectors are {table.dtype} {table.shape}, store.json says float32 "
            f"({entry.tokens}, {entry.width}); {REMAKE}"
        )
    digest = _digest(table)
    if digest != entry.digest:
        raise StoreError(
            f"{path}: the word vectors do not match their sha256 (expected {entry.digest[:12]}…, "
            f"found {digest[:12]}…): damaged; {REMAKE}"
        )
    return table


def _digest(table: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(table, "<f4").data).hexdigest()
