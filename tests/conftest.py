"""Tiny inputs that every test can afford."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk import mounted
from hypothesis import settings
from raw_data import write_vqa_raw
from stores import CONTAINERS, make_store

from trar.features.reader import FeatureStore
from trar.features.schema import Container
from trar.pipeline import PrepareConfig, prepare

settings.register_profile("suite", deadline=None)  # no test is about time
settings.load_profile("suite")


@pytest.fixture(scope="module", params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> Container:
    """What a store's arrays are in; a test that asks for it runs in each."""
    name: Container = request.param
    return name


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A finished store of 61 images on a 4x4 grid, 8 numbers a cell, three questions each; splits
    train, val and test (no answers); one right answer per question, which can be learned. It is
    made once, for tests that only read."""
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a real S3 server on loopback, moto's; it keeps its objects in memory."""
    from fsspec.asyn import sync  # these take a second to import: only where they are needed
    from moto.server import ThreadedMotoServer

    from trar.features import s3_client

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    for one in s3_client._clients.values():
        if one._s3 is not None:
            sync(one.loop, one._s3.close)
    server.stop()


@pytest.fixture(scope="module")
def bucket(s3_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """``s3://`` and a bucket of the module's own; the environment leads there."""
    from trar.features.s3_client import client

    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with pytest.MonkeyPatch.context() as patch:
        for variable in [one for one in os.environ if one.startswith("AWS_")]:
            patch.delenv(variable)
        patch.setenv("AWS_ENDPOINT_URL", s3_server)
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        client().mkdir(name)
        yield f"s3://{name}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MiB."""
    yield from mounted(tmp_path / "disk")
