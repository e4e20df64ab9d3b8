"""Chooses the backend that reads and writes a store's arrays."""

from __future__ import annotations

from pathlib import Path

from trar.errors import StoreError
from trar.features.backend import Backend
from trar.features.place import is_remote
from trar.features.schema import Container
from trar.features.zarr_backend import ZarrBackend


def open_backend(folder: Path, container: Container) -> Backend:
    """The backend of a dataset folder; touches nothing yet."""
    if container == "hdf5" and is_remote(folder):
        raise StoreError(
            f"{folder}: an HDF5 store must be in a local folder (h5py reads and writes files, not "
            "objects); on S3 a store is in Zarr: leave --format hdf5 out"
        )
    if container == "hdf5":
        from trar.features.hdf5_backend import Hdf5Backend  # h5py only where it is needed

        return Hdf5Backend(folder)
    return ZarrBackend(folder)


def refuse_compression(folder: Path, container: Container) -> None:
    """Raise unless features in ``folder`` can be compressed.

    Raises:
        StoreError: an HDF5 store, or one that is not in a local folder.
    """
    if container == "hdf5" or is_remote(folder):
        where = "in HDF5" if container == "hdf5" else "on S3"
        raise StoreError(
            f"{folder}: features compressed with zstd are for Zarr stores in a local folder, this "
            f"one is {where}; leave --compress out"
        )
