"""Chooses the backend that reads and writes a store's arrays."""

from __future__ import annotations

from pathlib import Path

from trar.features.backend import Backend
from trar.features.schema import Container
from trar.features.zarr_backend import ZarrBackend


def open_backend(folder: Path, container: Container) -> Backend:
    """The backend of a dataset folder; touches nothing yet."""
    backends: dict[Container, type[Backend]] = {"zarr": ZarrBackend}
    return backends[container](folder)
