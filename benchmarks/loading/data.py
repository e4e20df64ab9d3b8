"""Generated images, and the same images in every form that a contender reads.

An image is (64, 2048) float16, as TRAR's 8x8 grid features are. Every form is made once below a
folder and kept; n is the number of images.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trar.features.buffers import aligned_empty
from trar.pipeline import PrepareConfig, prepare

BATCH = 64
SHAPE = (64, 2048)
IMAGE_BYTES = 2 * 64 * 2048
SPLIT = "train2014"
_BLOCK = 64  # images that are made at a time

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where the forms are, ``folder / form``, and ``images`` (n, 64, 2048) themselves."""

    folder: Path
    images: NDArray[np.float16]


def make_images(count: int) -> NDArray[np.float16]:
    """The images, (count, 64, 2048): the same ones for the same number."""
    images = np.empty((count, *SHAPE), np.float16)
    for start in range(0, count, _BLOCK):
        block = images[start : start + _BLOCK]
        values = np.random.default_rng(start).standard_normal(block.shape, np.float32)
        np.maximum(values, 0, out=values)  # as after a network's last ReLU
        block[:] = values
    return images


class RandomBatches:
    """Batches of different images, uniform and without end; every contender gets the same. Our
    loader takes it as its order: one epoch that is never over."""

    batch_size = BATCH
    steps = 1 << 40

    def __init__(self, images: int, seed: int = 0) -> None:
        self.questions, self.seed = images, seed
        self._order_of_pass = functools.lru_cache(2)(self._permuted)

    def rows(self, epoch: int, step: int) -> Rows:
        """The images of a batch, (64,)."""
        number, place = divmod(step, self.questions // BATCH)
        return self._order_of_pass(number)[place * BATCH : (place + 1) * BATCH]

    def windows(self, epoch: int) -> tuple[()]:
        """None: nothing is mixed in windows."""
        return ()

    def __iter__(self) -> Iterator[Rows]:
        for step in range(self.steps):
            yield self.rows(0, step)

    def _permuted(self, number: int) -> Rows:
        return np.random.default_rng((self.seed, number)).permutation(self.questions)


def buffer(dtype: DTypeLike = np.float16) -> NDArray[Any]:
    """Room for a batch, where copying is fastest: everyone's begins at a cache line."""
    return aligned_empty((BATCH, *SHAPE), dtype)


def make_forms(place: Place, forms: Iterable[str], say: Callable[[str], None]) -> None:
    """Make those forms that are not there yet, each whole or not at all."""
    wanted = set(forms)
    if wanted & {"zarr", "hdf5", "litdata"}:
        wanted.add("npy float16")  # they are made from it
    for name, make in _MAKERS.items():
        target = place.folder / name
        if name in wanted and not target.exists():
            say(f"making {name}")
            partial = place.folder / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            make(place, partial)
            partial.rename(target)


def read_all(place: Place, forms: Iterable[str]) -> None:
    """Bring all files of some forms into the page cache in the same way: forgotten, then read from
    begin to end. Pages that came one by one, by random reads, are half as fast to copy from."""
    room = bytearray(1 << 20)
    for path in (path for form in forms for path in (place.folder / form).rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while file.readinto(room):
                    pass


def npy_file(folder: Path, row: int) -> Path:
    """The float16 file of an image, in TRAR's folders: ``prepare`` reads them as they are."""
    return folder / "npy float16/vqa/feats" / SPLIT / f"{row}.npy"


def _make_npy_float16(place: Place, folder: Path) -> None:
    """With a question about each image, so that a store can be prepared from it."""
    feats, raw = folder / "vqa/feats" / SPLIT, folder / "vqa/raw"
    for one in (feats, raw):
        one.mkdir(parents=True)
    for row, image in enumerate(place.images):
        np.save(feats / f"{row}.npy", image)
    rows = range(len(place.images))
    questions = [{"image_id": i, "question_id": i, "question": "Is it made up?"} for i in rows]
    answers = [{"answer": "yes", "answer_confidence": "yes", "answer_id": k} for k in range(10)]
    shared = {"question_type": "is it", "answer_type": "yes/no", "multiple_choice_answer": "yes"}
    annotations = [{"image_id": i, "question_id": i, **shared, "answers": answers} for i in rows]
    head = {"info": {"version": "2.0"}, "data_subtype": SPLIT}
    for name, key, lines in (
        (f"v2_OpenEnded_mscoco_{SPLIT}_questions", "questions", questions),
        (f"v2_mscoco_{SPLIT}_annotations", "annotations", annotations),
    ):
        (raw / f"{name}.json").write_text(json.dumps({**head, key: lines}))


def _make_npy_float32(place: Place, folder: Path) -> None:
    for row, image in enumerate(place.images):
        np.save(folder / f"{row}.npy", image.astype(np.float32))


def _make_npz(place: Place, folder: Path) -> None:
    """Compressed float32, the form that bottom-up features are published in."""

    def write(row: int) -> None:
        np.savez_compressed(folder / f"{row}.npz", x=place.images[row].astype(np.float32))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # zlib works without the interpreter's lock
        list(pool.map(write, range(len(place.images))))


def _make_zarr(place: Place, folder: Path) -> None:
    """Our store, by ``prepare`` with its defaults."""
    raw = place.folder / "npy float16"
    prepare(PrepareConfig(raw=raw, store=folder, split="train", workers=0))


def _make_hdf5(place: Place, folder: Path) -> None:
    raw = place.folder / "npy float16"
    prepare(PrepareConfig(raw=raw, store=folder, split="train", workers=0, format="hdf5"))


def _make_plain_zarr(place: Place, folder: Path) -> None:
    """Zarr at its fastest for single images: a chunk each, no shards, nothing compressed."""
    import zarr

    array = zarr.create_array(
        folder / "features",
        shape=place.images.shape,
        chunks=(1, *SHAPE),
        dtype="float16",
        compressors=None,
    )
    array[:] = place.images


def _make_plain_hdf5(place: Place, folder: Path) -> None:
    """HDF5 at its fastest for single images: contiguous, which is h5py's default."""
    import h5py

    with h5py.File(folder / "features.h5", "w") as file:
        file.create_dataset("features", data=place.images)


def _make_lmdb(place: Place, folder: Path) -> None:
    import lmdb

    with lmdb.open(str(folder), map_size=2 * place.images.nbytes + (1 << 24)) as environment:
        for start in range(0, len(place.images), 1024):
            with environment.begin(write=True) as transaction:
                for row, image in enumerate(place.images[start : start + 1024], start):
                    transaction.put(row.to_bytes(4, "big"), image.tobytes(), append=True)


def _make_webdataset(place: Place, folder: Path) -> None:
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%06d.tar", maxcount=256, verbose=0) as writer:
        for row, image in enumerate(place.images):
            writer.write({"__key__": f"{row:08}", "npy": image})


def _make_mosaicml(place: Place, folder: Path) -> None:
    import streaming

    columns = {"index": "int", "features": "ndarray:float16:64,2048"}
    with streaming.MDSWriter(out=str(folder), columns=columns) as writer:
        for row, image in enumerate(place.images):
            writer.write({"index": row, "features": image})


def _make_litdata(place: Place, folder: Path) -> None:
    """As torch tensors, which litdata reads many times faster than numpy arrays."""
    import litdata

    with contextlib.redirect_stdout(io.StringIO()):
        litdata.optimize(
            fn=functools.partial(_litdata_sample, place.folder),
            inputs=list(range(len(place.images))),
            output_dir=str(folder),
            chunk_bytes="64MB",
            num_workers=1,
            verbose=False,
        )


def _litdata_sample(folder: Path, row: int) -> dict[str, Any]:
    import torch

    return {"index": row, "features": torch.from_numpy(np.load(npy_file(folder, row)))}


_MAKERS: dict[str, Callable[[Place, Path], None]] = {
    "npy float16": _make_npy_float16,
    "npy float32": _make_npy_float32,
    "npz": _make_npz,
    "zarr": _make_zarr,
    "hdf5": _make_hdf5,
    "plain zarr": _make_plain_zarr,
    "plain hdf5": _make_plain_hdf5,
    "lmdb": _make_lmdb,
    "webdataset": _make_webdataset,
    "mosaicml": _make_mosaicml,
    "litdata": _make_litdata,
}
