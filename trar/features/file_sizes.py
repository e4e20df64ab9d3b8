"""The check of every opening: the size of each file against ``store.json``.

It costs no reading, and finds what a Zarr reader would show as zeros: a missing or cut shard.
"""

from __future__ import annotations

from pathlib import Path

from trar.errors import StoreError
from trar.features.backend import Backend
from trar.features.chunk_places import ChunkPlaces
from trar.features.library_source import other_layout, split_of
from trar.features.place import is_remote, place_of
from trar.features.row_reader import way_out
from trar.features.schema import StoreMeta, view_file


def check_sizes(folder: Path, meta: StoreMeta, backend: Backend) -> dict[str, str]:
    """Image splits whose features another tool has laid out in its own way, and how; every other
    file has the size that ``store.json`` states.

    Raises:
        StoreError: a file is missing or of another size.
    """
    found = place_of(folder).sizes() if is_remote(folder) else None
    places = ChunkPlaces(folder, meta, backend)
    layouts: dict[str, str | None] = {}
    for name, entry in meta.files.items():
        if name == view_file(meta.dataset):
            continue  # never read here, and new before store.json is when a split is added
        size_bytes = found.get(name) if found is not None else _size(folder / name)
        if size_bytes == entry.bytes:
            continue
        split = split_of(meta, name)
        if split is not None and split not in layouts:
            layouts[split] = other_layout(places, split)
        if split is not None and layouts[split] is not None:
            continue
        if size_bytes is None:
            raise StoreError(
                f"{folder / name}: missing; the store cannot be read without it (a Zarr "
                f"reader would show zeros); {way_out(folder)}"
            )
        raise StoreError(
            f"{folder / name}: {size_bytes} bytes, expected {entry.bytes}: cut short or "
            f"overwritten; {way_out(folder)}"
        )
    return {split: why for split, why in layouts.items() if why is not None}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
