"""The table of word vectors beside the arrays: equal bytes for equal tables, damage is noticed."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from trar.errors import StoreError
from trar.features.vectors import VectorsEntry, read_vectors, write_vectors

TABLE = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5))))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("v")
    entry = write_vectors(folder, "glove", table, 1, "glove.txt")
    assert (entry.tokens, entry.width) == table.shape
    assert read_vectors(folder, entry).tobytes() == table.tobytes()
    first = (folder / entry.file).read_bytes()
    again = write_vectors(folder, "glove", np.asfortranarray(table), 1, "glove.txt")
    assert (again, (folder / entry.file).read_bytes()) == (entry, first)


def test_the_entry_says_what_there_is(tmp_path: Path) -> None:
    entry = write_vectors(tmp_path, "glove.6d", TABLE, 5, "glove.6d.txt")
    assert entry.file == "vectors/glove.6d.safetensors"
    assert (entry.name, entry.width, entry.tokens, entry.covered) == ("glove.6d", 3, 7, 5)
    assert entry.made_from == "glove.6d.txt"
    assert [path.name for path in (tmp_path / "vectors").iterdir()] == ["glove.6d.safetensors"]
    assert msgspec.convert(msgspec.to_builtins(entry), VectorsEntry) == entry


def test_what_is_damaged_is_refused(tmp_path: Path) -> None:
    entry = write_vectors(tmp_path, "glove", TABLE, 5, "glove.txt")
    path = tmp_path / entry.file
    whole = path.read_bytes()
    with_other_shape = save({"vectors": TABLE[:6]})
    as_float64 = save({"vectors": TABLE.astype(np.float64)})
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for data, message in {
        whole[:-1]: "cannot be read",
        b"": "cannot be read",
        save({"table": TABLE}): "cannot be read ('vectors')",
        with_other_shape: "are float32 (6, 3), store.json says float32 (7, 3)",
        as_float64: "are float64 (7, 3), store.json says float32 (7, 3)",
        bytes(flipped): "do not match their sha256",
    }.items():
        path.write_bytes(data)
        with pytest.raises(StoreError, match=re.escape(message)) as caught:
            read_vectors(tmp_path, entry)
        assert str(caught.value).startswith(f"{path}: the word vectors ")
        assert "prepare this dataset again" in str(caught.value)
    path.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        read_vectors(tmp_path, entry)


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    entry = write_vectors(tmp_path, "glove", TABLE, 5, "glove.txt")
    tensors = load((tmp_path / entry.file).read_bytes())
    np.testing.assert_array_equal(tensors["vectors"], TABLE)
