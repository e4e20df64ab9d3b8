"""Files as a manifest lists them, and how the tests download one."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from trar.pipeline.download import Patience, download
from trar.pipeline.manifest import Archive, DatasetFiles, RawFile

IMPATIENT = Patience(connect_s=2, silent_s=0.3, tries=3, pause_s=0.001)
BLOB = np.random.default_rng(7).bytes(300_000)  # several blocks long
QUESTIONS = json.dumps({"questions": [{"question": "Is it?"}] * 500}).encode()


def zipped(**members: bytes) -> bytes:
    """A zip with these members; a name's ``__`` is a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def published(data: bytes, *urls: str, name: str = "blob.bin", **other: object) -> Archive:
    """An archive whose size and digest are known, unless ``other`` says otherwise."""
    facts: dict[str, object] = {"bytes": len(data), "sha256": [hashlib.sha256(data).hexdigest()]}
    return Archive(name=name, urls=list(urls), **{**facts, **other})  # type: ignore[arg-type]


def get(archive: Archive, folder: Path, patience: Patience = IMPATIENT) -> bytes:
    """Download to ``folder``; nothing else may be left there."""
    target = folder / archive.name
    download(archive, archive.urls, target, patience)
    assert [path.name for path in folder.iterdir()] == [archive.name]
    return target.read_bytes()


def dataset(*files: RawFile, folders: tuple[str, ...] = ("vqa/raw", "raw", ".")) -> DatasetFiles:
    """What a manifest says of one dataset."""
    return DatasetFiles("a dataset", "CC0", "https://example.org", list(folders), list(files))
