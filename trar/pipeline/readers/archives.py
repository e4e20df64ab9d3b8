"""Archives of feature files, read where they lie: ``.zip``, ``.tar`` and ``.tar.gz``, told apart by
their content. Nothing is unpacked, and no name in an archive is ever used as a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from trar.errors import RawDataError
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.feature_files import (
    FeatureFiles,
    Identify,
    identify_image,
    select_images,
)
from trar.pipeline.readers.image_file import looks_like
from trar.pipeline.readers.raw_file import RawFile, member_name
from trar.pipeline.readers.tar_members import (
    BLOCK,
    is_tar_header,
    list_gzipped_tar,
    list_tar,
)
from trar.pipeline.readers.zip_members import list_zip

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_GZIP = b"\x1f\x8b"
_OTHERS = (b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")
_SPLIT_FOLDER = re.compile(r"(train|val|test)([A-Z]?)([0-9]{4})?")
_DRIVE = re.compile(r"[A-Za-z]:")


def scan_archive(path: Path, image_split: str, identify: Identify = identify_image) -> FeatureFiles:
    """The feature files of a split in an archive, in any of its folders.

    An archive may hold several splits, where folders or names say which (``val2014/9.npy``).
    Of a ``.tar.gz`` all is inflated once, so that images can then be read in any order.

    Raises:
        RawDataError: no archive, one that cannot be read in place, cut short or damaged, a member
            whose name leads out of it, no feature files, or two of one image.
        DiskError: it may not be read.
    """
    named = _named(path, image_split, identify)
    return select_images(named, str(path), image_split, identify, only_split=True)


def list_members(path: Path) -> Iterator[tuple[str, RawFile, bool]]:
    """(name, file, whether its bytes are there) of each file in an archive; a link has none.

    Raises:
        RawDataError, DiskError: as ``scan_archive``.
    """
    archive = Archive.of(path)
    head = archive.read_at(0, BLOCK)
    if head.startswith(_ZIP):
        for member in list_zip(path):
            yield _safe(member.entry.name, archive), member, True
    elif head.startswith(_GZIP):
        for entry, gzipped in list_gzipped_tar(archive):
            yield _safe(entry.name, archive), gzipped, entry.plain
    elif is_tar_header(head) and head.strip(b"\0"):
        for entry, ranged in list_tar(archive):
            yield _safe(entry.name, archive), ranged, entry.plain
    elif head.startswith(_OTHERS):
        raise RawDataError(
            f"{path}: {looks_like(head)}, which cannot be read in place; unpack it, or pack the "
            "feature files again as .tar, .tar.gz or .zip"
        )
    else:
        raise RawDataError(
            f"{path}: {looks_like(head)} of {archive.size} bytes, expected a .zip, .tar or .tar.gz "
            "archive of feature files; cut short or another file under this name? download it again"
        )


def _named(
    path: Path, image_split: str, identify: Identify
) -> Iterator[tuple[str, str | None, RawFile]]:
    for name, file, plain in list_members(path):
        *folders, base = name.split("/")
        if base.startswith("._") or "__MACOSX" in folders:  # notes that macOS leaves in archives
            continue
        if not plain and identify(name) is not None:
            raise RawDataError(
                f"{file.name}: a link or a sparse file; pack it again with its bytes (tar "
                "--dereference --hard-dereference, without --sparse)"
            )
        yield name, _folder_split(folders, image_split), file


def _safe(name: str, archive: Archive) -> str:
    """The name with / between its parts.

    Raises:
        RawDataError: it leads out of the archive.
    """
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or _DRIVE.match(parts[0]):
        raise RawDataError(
            f"{member_name(archive, name)}: a name that leads out of the archive; do not trust it, "
            "or pack it again with plain names"
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _folder_split(folders: list[str], image_split: str) -> str | None:
    """The split that the innermost telling folder states: ``image_split`` or another one's name."""
    wanted = _SPLIT_FOLDER.fullmatch(image_split)
    for folder in reversed(folders):
        if folder == image_split:
            return image_split
        stated = _SPLIT_FOLDER.fullmatch(folder)
        if stated is not None and wanted is not None:
            same_year = None in (stated[3], wanted[3]) or stated[3] == wanted[3]
            return image_split if stated.group(1, 2) == wanted.group(1, 2) and same_year else folder
    return None
