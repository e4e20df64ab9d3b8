"""A store in each container."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stores import make_store

from trar.features.schema import Container


@pytest.fixture(scope="module")
def made(container: Container, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store in the container, to be read only."""
    return make_store(tmp_path_factory.mktemp(container) / "tiny", container=container).path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """The same store, to be damaged."""
    shutil.copytree(made, tmp_path / "tiny")
    return tmp_path / "tiny"
