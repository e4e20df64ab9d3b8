"""Reading with an empty page cache: 16 threads at random images against one sequential O_DIRECT
read of the same files.

The kernel counts what came from the disk. Where that is less than was read, it was not cold; a
cache of the disk itself, or of a virtual machine's host, is not seen here.
"""

from __future__ import annotations

import gc
import mmap
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loading.data import BATCH, IMAGE_BYTES, SPLIT, Place, RandomBatches, Rows, buffer
from loading.ours import open_store

THREADS = 16
_DROP = Path("/proc/sys/vm/drop_caches")
_BLOCK_BYTES = 8 << 20
_COLD_SHARE = 0.9


@dataclass(frozen=True)
class Cold:
    """Images a second by 16 threads and of the sequential read, by round; the share of the bytes
    that came from the disk."""

    name: str
    rates: Sequence[float]
    sequential: Sequence[float]
    from_disk: float

    @property
    def ratio(self) -> float | None:
        """The median over rounds; None where something was cached all the same."""
        if self.from_disk < _COLD_SHARE:
            return None
        return statistics.median(a / b for a, b in zip(self.rates, self.sequential, strict=True))


def why_not() -> str | None:
    """Why the page cache cannot be emptied here, if so."""
    if os.geteuid() != 0:
        return "emptying the page cache takes root"
    try:
        with _DROP.open("wb"):
            return None
    except OSError as error:
        return f"{_DROP} cannot be written ({error.strerror})"


def measure(place: Place, rounds: int, say: Callable[[str], None]) -> list[Cold]:
    """Both containers, crc-checked, interleaved with the sequential read."""
    gc.collect()  # files that are still mapped cannot be dropped from the cache
    containers = ("zarr", "hdf5")
    rates: dict[str, list[float]] = {one: [] for one in containers}
    sequential: dict[str, list[float]] = {one: [] for one in containers}
    disk = dict.fromkeys(containers, 0.0)
    for number in range(rounds):
        for container in containers:
            say(f"cold round {number + 1} of {rounds}, {container}")
            sequential[container].append(_sequential(_shards(place, container)))
            before = _disk_bytes()
            order = RandomBatches(len(place.images), seed=number)
            batches = [order.rows(0, step) for step in range(len(place.images) // BATCH)]
            rates[container].append(_random(place, container, batches))
            disk[container] += (_disk_bytes() - before) / (len(batches) * BATCH * IMAGE_BYTES)
    return [
        Cold(f"ours: {one}, {THREADS} threads", rates[one], sequential[one], disk[one] / rounds)
        for one in containers
    ]


def _shards(place: Place, container: str) -> list[Path]:
    """The files of the store that hold nearly all of its bytes."""
    files = (one for one in (place.folder / container).rglob("*") if one.is_file())
    return [one for one in files if one.stat().st_size > _BLOCK_BYTES]


def _drop_caches() -> None:
    os.sync()
    _DROP.write_text("3")


def _sequential(paths: Sequence[Path]) -> float:
    """Images a second if their bytes came as the files' do, past the page cache."""
    buffer = mmap.mmap(-1, _BLOCK_BYTES)  # aligned to pages, as O_DIRECT wants it
    done = 0
    _drop_caches()
    begin = time.perf_counter()
    for path in paths:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            while read := os.readv(handle, [buffer]):
                done += read
        finally:
            os.close(handle)
    return done / IMAGE_BYTES / (time.perf_counter() - begin)


def _random(place: Place, container: str, batches: Sequence[Rows]) -> float:
    store = open_store(place, container, "crc-checked")
    store.read(SPLIT, batches[0][:1])  # its tables are not what is measured
    buffers = [buffer() for _ in range(THREADS)]

    def work(number: int) -> None:
        for rows in batches[number::THREADS]:
            store.read(SPLIT, rows, buffers[number])

    with ThreadPoolExecutor(THREADS) as pool:
        _drop_caches()
        begin = time.perf_counter()
        list(pool.map(work, range(THREADS)))
        return BATCH * len(batches) / (time.perf_counter() - begin)


def _disk_bytes() -> int:
    """What this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(one.split()[1] for one in lines if one.startswith("read_bytes")))
