"""Raw files, servers and stores that the tests of the pipeline share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_server import FileServer
from lxmert_stores import run, with_both
from piece_table import write_vocab
from published_files import BLOB, QUESTIONS, dataset, published, zipped
from repair_stores import KINDS, Made
from stores import CONTAINERS

from trar.features.schema import Container
from trar.pipeline.manifest import DatasetFiles, RawFile
from trar.pipeline.readers import archive_bytes, gzip_stream


@pytest.fixture
def raw(vqa_raw: Path, tmp_path: Path) -> Path:
    """A copy of ``vqa_raw`` that the test may change."""
    shutil.copytree(vqa_raw, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of the test's own."""
    with FileServer() as running:
        yield running


@pytest.fixture
def offered(server: FileServer) -> DatasetFiles:
    """Two questions files in one zip, annotations of unknown digest, features, and one by hand."""
    both = zipped(deep__test_questions=QUESTIONS, deep__dev_questions=QUESTIONS[:0] + b"[]")
    answers = zipped(answers=QUESTIONS)
    test = published(both, server.give("test.zip", both), name="test.zip")
    annotations = published(
        answers, server.give("answers.zip", answers), name="answers.zip", sha256=[], bytes=None
    )
    features = published(BLOB, server.give("f.zip", BLOB), name="f.zip")
    return dataset(
        RawFile("test", "questions", ["test_questions"], 500, test),
        RawFile("dev", "questions", ["sub/dev_questions"], 1, test),
        RawFile("train", "annotations", ["answers"], None, annotations),
        RawFile("vg", "questions", ["VG.json"], None, None, by_hand="the shared drive"),
        RawFile("train", "features", ["f.zip"], None, features, form="a", folders=["feats"]),
        RawFile("train", "features", ["g.tgz"], None, None, form="b", folders=["feats"]),
    )


@pytest.fixture(scope="module")
def originals(container: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """One store of each kind, made when it is asked for; not to be changed."""
    made: dict[str, Made] = {}

    def of(kind: str) -> Made:
        if kind not in made:
            made[kind] = KINDS[kind](tmp_path_factory.mktemp(kind), container)
        return made[kind]

    return of


@pytest.fixture
def grid(originals: Callable[[str], Made], tmp_path: Path) -> Made:
    """A store of grid features and its raw files, to be changed."""
    return originals("grid").copy(tmp_path)


@pytest.fixture
def afresh() -> Iterator[None]:
    """No archive open before and after, as in a new process."""
    archive_bytes._start_afresh()
    gzip_stream._start_afresh()
    yield
    archive_bytes._start_afresh()
    gzip_stream._start_afresh()


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of word pieces for the sample's questions."""
    return write_vocab(tmp_path_factory.mktemp("vocab"))


@pytest.fixture(scope="module")
def plain(vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with openvqa's alone; tests copy it to change it."""
    store = tmp_path_factory.mktemp("plain") / "features"
    run(vqa_raw, store)
    return store


@pytest.fixture(scope="module")
def lxmert_stores(
    vqa_raw: Path, vocab: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[Container, Path]:
    """Stores with both, made in one go; tests copy them to change them."""
    made: dict[Container, Path] = {}
    for container in CONTAINERS:
        made[container] = tmp_path_factory.mktemp(container) / "features"
        run(vqa_raw, made[container], format=container, **with_both(vocab))
    return made


@pytest.fixture
def at_once(container: Container, lxmert_stores: dict[Container, Path]) -> Path:
    """One of them, in each container."""
    return lxmert_stores[container]


@pytest.fixture
def zarr_store(lxmert_stores: dict[Container, Path]) -> Path:
    """The one in Zarr."""
    return lxmert_stores["zarr"]
