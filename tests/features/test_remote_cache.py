"""The cache of remote chunks: sound on every hit, bounded, and harmless to what is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from crc32c import crc32c
from numpy.typing import NDArray
from s3_objects import upload

from trar.errors import ConfigError
from trar.features import FeatureStore
from trar.features.remote_cache import FOLDER, ChunkCache
from trar.features.s3_client import Client
from trar.features.schema import StoreMeta

CHUNK = 256  # bytes of an image of the shared store: 4x4 cells of 8 float16
RECORD = CHUNK + 16


@pytest.fixture
def meta(shared_store: FeatureStore) -> StoreMeta:
    return shared_store.meta


def values(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(256, size=CHUNK, dtype=np.uint8)


def fill(cache: ChunkCache, numbers: range) -> None:
    for number in numbers:
        cache.write(number, values(number), crc32c(values(number).data))


def held(cache: ChunkCache, numbers: range) -> list[int]:
    """Which chunks are hits; each must then be right."""
    found = []
    for number in numbers:
        out = np.empty(CHUNK, np.uint8)
        checksum = cache.read(number, out)
        if checksum is not None:
            assert checksum == crc32c(values(number).data)
            np.testing.assert_array_equal(out, values(number))
            found.append(number)
    return found


def file_of(folder: Path, meta: StoreMeta) -> Path:
    return folder / FOLDER / f"{meta.fingerprint[:32]}.chunks"


def test_chunks_come_back(tmp_path: Path, meta: StoreMeta) -> None:
    cache = ChunkCache(tmp_path, 1 << 20, meta)
    assert held(cache, range(61)) == []
    fill(cache, range(61))
    assert held(cache, range(61)) == [*range(61)]
    assert held(ChunkCache(tmp_path, 1 << 20, meta), range(61)) == [*range(61)]


def test_every_flipped_byte_is_a_miss_and_is_replaced(tmp_path: Path, meta: StoreMeta) -> None:
    cache = ChunkCache(tmp_path, 1 << 20, meta)
    fill(cache, range(3))
    file = file_of(tmp_path, meta)
    sound = file.read_bytes()
    for place in range(4096 + RECORD, 4096 + 2 * RECORD):
        damaged = bytearray(sound)
        damaged[place] ^= 16
        file.write_bytes(damaged)
        assert held(cache, range(3)) == [0, 2]
    fill(cache, range(1, 2))
    assert held(cache, range(3)) == [0, 1, 2]


def test_damaged_chunks_are_not_taken_in(tmp_path: Path, meta: StoreMeta) -> None:
    cache = ChunkCache(tmp_path, 1 << 20, meta)
    cache.write(5, values(5), crc32c(values(5).data) ^ 1)
    assert held(cache, range(61)) == []


def test_size_is_never_exceeded_and_slots_change_hands(tmp_path: Path, meta: StoreMeta) -> None:
    size = 4096 + 10 * RECORD + 5
    cache = ChunkCache(tmp_path, size, meta)
    fill(cache, range(61))
    assert file_of(tmp_path, meta).stat().st_size == 4096 + 10 * RECORD
    assert len(held(cache, range(61))) == 10
    for _ in range(60):
        fill(cache, range(50, 60))
    assert held(cache, range(50, 60)) == [*range(50, 60)]  # old ones have left


def test_no_room_for_a_chunk_is_no_cache(tmp_path: Path, meta: StoreMeta) -> None:
    cache = ChunkCache(tmp_path, 4096 + RECORD - 1, meta)
    fill(cache, range(2))
    assert held(cache, range(2)) == []


def other(meta: StoreMeta, number: int) -> StoreMeta:
    return msgspec.structs.replace(meta, fingerprint=f"{number:032x}" * 2)


def test_other_stores_make_room_oldest_first(tmp_path: Path, meta: StoreMeta) -> None:
    whole = 4096 + 61 * RECORD
    for number in (1, 2):
        fill(ChunkCache(tmp_path, 2 * whole, other(meta, number)), range(61))
        os.utime(file_of(tmp_path, other(meta, number)), (number, number))
    fill(ChunkCache(tmp_path, 2 * whole, meta), range(61))
    assert not file_of(tmp_path, other(meta, 1)).exists()
    assert file_of(tmp_path, other(meta, 2)).exists()


def test_files_in_use_and_files_of_others_stay(tmp_path: Path, meta: StoreMeta) -> None:
    whole = 4096 + 61 * RECORD
    foreign = {
        "notes.txt": b"mine",
        f"{'a' * 32}.chunks": b"a name like the cache's, but not its header",
        f"{'b' * 32}.chunks.bak": b"trar chunk cache 1\n".ljust(4096, b"\0"),
    }
    (tmp_path / FOLDER).mkdir()
    for name, data in foreign.items():
        (tmp_path / FOLDER / name).write_bytes(data)
    used = ChunkCache(tmp_path, whole, other(meta, 1))
    fill(used, range(61))
    fill(ChunkCache(tmp_path, whole, meta), range(61))  # no room left: it caches nothing
    assert held(used, range(61)) == [*range(61)]
    assert {name: (tmp_path / FOLDER / name).read_bytes() for name in foreign} == foreign


def test_foreign_file_under_its_own_name_is_left_alone(
    tmp_path: Path, meta: StoreMeta, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_of(tmp_path, meta)
    file.parent.mkdir()
    file.write_bytes(b"somebody's")
    fill(ChunkCache(tmp_path, 1 << 20, meta), range(3))
    assert file.read_bytes() == b"somebody's"
    assert "no longer used as a cache" in caplog.text


def test_place_that_cannot_be_written_ends_only_the_caching(
    tmp_path: Path, meta: StoreMeta, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ChunkCache(tmp_path / "file", 1 << 20, meta)
    fill(cache, range(3))
    assert held(cache, range(3)) == []
    assert caplog.text.count("no longer used as a cache") == 1


WRITER = """
import sys
from pathlib import Path
from trar.features.schema import read_meta
from trar.features.remote_cache import ChunkCache
sys.path.insert(0, sys.argv[3])
from features.test_remote_cache import fill, held, RECORD
cache = ChunkCache(Path(sys.argv[1]), 4096 + 7 * RECORD, read_meta(Path(sys.argv[2])))
hits = 0
for _ in range(60):
    fill(cache, range(61))
    hits += len(held(cache, range(61)))
