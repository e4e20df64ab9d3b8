"""Archives of the features of a few images, packed in every way."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

IDS = (9, 581_929, 72, 1000)  # not in order


def features(image_id: int) -> NDArray[np.float32]:
    return np.random.default_rng(image_id).random((5, 2048), np.float32)


def image_bytes(image_id: int) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=features(image_id).T, bbox=np.zeros((5, 4), np.float32))
    return stream.getvalue()


def members(split: str = "val2014", folder: str = "val2014/") -> dict[str, bytes]:
    return {f"{folder}COCO_{split}_{one:012}.jpg.npz": image_bytes(one) for one in IDS}


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def tar_bytes(files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def packed_tar_bytes(files: dict[str, bytes]) -> bytes:
    return gzip.compress(tar_bytes(files))


PACKED: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zip_bytes,
    "stored zip": lambda files: zip_bytes(files, zipfile.ZIP_STORED),
    "tar": tar_bytes,
    "pax tar": lambda files: tar_bytes(files, tarfile.PAX_FORMAT),
    "ustar": lambda files: tar_bytes(files, tarfile.USTAR_FORMAT),
    "tar.gz": packed_tar_bytes,
}
every_kind = pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)


def write(tmp_path: Path, data: bytes) -> Path:
    """An archive under a name that says nothing."""
    path = tmp_path / "val2014.archive"
    path.write_bytes(data)
    return path
