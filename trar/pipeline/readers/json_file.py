"""The bytes of JSON out of files and official zips: bounded, every fault one line."""

from __future__ import annotations

import contextlib
import errno
import functools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from trar.errors import RawDataError
from trar.fileio import disk_errors, human_bytes

Value = TypeVar("Value")
Rest = ParamSpec("Rest")

MAX_JSON_BYTES = 4 << 30
MAX_INFLATION = 1200  # inflated bytes to one compressed byte; deflate itself ends at 1032

_BOM = b"\xef\xbb\xbf"
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAGIC = {
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"7z\xbc\xaf": "a 7z archive",
}
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,  # encrypted; NotImplementedError is one too
    ValueError,
)


def in_memory(
    read: Callable[Concatenate[Path, Rest], Value],
) -> Callable[Concatenate[Path, Rest], Value]:
    """Make a reader of a path say in one line that the file is larger than the memory."""

    @functools.wraps(read)
    def checked(path: Path, /, *rest: Rest.args, **named: Rest.kwargs) -> Value:
        try:
            return read(path, *rest, **named)
        except MemoryError:
            raise RawDataError(
                f"{path}: it does not fit into memory; use a machine with more of it, or check "
                "that this is the file that is meant"
            ) from None

    return checked


@in_memory
def read_json_bytes(path: Path, member_hint: str = "") -> bytes:
    """The bytes of a JSON file, or of the one fitting member of a ``.zip``, without a BOM.

    A zip's only ``.json`` member is taken whatever its name; of several, the one whose name is
    ``member_hint`` or contains it. Nothing is unpacked to disk.

    Raises:
        RawDataError: missing, not JSON by its first bytes (web page, archive, UTF-16), of more
            than 4 GiB, or a zip that is damaged, hostile, or leaves the member open.
    """
    if not path.is_file():
        raise RawDataError(f"{path}: no such file; check the path")
    if path.suffix.lower() == ".zip":
        data = _read_member(path, member_hint)
    else:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise RawDataError(
                f"{path}: {human_bytes(size)}, more than the {human_bytes(MAX_JSON_BYTES)} that "
                "any known question file has; is it another file under this name?"
            )
        with disk_errors(path):
            data = path.read_bytes()
    data = data.removeprefix(_BOM)
    refuse_other_kinds(path, data, "JSON")
    return data


@in_memory
def json_members(path: Path) -> list[str]:
    """The names of a zip's ``.json`` members, in its own order.

    Raises:
        RawDataError: not a zip, damaged, or with a member name that leads out of the archive.
    """
    with disk_errors(path), _zip_errors(path), zipfile.ZipFile(path) as archive:
        return [info.filename for info in _json_infos(path, archive)]


def refuse_other_kinds(path: Path, data: bytes, expected: str) -> None:
    """Refuse what is no text in UTF-8 by its first bytes, naming what it is instead.

    Raises:
        RawDataError: empty, an archive, UTF-16, a web page, or a Git LFS pointer.
    """
    head = data[:512].lstrip()
    if not head and not data.strip():
        raise RawDataError(f"{path}: an empty file; download it again")
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            raise RawDataError(
                f"{path}: {kind}, expected {expected} text: unpack it"
                + (" or give it a name that ends in .zip" if _reads_zip(kind, expected) else "")
            )
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RawDataError(
            f"{path}: text in UTF-16 (byte 0 is 0x{data[0]:02x}), expected UTF-8; save it as UTF-8"
        )
    if head.startswith(b"<"):
        raise RawDataError(
            f"{path}: a web page, expected {expected} (it begins with {excerpt(head[:40])}): the "
            "server sent an error page; download it again"
        )
    if head.startswith(b"version https://git-lfs"):
        raise RawDataError(
            f"{path}: a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"
        )


def _reads_zip(kind: str, expected: str) -> bool:
    return kind == "a zip archive" and expected == "JSON"


def excerpt(data: bytes | msgspec.Raw) -> str:
    """The beginning of some bytes as one line of printable text."""
    text = bytes(memoryview(data)[:120]).decode(errors="replace")
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())
    )


def _read_member(path: Path, hint: str) -> bytes:
    with disk_errors(path), _zip_errors(path), zipfile.ZipFile(path) as archive:
        info = _choose(path, _json_infos(path, archive), hint)
        name, size, packed = _shown(info), info.file_size, info.compress_size
        if info.compress_type not in _COMPRESSIONS:
            raise RawDataError(
                f"{path}: {name} is packed by method {info.compress_type}, expected "
                "deflate; unpack it yourself"
            )
        if packed > path.stat().st_size:
            raise RawDataError(
                f"{path}: {name} claims {packed} bytes in an archive of "
                f"{path.stat().st_size}: cut short or damaged; download it again"
            )
        if size > MAX_JSON_BYTES or size > MAX_INFLATION * packed:
            raise RawDataError(
                f"{path}: {name} claims to unpack {packed} bytes to {size}; at most "
                f"{MAX_INFLATION} to one and {human_bytes(MAX_JSON_BYTES)} are taken; "
                "get the archive from its official place"
            )
        with archive.open(info) as member:
            data: bytes = member.read(size + 1)
    if len(data) != size:
        raise RawDataError(
            f"{path}: {name} unpacks to {len(data)} bytes, its header says {size}: "
            "damaged; download it again"
        )
    return data


def _json_infos(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    infos = []
    for info in archive.infolist():
        name = PurePosixPath(info.filename)
        if (
            info.filename.endswith("/")
            or name.suffix.lower() != ".json"
            or name.name.startswith("._")
        ):
            continue
        if name.is_absolute() or ".." in name.parts or "\\" in info.filename:
            raise RawDataError(
                f"{path}: a member is named {_shown(info)}, which leads out of the archive; get "
                "the archive from its official place"
            )
        infos.append(info)
    return infos


def _shown(info: zipfile.ZipInfo) -> str:
    return excerpt(info.filename.encode(errors="replace"))


def _choose(path: Path, infos: list[zipfile.ZipInfo], hint: str) -> zipfile.ZipInfo:
    if len(infos) == 1:
        return infos[0]
    fitting = [info for info in infos if info.filename == hint]
    fitting = fitting or [info for info in infos if hint in PurePosixPath(info.filename).name]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(_shown(info) for info in infos[:8])
    raise RawDataError(
        f"{path}: {len(fitting)} of its {len(infos)} .json members fit {hint!r}, expected one "
        f"({names or 'no .json member'}); unpack the file that is meant"
    )


@contextlib.contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one line; the disk's own refusals pass."""
    try:
        yield
    except _BAD_ZIP as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = excerpt(str(error).encode(errors="replace"))
        raise RawDataError(
            f"{path}: not readable as a zip archive ({reason}): damaged, cut short or encrypted; "
            "download it again"
        ) from None
