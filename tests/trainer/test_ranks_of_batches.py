"""The same global batches for any number of ranks, threads and workers, in real processes."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing
from torch.utils.data import DataLoader

from trar.features.reader import FeatureStore
from trar.trainer import StoreBatches
from trar.trainer.batch import Batch
from trar.trainer.loader import Loader
from trar.trainer.orders import OrderSettings, make_order
from trar.trainer.question_batches import Questions
from trar.trainer.question_index import QuestionIndex

PROCESSES = 4
SPLITS = ("train", "val")
BATCH, EPOCH = 16, 2
SETTINGS = {
    "global": OrderSettings(),
    "buckets": OrderSettings(length_pool=2),
    "block": OrderSettings(order="block", window_bytes=2 * BATCH * 256, block_images=4),
}

Part = list[tuple[list[int], list[int]]]
"""For each step the question ids and the crc32 of each question's features."""


def part_of(batches: Iterable[Batch]) -> Part:
    return [
        (batch.question_ids.tolist(), [zlib.crc32(one.tobytes()) for one in batch.features.numpy()])
        for batch in batches
    ]


def global_batches(parts: list[Part]) -> Part:
    """The parts of all ranks, joined; every rank must have made the same number of steps."""
    return [
        (
            list(itertools.chain(*(ids for ids, _ in step))),
            list(itertools.chain(*(crcs for _, crcs in step))),
        )
        for step in zip(*parts, strict=True)
    ]


def every_way(store: Path, rank: int, ranks: int) -> dict[str, Part]:
    """This rank's batches of one epoch, by how they were read."""
    warnings.filterwarnings("ignore", "This DataLoader will create")
    opened = FeatureStore(store)
    questions = Questions(opened, SPLITS, max_tokens=14, targets=True)
    index = QuestionIndex.from_store(opened, SPLITS)
    found = {}
    for name, settings in SETTINGS.items():
        order = make_order(settings, seed=5, batch_size=BATCH, questions=index)
        for threads in (0, 1, 4):
            loader = Loader(questions, order, threads=threads, rank=rank, ranks=ranks)
            with loader.stream(EPOCH) as stream:
                found[f"{name}, {threads} threads"] = part_of(stream)
    batches = StoreBatches(
        opened, "+".join(SPLITS), batch_size=BATCH, seed=5, rank=rank, ranks=ranks
    )
    batches.set_epoch(EPOCH)
    for workers in (0, 1, 4):
        start = "fork" if workers else None  # these processes were spawned, and would spawn
        loaded = DataLoader(
            batches, batch_size=None, num_workers=workers, multiprocessing_context=start
        )
        found[f"global, {workers} workers"] = part_of(loaded)
    return found


def process(number: int, store: Path, meeting: Path, out: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=number, world_size=PROCESSES
    )
    rows = []
    for ranks in range(1, PROCESSES + 1):
        mine = every_way(store, number, ranks) if number < ranks else {}
        every: list[dict[str, Part]] = [{} for _ in range(PROCESSES)]
        dist.all_gather_object(every, mine)
        for way in every[0]:
            joined = global_batches([parts[way] for parts in every[:ranks]])
            rows.append(f"{ranks} ranks, {way}: {zlib.crc32(repr(joined).encode())}\n")
    if number == 0:
        out.write_text("".join(rows))
    dist.destroy_process_group()


@pytest.mark.timeout(300)
def test_the_global_batches_do_not_depend_on_ranks_threads_or_workers(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "batches.txt"
    arguments = (shared_store.path, tmp_path / "meeting", out)
    torch.multiprocessing.start_processes(process, arguments, PROCESSES, start_method="spawn")
    found = dict(line.split(": ") for line in out.read_text().splitlines())
    assert len(found) == 4 * (3 * 3 + 3)
    index = QuestionIndex.from_store(shared_store, SPLITS)
    questions = Questions(shared_store, SPLITS, max_tokens=14, targets=True)
    for name, settings in SETTINGS.items():
        order = make_order(settings, seed=5, batch_size=BATCH, questions=index)
        plain = part_of(questions.batch(order.rows(EPOCH, step)) for step in range(order.steps))
        used = itertools.chain(*(ids for ids, _ in plain))
        assert sorted(used) == sorted(questions.ids.tolist())
        expected = str(zlib.crc32(repr(plain).encode()))
        ways = {way: crc for way, crc in found.items() if f" ranks, {name}, " in way}
        assert ways == dict.fromkeys(ways, expected)


def test_a_batch_of_64_over_three_ranks_is_22_21_21(shared_store: FeatureStore) -> None:
    index = QuestionIndex.from_store(shared_store, SPLITS)
    questions = Questions(shared_store, SPLITS, max_tokens=14, targets=True)
    order = make_order(OrderSettings(), seed=0, batch_size=64, questions=index)
    for rank, share in enumerate((22, 21, 21)):
        with Loader(questions, order, rank=rank, ranks=3).stream() as stream:
            assert len(next(stream)) == share