assert hits
"""


def test_processes_share_it_without_wrong_hits(tmp_path: Path, shared_store: FeatureStore) -> None:
    """Both replace what is in the same few slots, over and over; ``held`` checks each hit."""
    arguments = [str(tmp_path), str(shared_store.path), str(Path(__file__).parents[1])]
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, *arguments]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]


def test_store_reads_each_chunk_once_from_the_server(
    shared_store: FeatureStore, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(shared_store.path, f"{bucket}/tiny")
    monkeypatch.setenv("TRAR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRAR_CACHE_SIZE", "1M")
    rows, asked = np.arange(15), []
    FeatureStore(f"{bucket}/tiny").read("val", rows[:9])
    store = FeatureStore(f"{bucket}/tiny")
    store.image_ids("val")
    monkeypatch.setattr(Client, "_cat_file", _noted(asked, Client._cat_file))
    for _ in range(2):
        batch = store.read("val", rows)
        np.testing.assert_array_equal(batch.features, shared_store.read("val", rows).features)
    ranges = [one for one in asked if "features" in one]
    assert len(ranges) == 2  # rows 9 and 10 to 14, in two shards, and only the first time


def _noted(asked: list[str], original: object) -> object:
    async def note(self: Client, path: str, **kwargs: object) -> bytes:
        asked.append(path)
        return await original(self, path, **kwargs)

    return note


@pytest.mark.parametrize(
    ("text", "size"), [("20G", 20 << 30), ("500 MiB", 500 << 20), ("1.5k", 1536), ("7", 7)]
)
def test_sizes_are_read(
    text: str, size: int, meta: StoreMeta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ChunkCache.from_environment(meta) is None
    monkeypatch.setenv("TRAR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRAR_CACHE_SIZE", text)
    cache = ChunkCache.from_environment(meta)
    assert cache is not None
    assert cache._size_bytes == size
    monkeypatch.setenv("TRAR_CACHE_SIZE", "much")
    with pytest.raises(ConfigError, match="TRAR_CACHE_SIZE=much: expected a size like 20G"):
        ChunkCache.from_environment(meta)
