"""What lies in a bucket, for tests: compared with files, copied, and damaged."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raw_data import tree

from trar.features.s3_client import client


def key(place: str | Path) -> str:
    """An address as s3fs wants it."""
    return str(place).removeprefix("s3://")


def objects(place: str | Path) -> dict[str, str]:
    """Every object below an address but the log, and the md5 of its bytes, as the server tells."""
    start = len(key(place)) + 1
    return {
        name[start:]: found["ETag"].strip('"')
        for name, found in client().find(key(place), detail=True).items()
        if not name.endswith("/prepare-log.json")
    }


def files(folder: Path) -> dict[str, str]:
    """The same of a folder's files."""
    return {name: hashlib.md5(data).hexdigest() for name, data in tree(folder).items()}


def upload(folder: Path, place: str) -> None:
    """Copy a store into a bucket, as ``aws s3 cp --recursive`` does."""
    for path in folder.rglob("*"):
        if path.is_file():
            change(f"{place}/{path.relative_to(folder)}", path.read_bytes())


def duplicate(place: str, other: str) -> None:
    """Copy a store inside a bucket."""

    def copy(name: str) -> None:
        bucket, _, target = name.replace(key(place), key(other), 1).partition("/")
        client().call_s3("copy_object", Bucket=bucket, Key=target, CopySource=name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(copy, client().find(key(place))))


def change(place: str, data: bytes) -> None:
    """Replace one object."""
    client().pipe_file(key(place), data)
