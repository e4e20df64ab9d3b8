"""Tiny inputs that every test can afford."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from disk import mounted
from hypothesis import settings
from raw_data import write_vqa_raw
from stores import make_store

from trar.features.reader import FeatureStore
from trar.pipeline import PrepareConfig, prepare

settings.register_profile("suite", deadline=None)  # no test is about time
settings.load_profile("suite")


@pytest.fixture
def tiny_store(tmp_path: Path) -> FeatureStore:
    """A finished store of 61 images on a 4x4 grid, 8 numbers a cell, three questions each; splits
    train, val and test (no answers); one right answer per question, which can be learned."""
    return make_store(tmp_path / "features" / "tiny")


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The same store, made once, for tests that only read."""
    return make_store(tmp_path_factory.mktemp("shared") / "features" / "tiny")


@pytest.fixture(scope="session")
def vqa_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real VQA-v2 questions with generated features of every file form; copy it to change it."""
    return write_vqa_raw(tmp_path_factory.mktemp("raw") / "data")


@pytest.fixture(scope="session")
def vqa_store(vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of ``vqa_raw``, splits train and val, 20 images a shard; copy it to change it."""
    store = tmp_path_factory.mktemp("store") / "features"
    prepare(PrepareConfig(raw=vqa_raw, store=store, shard_images=20, workers=0))
    return store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MiB."""
    yield from mounted(tmp_path / "disk")
