"""verify finds every kind of damage and names its place."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trar.errors import StoreError
from trar.features import verify_store
from trar.features.schema import FileEntry, fingerprint, read_meta, write_meta
from trar.fileio import sha256_file


@pytest.fixture
def store(vqa_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(vqa_store / "vqa", tmp_path / "vqa")
    return tmp_path / "vqa"


def seal(store: Path) -> None:
    """Record the files as they are now, so that only joins can find what is wrong."""
    meta = read_meta(store)
    files = {
        name: FileEntry((store / name).stat().st_size, sha256_file(store / name))
        for name in meta.files
    }
    meta = msgspec.structs.replace(meta, files=files)
    write_meta(store, msgspec.structs.replace(meta, fingerprint=fingerprint(meta)))


def set_value(store: Path, array: str, index: int, value: int) -> None:
    group = zarr.open_group(store / "arrays.zarr", mode="a")
    group[array][index] = value


def places(store: Path) -> str:
    return "\n".join(f"{problem.where}: {problem.what}" for problem in verify_store(store))


def test_sound_store_has_no_problems(vqa_store: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert verify_store(vqa_store, progress=lambda *step: seen.append(step)) == []
    assert seen[-1][1] == seen[-1][2] > 0


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_flipped_bit_is_found_and_its_file_named(store: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(read_meta(store).files)))
    path = store / name
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    after = bytearray(before)
    after[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(after)
    try:
        assert name in places(store)
    finally:
        path.write_bytes(before)


def test_damage_to_every_file_at_once_names_every_file(store: Path) -> None:
    files = read_meta(store).files
    for name in files:
        data = bytearray((store / name).read_bytes())
        data[len(data) // 2] ^= 1
        (store / name).write_bytes(data)
    found = {problem.where for problem in verify_store(store)}
    assert found >= set(files)


def test_missing_and_cut_and_foreign_files(store: Path) -> None:
    base = "arrays.zarr/images/train2014/features/c"
    (store / base / "0/0/0").unlink()
    shard = store / base / "1/0/0"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-7])
    (store / "notes.txt").write_text("mine")
    found = places(store)
    assert f"{base}/0/0/0: missing" in found
    assert f"{base}/1/0/0: {size - 7} bytes, expected {size}" in found
    assert "notes.txt: not part of this store" in found


def test_swapped_shards_are_found(store: Path) -> None:
    base = store / "arrays.zarr/images/train2014/features/c"
    shutil.move(base / "0", base / "x")
    shutil.move(base / "1", base / "0")
    shutil.move(base / "x", base / "1")
    found = places(store)
    assert "c/0/0/0: sha256 is" in found
    assert "c/1/0/0: sha256 is" in found


@pytest.mark.parametrize(
    ("array", "index", "value", "message"),
    [
        ("questions/train/image_row", 3, 9999, r"1 questions without an image; the first"),
        ("questions/train/image_row", 3, -1, r"points at row -1"),
        ("questions/train/image_split", 2, 7, r"1 questions without an image"),
        ("targets/openvqa/train/label", 0, 3129, r"1 labels outside the answer dictionary"),
        ("targets/openvqa/train/score", 0, 2, r"a score lies outside \(0, 1\]"),
        ("tokens/openvqa/val/ids", 5, 10**6, r"1 token ids outside the vocabulary"),
        ("tokens/openvqa/val/offsets", 2, 10**6, r"offsets run backwards"),
        ("answers/val/offsets", 0, 1, r"offsets do not span"),
        ("images/val2014/cells", 0, 0, r"not the number of masked cells"),
    ],
)
def test_broken_joins_are_found_even_when_digests_hold(
    store: Path, array: str, index: int, value: int, message: str
) -> None:
    set_value(store, array, index, value)
    assert f"arrays.zarr/{array}/c/0" in places(store)  # the digest
    seal(store)
    assert re.search(message, places(store))


def test_repeated_ids_are_found(store: Path) -> None:
    group = zarr.open_group(store / "arrays.zarr", mode="a")
    for array in ("questions/val/ids", "images/val2014/ids"):
        group[array][1] = int(group[array][0])
    seal(store)
    found = places(store)
    assert "question ids occur twice" in found
    assert "1 duplicated images" in found


def test_chunk_table_that_points_elsewhere(store: Path) -> None:
    from trar.features.chunk_table import ChunkTable, read_chunk_table, write_chunk_table

    images = read_meta(store).image_splits["val2014"].images
    table = read_chunk_table(store, "val2014", images)
    write_chunk_table(store, "val2014", ChunkTable(table.shard, table.offset + 4))
    seal(store)
    assert "differs from the shards' own indexes" in places(store)
    write_chunk_table(store, "val2014", ChunkTable(table.shard[:-1], table.offset[:-1]))
    with pytest.raises(StoreError, match=rf"has {images - 1} chunks, store.json says {images}"):
        read_chunk_table(store, "val2014", images)


def test_missing_table_is_a_problem_not_a_crash(store: Path) -> None:
    for name in ("questions/train", "tokens/openvqa/val", "targets/openvqa/val", "images/val2014"):
        shutil.rmtree(store / "arrays.zarr" / name)
    found = places(store)
    for name in ("questions/train", "tokens/openvqa/val", "images/val2014"):
        assert f"arrays.zarr/{name}: " in found
    assert "answers of val" in found


def test_running_prepare_is_not_damage(store: Path) -> None:
    (store / ".prepare").mkdir()
    (store / ".prepare/x.partial").write_bytes(b"")
    (store / "arrays.zarr/images/test2015").mkdir()
    (store / "arrays.zarr/images/test2015/zarr.json").write_text("{}")
    assert verify_store(store) == []


def test_fingerprint_is_checked(store: Path) -> None:
    meta = read_meta(store)
    write_meta(store, msgspec.structs.replace(meta, fingerprint="0" * 64))
    assert "its fingerprint is not that of the files" in places(store)


def test_store_without_description(store: Path) -> None:
    (store / "store.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(StoreError, match="not readable as a store description"):
        verify_store(store)


def test_numbers_survive_verification(store: Path) -> None:
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    verify_store(store)
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before
