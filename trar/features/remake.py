"""Parts of a finished store are replaced in one step: made aside, then moved in.

While they are made below ``.prepare/remake`` the store stays as it is. The new ``store.json`` is
written there last; from then on the move can be completed however often it is stopped. During the
move there is no ``store.json``, so nobody reads a mixture of old and new.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container
from pathlib import Path, PurePosixPath

from trar.features.chunk_table import FOLDER as CHUNK_TABLES
from trar.features.place import place_of
from trar.features.schema import ARRAYS, SHARDS, STORE_FILE, TABLES, WORK_FOLDER, read_meta
from trar.features.vectors import FOLDER as VECTORS

OWN_FOLDERS = {
    ARRAYS: "*",
    CHUNK_TABLES: "*",
    VECTORS: "*",
    SHARDS: "*-[0-9][0-9][0-9][0-9][0-9].h5",
    TABLES: "*.h5",
}
"""Folders of a store and the names of its files there: others may have an ``images`` too."""
_TABLE = rf"(?:{re.escape(ARRAYS)}|{TABLES})"  # of either container
_OF_IMAGES = re.compile(
    rf"(?:{_TABLE}/(?:images|names)/(?P<split>[^/]+?)(?:/|\.h5$)"
    rf"|{SHARDS}/(?P<shards>.+)-\d{{5,}}\.h5$|{CHUNK_TABLES}/(?P<table>[^/]+)\.)"
)
_OF_QUESTIONS = re.compile(
    rf"{_TABLE}/(?:(?:questions|answers)|(?:tokens|targets)/[^/]+)/(?P<split>[^/]+?)(?:/|\.h5$)"
)
_DICTIONARY = re.compile(r"(?:vocabulary|answers)-(?:openvqa|wordpiece|lxmert)\.json")
_RETIRED = "store.json.before"
_NOT_MOVED = (WORK_FOLDER, STORE_FILE)


def remake_folder(folder: Path) -> Path:
    """Where the new parts of the dataset ``folder`` are made."""
    return folder / WORK_FOLDER / "remake"


def is_ready(folder: Path) -> bool:
    """Whether new parts are whole and wait to be moved in."""
    return (remake_folder(folder) / STORE_FILE).exists()


def move_in(folder: Path) -> None:
    """Put the new parts in place of the old ones; the caller holds the folder.

    Raises:
        DiskError: the place refuses; the same call goes on later.
    """
    root, place = remake_folder(folder), place_of(folder)
    aside = root.relative_to(folder).as_posix()
    listed = read_meta(root).files
    if (folder / STORE_FILE).exists():
        place.rename({STORE_FILE: f"{WORK_FOLDER}/{_RETIRED}"})
    new = [name for name in place_of(root).sizes() if name.split("/")[0] not in _NOT_MOVED]
    place.rename({f"{aside}/{name}": name for name in new})
    drop_unlisted(folder, listed)
    place.rename({f"{aside}/{STORE_FILE}": STORE_FILE})
    place.remove_folder(WORK_FOLDER)


def owned(name: str, image_splits: Collection[str], question_splits: Collection[str]) -> bool:
    """Whether a file of a store holds something of one of these splits."""
    match = _OF_IMAGES.match(name)
    if match:
        return (match["split"] or match["shards"] or match["table"]) in image_splits
    match = _OF_QUESTIONS.match(name)
    return match is not None and match["split"] in question_splits


def drop_unlisted(folder: Path, listed: Container[str]) -> None:
    """Remove what a stopped prepare left below the store's own folders, and the dictionaries that
    it wrote: nothing lists it, and nobody else may write there."""
    place = place_of(folder)
    place.remove([name for name in place.sizes() if name not in listed and _is_own(name)])


def _is_own(name: str) -> bool:
    own, _, rest = name.partition("/")
    if _DICTIONARY.fullmatch(name):
        return True
    return own in OWN_FOLDERS and PurePosixPath(rest).match(OWN_FOLDERS[own])
