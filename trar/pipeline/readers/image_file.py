"""One image's file of features, read by what it is and not by what it is called."""

from __future__ import annotations

from trar.errors import RawDataError
from trar.pipeline.readers import arrays, torch_tensor
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.readers.npy_format import NPY_MAGIC
from trar.pipeline.readers.raw_file import RawFile

_ZIP = b"PK\x03\x04"
_HEAD_BYTES = 512
_KINDS = (
    (b"\x1f\x8b", "a gzip file"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"\x89HDF", "an HDF5 file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (_ZIP, "a zip archive"),
    (NPY_MAGIC, "a .npy file"),
    (b"PAR1", "a Parquet file"),
    (b"\x80", "a pickle, which is never loaded"),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head")


def read_image(file: RawFile, form: Form) -> RawImage:
    """The image in a ``.npy``, ``.npz`` or ``.pth`` file, whatever its name.

    Raises:
        RawDataError: another kind of file, damaged, or no image in this form.
        ConfigError: a grid that detector maps cannot be pooled to.
    """
    data = file.read()
    if _is_torch(data):
        return torch_tensor.tensor_image(data, form, file.name)
    _refuse_others(data, file)
    return arrays.array_image(data, form, file.name)


def count_regions(file: RawFile, form: Form) -> int:
    """How many regions an image has, by headers alone where the file's form allows.

    Raises:
        RawDataError: as ``read_image``, as far as the headers tell.
    """
    with file.open() as stream:
        head = stream.read(_HEAD_BYTES)
    if _is_torch(head):
        return len(read_image(file, form).features)
    _refuse_others(head, file)
    return arrays.count_regions(file, form)


def looks_like(head: bytes) -> str:
    """What a file is by its first bytes, for messages."""
    if not head:
        return "an empty file"
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith(_PAGES):
        return "a web page (an error page under this name?)"
    if not head.strip(b"\0"):
        return "zeros (a download that was begun and never filled?)"
    if start.startswith((b"{", b"[")):
        return "JSON text"
    text = head[:40].decode("ascii", "replace")
    if all(one.isprintable() or one.isspace() for one in text) and "�" not in text:
        return f"text that begins {text!r}"
    return f"a file that begins {head[:8]!r}"


def _is_torch(head: bytes) -> bool:
    if head.startswith(_ZIP):  # torch writes its pickle first
        name_size = int.from_bytes(head[26:28], "little")
        return head[30 : 30 + name_size].endswith(torch_tensor.ZIP_PICKLE.encode())
    return head.startswith(torch_tensor.LEGACY_MAGIC)


def _refuse_others(head: bytes, file: RawFile) -> None:
    if not head.startswith((NPY_MAGIC, _ZIP)):
        raise RawDataError(
            f"{file.name}: {looks_like(head[:_HEAD_BYTES])}, expected features as .npy, .npz or "
            ".pth; extract or download this image again"
        )
