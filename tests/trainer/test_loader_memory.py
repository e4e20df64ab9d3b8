"""The loader's memory: what belongs to the process alone stays flat, and small on a large store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stores
from stores import StorePlan, make_store

MIB = 1 << 20
PROGRAM = """
import gc, json, sys
import torch
from trar.features.reader import FeatureStore
from trar.trainer.loader import Loader
from trar.trainer.orders import OrderSettings, make_order
from trar.trainer.question_batches import Questions
from trar.trainer.question_index import QuestionIndex


def anonymous():
    gc.collect()
    with open("/proc/self/status") as file:
        return int(dict(line.split(":") for line in file)["RssAnon"].split()[0]) * 1024


torch.set_num_threads(1)
begun = anonymous()
store = FeatureStore(sys.argv[1])
questions = Questions(store, ["train"], max_tokens=14, targets=True)
index = QuestionIndex.from_store(store, ["train"])
told = {}
for kind in ("global", "block"):
    settings = OrderSettings(order=kind, window_bytes=1 << 18)
    order = make_order(settings, seed=0, batch_size=64, questions=index)
    loader = Loader(questions, order, threads=2)
    epochs = []
    for epoch in range(int(sys.argv[2])):
        with loader.stream(epoch) as stream:
            for batch in stream:
                pass
        epochs.append(anonymous() - begun)
    told[kind] = {"epochs": epochs, "bound": loader.memory_bound().total}
print(json.dumps(told))
"""


def measured(store: Path, epochs: int) -> dict[str, dict[str, Any]]:
    """RssAnon above what the process began with, in bytes, after each epoch in each order."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store), str(epochs)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and one of ten times its images and questions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "SHARD_IMAGES", 2000)
        folder = tmp_path_factory.mktemp("sizes")
        small, large = (
            make_store(
                folder / str(images),
                StorePlan(images={"train": images}, question_splits={"train": "train"}),
            )
            for images in (1000, 10000)
        )
    return small.path, large.path


def test_memory_is_flat_over_epochs_and_does_not_grow_with_the_store(
    two_sizes: tuple[Path, Path],
) -> None:
    small, large = (measured(store, epochs=4) for store in two_sizes)
    for order in ("global", "block"):
        for found in (small[order], large[order]):
            assert found["epochs"][3] - found["epochs"][1] < MIB
            assert max(found["epochs"]) < found["bound"] + 6 * MIB  # what opening leaves behind
        assert large[order]["epochs"][3] - small[order]["epochs"][3] < 4 * MIB
