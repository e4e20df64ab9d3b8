"""--vectors: cut once into the store, added later without touching anything else, found by runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from raw_data import tree

from trar.cli import data
from trar.errors import RawDataError
from trar.features import FeatureStore, verify_store
from trar.pipeline import PrepareConfig, prepare


@pytest.fixture
def glove(vqa_store: Path, tmp_path: Path) -> Path:
    """Vectors of 5 numbers for all words of the store that have no sign in them, but one."""
    words = [one for one in FeatureStore(vqa_store).vocabulary.tokens if one.isalpha()]
    path = tmp_path / "own.5d.txt"
    lines = [f"{word} {number} 1 2 3 4" for number, word in enumerate(words[:-1])]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_vectors_are_added_to_a_finished_store(
    vqa_raw: Path, vqa_store: Path, glove: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    shutil.copytree(vqa_store, store)
    before = tree(store)
    arguments = ["prepare", "--raw", vqa_raw, "--store", store, "--vectors", glove]
    arguments += ["--shard-images", 20, "--vectors-lookup", "plain"]
    result = CliRunner().invoke(data, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    opened = FeatureStore(store)
    (entry,) = opened.meta.vectors.values()
    assert f"{entry.covered:,} of {entry.tokens:,} tokens" in result.output
    table = opened.vectors()
    assert table is not None
    word = opened.vocabulary.tokens.index("what")
    assert table[word, 1:].tolist() == [1, 2, 3, 4]
    assert int((~table.any(axis=1)).sum()) == entry.tokens - entry.covered > 0
    after = tree(store)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"vqa/store.json"}
    assert after.keys() - before.keys() == {f"vqa/{entry.file}"}
    assert verify_store(store) == []
    moments = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    again = CliRunner().invoke(data, [str(one) for one in arguments])
    assert "already complete, nothing to do" in again.output
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == moments


def test_vectors_of_the_first_prepare_are_the_same(
    vqa_raw: Path, vqa_store: Path, glove: Path, tmp_path: Path
) -> None:
    shutil.copytree(vqa_store, tmp_path / "later")
    settings = {"raw": vqa_raw, "vectors": str(glove), "shard_images": 20, "workers": 0}
    prepare(PrepareConfig(store=tmp_path / "later", **settings))
    prepare(PrepareConfig(store=tmp_path / "first", **settings))
    assert tree(tmp_path / "later") == tree(tmp_path / "first")


def test_verify_finds_changed_vectors(
    vqa_raw: Path, vqa_store: Path, glove: Path, tmp_path: Path
) -> None:
    shutil.copytree(vqa_store, tmp_path / "s")
    prepare(PrepareConfig(raw=vqa_raw, store=tmp_path / "s", vectors=str(glove), shard_images=20))
    path = next((tmp_path / "s/vqa/vectors").iterdir())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    found = [f"{one.where}: {one.what}" for one in verify_store(tmp_path / "s")]
    assert any(path.name in line and "sha256" in line for line in found)
    assert np.array(found).size >= 2  # the file's digest, and the table's own


def test_source_of_vectors_that_is_not_there(vqa_raw: Path, tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"--vectors nowhere\.txt: no such file or folder"):
        prepare(PrepareConfig(raw=vqa_raw, store=tmp_path / "s", vectors="nowhere.txt"))
    assert not (tmp_path / "s").exists()
