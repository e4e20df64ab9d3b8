"""Proves a store sound: every file against its digest, every join against both of its sides.

Digests find each flipped bit and each missing file; ``joins`` finds what they cannot. Both always
run, so one report shows everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from trar.features.joins import check_joins
from trar.features.place import Place, place_of
from trar.features.problem import Problem
from trar.features.progress import Progress
from trar.features.schema import (
    LOG_FILE,
    STORE_FILE,
    WORK_FOLDER,
    FileEntry,
    StoreMeta,
    find_dataset,
    fingerprint,
    read_meta,
    view_file,
)
from trar.fileio import indented_json


def verify_store(
    path: Path, dataset: str | None = None, progress: Progress = lambda *_: None
) -> list[Problem]:
    """Every problem of a store; an empty list means sound.

    ``progress(stage, done, total)`` counts bytes.

    Raises:
        StoreError: there is no store to judge, or its ``store.json`` is unreadable or changed.
    """
    folder = find_dataset(path, dataset)
    meta = read_meta(folder)
    problems = [*check_files(folder, meta, progress), *check_joins(folder, meta)]
    if meta.fingerprint != fingerprint(meta):
        problems.append(Problem(STORE_FILE, "its fingerprint is not that of the files it lists"))
    written = (folder / STORE_FILE).read_bytes()
    if written != indented_json(msgspec.json.decode(written)):  # 1e-05 and 1E-05 are one number
        problems.append(Problem(STORE_FILE, "not spelt as prepare spells it: edited or damaged"))
    return problems


def check_files(
    folder: Path, meta: StoreMeta, progress: Progress = lambda *_: None, *, held: bool = False
) -> Iterator[Problem]:
    """Every listed file that is missing, cut, changed or unreadable, and every unlisted one.

    ``held``: the caller holds the folder, so nobody is adding to the store now.
    """
    total, done = sum(entry.bytes for entry in meta.files.values()), 0
    place = place_of(folder)
    sizes = place.sizes()
    unfinished = not held and (folder / WORK_FOLDER).exists()
    judged = place.each(lambda name: _judge(place, name, sizes, meta.files[name]), meta.files)
    for (name, entry), what in zip(meta.files.items(), judged, strict=True):
        if unfinished and name == view_file(meta.dataset):
            continue  # new just before store.json, and nothing reads through it
        if what is not None:
            yield Problem(name, what)
        done += entry.bytes
        progress("digests", done, total)
    if unfinished:
        return  # a prepare that adds a split is running, or was stopped: its files are not ours
    known = {*meta.files, STORE_FILE, LOG_FILE}
    for name in sizes:
        if name not in known:
            yield Problem(name, "not part of this store: nothing lists it")


def _judge(place: Place, name: str, sizes: Mapping[str, int], entry: FileEntry) -> str | None:
    """What is wrong with a file, if anything is."""
    if name not in sizes:
        return "missing"
    if sizes[name] != entry.bytes:
        return f"{sizes[name]} bytes, expected {entry.bytes}"
    try:
        found = place.sha256(name, entry.bytes)
    except OSError as error:  # a bad sector, no permission: the other files are judged all the same
        return f"cannot be read ({error.strerror or error})"
    if found != entry.sha256:
        return f"sha256 is {found[:12]}…, expected {entry.sha256[:12]}…"
    return None
