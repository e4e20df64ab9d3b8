"""What a training run on this machine waits for: its storage, the loader, or the model.

Each is measured by itself on the batches of the run, in questions a second, so that the slowest of
them is what a run cannot be faster than. An image is read once a batch, however many of the batch's
questions are about it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trar.features.local_sources import fits_in_memory
from trar.features.place import is_remote
from trar.features.reader import FeatureStore
from trar.trainer.config import TrainConfig
from trar.trainer.distributed import Ranks
from trar.trainer.evaluator import pick_device
from trar.trainer.fit import check_fit
from trar.trainer.loader import Loader
from trar.trainer.models import build_model
from trar.trainer.new_model import whole_model_config
from trar.trainer.stepper import Stepper
from trar.trainer.store_images import StoreImages
from trar.trainer.training_data import open_store, training_loader

CACHED, COLD, LOADER, MODEL = "storage, cached", "storage, cold", "loader", "model step"
_CACHED_STEPS = 64  # batches between two looks at the clock
_COLD_STEPS = 8  # batches between two times of forgetting
_GPU_STEPS = 8  # steps that a GPU may be told ahead
_IO_FILE = Path("/proc/self/io")
_MODEL_BATCHES = 4
_SHARES = 5  # of the time: cold, loader twice, cached, model


@dataclass(frozen=True)
class Part:
    """``samples_per_s``: questions a second over ``steps`` batches; None where it was
    ``skipped``, and why."""

    name: str
    samples_per_s: float | None
    steps: int = 0
    skipped: str | None = None


@dataclass(frozen=True)
class Findings:
    """The ``parts`` that were measured and the one that ``binds``: the slowest of storage, loader
    and model. Storage counts as cached where the store fits into memory, else as cold."""

    store: Path
    preset: str
    device: str
    batch_size: int
    threads: int
    fits_in_memory: bool
    parts: tuple[Part, ...]
    binds: str


def bench(
    config: TrainConfig, *, seconds: float = 20.0, report: Callable[[str], None] = lambda _: None
) -> Findings:
    """Measure the parts of a run as ``config`` says, for about ``seconds`` in all; ``report`` is
    told each part as it begins.

    Raises:
        TrarError: whatever would stop the run itself: settings, store, device.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    store = open_store(config)
    check_fit(config, store)
    torch.manual_seed(config.seed)
    model = build_model(whole_model_config(config, store)).to(device)
    loader = training_loader(config, store, device=device, ranks=Ranks())
    share_s = seconds / _SHARES
    report(COLD)
    cold = _cold(loader, share_s)
    report(LOADER)
    steps = _loader(loader, share_s).steps  # the second time, what it reads is cached
    loaded = _loader(loader, share_s)
    report(CACHED)
    cached = _cached(loader, range(min(steps, loader.steps)), share_s)
    report(MODEL)
    trained = _model(config, model, loader, share_s)
    fits = not is_remote(store.path) and fits_in_memory(
        entry.bytes for entry in store.meta.files.values()
    )
    parts = (cached, cold, loaded, trained)
    return Findings(
        store=store.path,
        preset=config.preset,
        device=device.type,
        batch_size=config.data.batch_size,
        threads=config.data.threads,
        fits_in_memory=fits,
        parts=parts,
        binds=slowest_of(parts, fits=fits),
    )


def slowest_of(parts: Sequence[Part], *, fits: bool) -> str:
    """The name of the slowest; of storage cached and cold the one that counts."""
    rates = {part.name: part.samples_per_s for part in parts if part.samples_per_s is not None}
    if COLD in rates:
        del rates[COLD if fits else CACHED]
    return min(rates, key=lambda name: rates[name])


def _loader(loader: Loader, seconds: float) -> Part:
    """Batches from the first step on, and from there again where the epoch is over."""
    steps = questions = 0
    begin = time.perf_counter()
    while not steps or time.perf_counter() - begin < seconds:
        with loader.stream(0) as stream:
            for batch in stream:
                steps, questions = steps + 1, questions + len(batch)
                if time.perf_counter() - begin >= seconds:
                    break
            _finish(loader.device)
    return Part(LOADER, questions / (time.perf_counter() - begin), steps)


def _cached(loader: Loader, steps: range, seconds: float) -> Part:
    """The images of ``steps``, over and over."""
    reader = _ImageReader(loader)
    reader.read(steps)
    done = questions = 0
    begin = time.perf_counter()
    for start in itertools.cycle(range(0, len(steps), _CACHED_STEPS)):
        some = steps[start : start + _CACHED_STEPS]
        done, questions = done + len(some), questions + reader.read(some)
        taken_s = time.perf_counter() - begin
        if taken_s >= seconds:
            break
    return Part(CACHED, questions / taken_s, done)


