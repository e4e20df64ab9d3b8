"""The store in torch's own DataLoader: the same batches in every way of starting workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from stores import StorePlan, make_store
from torch.utils.data import DataLoader, Subset

from trar.errors import CheckpointError, ConfigError, StoreError
from trar.features.reader import FeatureStore
from trar.trainer import StoreBatches, StoreDataset
from trar.trainer.batch import Batch
from trar.trainer.orders import OrderSettings

Start = Literal["fork", "forkserver", "spawn"]
# four workers on two cores, which torch advises against
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def contents(batch: Batch) -> tuple[object, ...]:
    tensors = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return tuple(None if one is None else (one.shape, one.numpy().tobytes()) for one in tensors)


def passed(dataset: StoreBatches, workers: int = 0, start: Start = "fork") -> list[object]:
    context = start if workers else None
    loader = DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=context
    )
    return [contents(batch) for batch in loader]


def batches_of(store: FeatureStore | Path, **settings: object) -> StoreBatches:
    return StoreBatches(store, "train+val", batch_size=16, seed=1, **settings)


@pytest.mark.parametrize(
    ("workers", "start"),
    [
        (1, "fork"),
        (4, "fork"),
        (1, "forkserver"),
        (1, "spawn"),
        pytest.param(4, "forkserver", marks=pytest.mark.slow),
        pytest.param(4, "spawn", marks=pytest.mark.slow),
    ],
)
def test_batches_are_the_same_from_any_workers(
    shared_store: FeatureStore, workers: int, start: Start
) -> None:
    """The parent has read from the store before they start."""
    dataset = batches_of(shared_store)
    dataset.set_epoch(2)
    expected = passed(dataset)
    assert len(expected) == len(dataset) == 11
    assert passed(dataset, workers, start) == expected


def test_a_pass_goes_on_in_the_middle_of_an_epoch(shared_store: FeatureStore) -> None:
    dataset = batches_of(shared_store, settings=OrderSettings(length_pool=2))
    dataset.set_epoch(1)
    expected = passed(dataset)
    state = dataset.state_dict(batches=4)
    assert state == {"seed": 1, "epoch": 1, "step": 4}
    other = batches_of(shared_store, settings=OrderSettings(length_pool=2))
    other.load_state_dict(state)
    assert len(other) == 7
    assert passed(other, 3) == expected[4:]
    assert other.state_dict(batches=7) == {"seed": 1, "epoch": 2, "step": 0}
    with pytest.raises(CheckpointError, match="this order has seed 1 and 11 steps"):
        other.load_state_dict({"seed": 1, "epoch": 0, "step": 11})


def test_workers_that_are_kept_for_a_second_epoch_are_refused(shared_store: FeatureStore) -> None:
    loader = DataLoader(
        batches_of(shared_store), batch_size=None, num_workers=1, persistent_workers=True
    )
    assert len(list(loader)) == 11
    with pytest.raises(ConfigError, match="persistent_workers=False"):
        list(loader)


@pytest.mark.parametrize(
    ("workers", "start"),
    [(0, "fork"), (4, "fork"), pytest.param(1, "spawn", marks=pytest.mark.slow)],
)
def test_samples_by_number_make_batches(
    shared_store: FeatureStore, workers: int, start: Start
) -> None:
    dataset = StoreDataset(shared_store, "train+val")
    assert len(dataset) == 165
    assert dataset[-1].question_ids.tolist() == dataset[164].question_ids.tolist()
    rows = np.random.default_rng(0).permutation(165).tolist()
    loader = DataLoader(
        Subset(dataset, rows),
        batch_size=50,
        collate_fn=dataset.collate,
        num_workers=workers,
        multiprocessing_context=start if workers else None,
    )
    found = list(loader)
    assert [len(batch) for batch in found] == [50, 50, 50, 15]
    singles = [dataset[row] for row in rows]
    for name in ("features", "cells", "question_ids"):
        one_by_one = torch.cat([getattr(one, name) for one in singles])
        assert torch.equal(torch.cat([getattr(batch, name) for batch in found]), one_by_one)
    with pytest.raises(IndexError, match="question 165"):
        dataset[165]


def test_a_test_split_has_no_targets(shared_store: FeatureStore) -> None:
    assert len(StoreDataset(shared_store, "test")[0].target_row) == 0
    with pytest.raises(StoreError, match="no question split 'tset'"):
        StoreDataset(shared_store, "tset")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_damaged_image_reaches_the_loop_from_a_worker(tmp_path: Path, workers: int) -> None:
    plan = StorePlan(images={"train": 20, "val": 2, "test": 1})
    store = make_store(tmp_path / "tiny", plan).path
    shard = next((store / "arrays.zarr/images/train/features/c").rglob("1/0/0"))
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    for data in (
        DataLoader(batches_of(store), batch_size=None, num_workers=workers),
        DataLoader(
            StoreDataset(store, "train"),
            batch_size=16,
            collate_fn=StoreDataset.collate,
            num_workers=workers,
        ),
    ):
        with pytest.raises(StoreError) as caught:
            list(data)
        message = str(caught.value)
        assert f"{shard}: image 37 (row 10 of train) does not match its crc32c" in message
        assert f"`trar-data repair --store {store}`" in message
