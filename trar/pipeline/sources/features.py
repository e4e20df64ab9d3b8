"""Finds the features of an image split and opens them by what they are, not by their name."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from trar.errors import RawDataError
from trar.fileio import disk_errors
from trar.pipeline.readers.archives import scan_archive
from trar.pipeline.readers.feature_files import FeatureFiles, identify_image
from trar.pipeline.readers.hdf5_images import scan_hdf5
from trar.pipeline.readers.image import Images
from trar.pipeline.readers.region_tsv import scan_tsv

Identify = Callable[[str], tuple[str | None, int] | None]

FORMS = (".tsv", ".hdf5", ".h5", ".zip", ".tar", ".tar.gz", ".tgz")  # beside plain folders
_HDF5, _ZIP, _GZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x1f\x8b"
_TAR_PLACE, _TAR = 257, b"ustar"


def places_in(folders: Iterable[Path], image_split: str, alias: str | None = None) -> list[Path]:
    """Where the features of ``image_split`` may be: in each folder a sub-folder of that name, or a
    file named after it (``train2014.tar.gz``, ``train2014_obj36.tsv``; HDF5 files also after
    ``alias``: ``train36.hdf5``). Folders come before files, unpacked forms before archives."""
    names = "|".join(re.escape(one) for one in (image_split, alias) if one)
    pattern = re.compile(rf"(?:{names})(?:36|[-_]\w+)?")
    found = []
    for folder in folders:
        matches = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            stem, form = _split_form(path.name)
            if path.is_dir() and path.name == image_split:
                matches.append((-1, path))
            elif form is not None and pattern.fullmatch(stem):
                by_alias = not stem.startswith(image_split)
                if not by_alias or form in (".hdf5", ".h5"):
                    matches.append((FORMS.index(form), path))
        found += [path for _, path in sorted(matches)]
    return found


def find_images(
    candidates: Sequence[Path],
    image_split: str,
    identify: Identify | None = None,
    *,
    expected: Sequence[Path] = (),
    only_split: bool = False,
) -> Images:
    """Open the first candidate that is there.

    ``identify`` maps a file's name to (split it names, image id); ``expected`` are the places that
    the message names when there is none; ``only_split`` takes the files of this split out of a
    folder that holds several.

    Raises:
        RawDataError: none is there, or what is there is something else.
    """
    for place in candidates:
        if place.exists():
            return open_images(place, image_split, identify, only_split=only_split)
    places = ", ".join(str(place) for place in (expected or candidates))
    raise RawDataError(
        f"no image features of {image_split}: expected one of {places}; put the feature files "
        f"there (a folder of .npy, .npz or .pth files, or {', '.join(FORMS)}), or say where they "
        "are with --features"
    )


def open_images(
    place: Path,
    image_split: str,
    identify: Identify | None = None,
    *,
    only_split: bool = False,
) -> Images:
    """The images of a folder, an archive, a TSV or an HDF5 file.

    Raises:
        RawDataError: it holds no features of that split.
    """
    known = identify or identify_image
    if place.is_dir():
        deep = identify is not None  # names of one's own may have folders in them
        return FeatureFiles.scan(place, image_split, known, only_split=only_split, deep=deep)
    with disk_errors(place), place.open("rb") as file:
        head = file.read(_TAR_PLACE + len(_TAR))
    if head.startswith(_HDF5):
        return scan_hdf5(place, image_split)
    if head.startswith(_ZIP):
        if any(name.lower().endswith(".tsv") for name in _member_names(place)):
            return scan_tsv(place, image_split)
        return scan_archive(place, image_split, known)
    if head.startswith(_GZIP) or head[_TAR_PLACE:] == _TAR or b"\0" in head:
        return scan_archive(place, image_split, known)
    if not head:
        raise RawDataError(f"{place}: an empty file; download it again")
    return scan_tsv(place, image_split)


def _member_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []  # scan_archive says what is wrong with it


def _split_form(name: str) -> tuple[str, str | None]:
    for form in sorted(FORMS, key=len, reverse=True):
        if name.lower().endswith(form):
            return name[: -len(form)], form
    return name, None