def _cold(loader: Loader, seconds: float) -> Part:
    """Images that the system has just been asked to forget. Some file systems keep them all the
    same: then nothing was measured."""
    store = loader.questions.store
    if is_remote(store.path):
        return Part(COLD, None, skipped="the store is remote")
    if not _IO_FILE.exists():
        return Part(COLD, None, skipped="this system does not say what it reads from disks")
    reader = _ImageReader(loader)
    read_s, done, questions, disk_bytes, read_bytes = 0.0, 0, 0, 0, 0
    until = time.perf_counter() + seconds
    while not done or time.perf_counter() < until:
        some = [(done + k) % loader.steps for k in range(min(_COLD_STEPS, loader.steps))]
        read_bytes += reader.image_bytes(some)
        _forget(store)
        before, begin = _from_disk(), time.perf_counter()
        questions += reader.read(some)
        read_s += time.perf_counter() - begin
        disk_bytes += _from_disk() - before
        done += len(some)
    if disk_bytes < read_bytes / 2:
        return Part(COLD, None, skipped="the files stayed cached: they are in memory or mapped")
    return Part(COLD, questions / read_s, done)


def _forget(store: FeatureStore) -> None:
    """Ask the system to drop a store's files from the page cache, which takes no rights."""
    for name in store.meta.files:
        handle = os.open(store.path / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _from_disk() -> int:
    """Bytes that this process has had read from storage."""
    lines = _IO_FILE.read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def _model(config: TrainConfig, model: nn.Module, loader: Loader, seconds: float) -> Part:
    """Forward, backward and update on batches that are on the device already."""
    order = loader.order
    some = [
        loader.questions.batch(order.rows(0, step)).copied_to(loader.device)
        for step in range(min(_MODEL_BATCHES, order.steps))
    ]
    batches = itertools.cycle(some)
    stepper = Stepper(model.train(), config, answers=len(loader.questions.store.answers))
    stepper.set(learning_rate=config.optim.lr, temperature=config.temperature.max)

    def take(steps: int) -> int:
        questions = 0
        for batch in itertools.islice(batches, steps):
            stepper(batch)
            questions += len(batch)
        _finish(loader.device)
        return questions

    begin = time.perf_counter()
    questions = take(1)  # it allocates, or even compiles
    taken_s = time.perf_counter() - begin
    if taken_s >= seconds and not config.loop.compile:
        return Part(MODEL, questions / taken_s, 1)
    at_once = 1 if loader.device.type == "cpu" else _GPU_STEPS
    steps = questions = 0
    begin = time.perf_counter()
    while not steps or time.perf_counter() - begin < seconds:
        steps, questions = steps + at_once, questions + take(at_once)
    return Part(MODEL, questions / (time.perf_counter() - begin), steps)


def _finish(device: torch.device) -> None:
    """Wait for what was only begun."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _ImageReader:
    """Reads the images of batches, and nothing else, with as many threads as the loader has."""

    def __init__(self, loader: Loader) -> None:
        self._questions, self._rows = loader.questions, loader.order.rows
        spec, size = loader.questions.store.meta.feature, loader.order.batch_size
        shape = (size, spec.rows, spec.width)
        self._buffers = [np.empty(shape, spec.dtype) for _ in range(max(1, loader.threads))]

    def read(self, steps: Sequence[int]) -> int:
        """The images of every batch of ``steps``; returns the number of questions."""
        threads = len(self._buffers)
        with ThreadPoolExecutor(threads) as pool:
            return sum(
                pool.map(self._read, self._buffers, (steps[k::threads] for k in range(threads)))
            )

    def image_bytes(self, steps: Sequence[int]) -> int:
        """Bytes of the different images of ``steps``."""
        keys = [self._questions.image_keys(self._rows(0, step)) for step in steps]
        return self._questions.room(len(np.unique(np.concatenate(keys))))

    def _read(self, buffer: NDArray[np.generic], steps: Sequence[int]) -> int:
        images = StoreImages(self._questions.store, self._questions.image_splits)
        questions = 0
        for step in steps:
            keys = self._questions.image_keys(self._rows(0, step))
            images.read(keys, buffer[: len(keys)])
            questions += len(keys)
        return questions
