"""The tensor in a ``.pth`` file: grid-feats-vqa writes a detector map (1, 2048, H, W) per image.

The file's pickle is scanned before torch sees it: only what one plain tensor needs may be in it,
so loading can neither run code nor set aside more than the file holds. Both of torch's formats are
known: the zip of version 1.6 and later, and the older row of pickles.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers.arrays import image_of_array
from trar.pipeline.readers.grid_map import pool_map
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.readers.raw_file import refuse_large
from trar.pipeline.readers.zip_members import entry_bytes, list_entries

LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # a pickled number
ZIP_PICKLE = "data.pkl"

_LEGACY_PICKLES = 5  # magic, version, platform, the object, its storages' names
_LEGACY_OBJECT = 3
_REBUILD = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
_HARMLESS = "collections OrderedDict"  # the hooks of a tensor: always empty
_STORAGES = tuple(
    f"torch {kind}Storage"
    for kind in ("Float", "Half", "Double", "BFloat16", "Long", "Int", "Short", "Char", "Byte")
)
_CONTAINERS = {
    **dict.fromkeys(("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"), "a dict"),
    **dict.fromkeys(("EMPTY_LIST", "LIST", "APPEND", "APPENDS"), "a list"),
    **dict.fromkeys(("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), "a tuple"),
}
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP")
_ADVICE = "save each image's tensor by torch.save(features.cpu(), path)"


def tensor_image(data: bytes, form: Form, where: str) -> RawImage:
    """The image in the bytes of a ``.pth``; a detector map is pooled to the form's grid.

    Raises:
        RawDataError: damaged, not one plain tensor, or no image in this form.
        ConfigError: a grid that maps cannot be pooled to.
    """
    values = read_tensor(data, where)
    if values.ndim not in (3, 4):
        return image_of_array(values, form, where)
    if form.grid is None:
        raise RawDataError(
            f"{where}: a detector map of shape {values.shape}, which is pooled to a grid; use "
            "--grid 8, 16 or 32 instead of regions"
        )
    return RawImage(pool_map(values, form.grid, where, keep_portrait=form.keep_portrait))


def read_tensor(data: bytes, where: str) -> NDArray[Any]:
    """The one tensor in the bytes of a ``.pth``; bfloat16 as float32.

    Raises:
        RawDataError: damaged, or anything else than one plain tensor.
    """
    if data.startswith(LEGACY_MAGIC):
        _scan_legacy(data, where)
    else:
        _scan_zip(data, where)

    import torch  # slow to import, and only these files need it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about storages of old files
            tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch says of a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise RawDataError(f"{where}: damaged ({reason}); copy or extract it again") from None
    if type(tensor) is not torch.Tensor or tensor.layout is not torch.strided:
        raise RawDataError(f"{where}: holds a {type(tensor).__name__}, not one tensor; {_ADVICE}")
    if tensor.dtype is torch.bfloat16:
        refuse_large(tensor.numel() * 4, where)
        tensor = tensor.float()
    refuse_large(tensor.numel() * tensor.element_size(), where)
    values: NDArray[Any] = np.asarray(tensor.detach().numpy())
    return values


def _scan_zip(data: bytes, where: str) -> None:
    pickle = None
    view = memoryview(data)
    for entry in list_entries(io.BytesIO(data), where):
        if entry.deflated:
            raise RawDataError(f"{where}: a compressed torch file; {_ADVICE}")
        place = f"{where}, {entry.name if entry.name.isprintable() else ascii(entry.name)}"
        content = entry_bytes(lambda start, count: view[start : start + count], entry, place)
        if entry.name.rpartition("/")[2] == ZIP_PICKLE:
            pickle = bytes(content)
    if pickle is None:
        raise RawDataError(f"{where}: a zip without torch's {ZIP_PICKLE}; {_ADVICE}")
    _scan_object(io.BytesIO(pickle), len(data), where)


def _scan_legacy(data: bytes, where: str) -> None:
    stream = io.BytesIO(data)
    for number in range(_LEGACY_PICKLES):
        if number == _LEGACY_OBJECT:
            _scan_object(stream, len(data), where)
        else:
            for opcode, argument, _ in _opcodes(stream, where):
                if opcode in ("GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "BUILD", "BINPERSID"):
                    raise _refused(argument or opcode, where)


def _scan_object(stream: io.BytesIO, size: int, where: str) -> None:
    """Refuse a pickle that is not one plain tensor within ``size`` bytes."""
    storages, last = 0, ""
    for opcode, argument, position in _opcodes(stream, where):
        if opcode == "GLOBAL":
            if argument not in (*_REBUILD, *_STORAGES, _HARMLESS):
                raise _refused(argument, where)
        elif opcode in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2"):
            raise _refused(argument or opcode, where)
        elif opcode == "BINPERSID":
            storages += 1
        elif type(argument) is int and not 0 <= argument <= size:
            raise RawDataError(
                f"{where}: damaged: its pickle says {argument} at byte {position} of it, the file "
                f"has {size} bytes; copy or extract it again"
            )
        if opcode not in _MEMO:
            last = opcode
    if last in _CONTAINERS or storages > 1:
        raise RawDataError(
            f"{where}: holds {_CONTAINERS.get(last, 'an object')} with {storages} tensors, "
            f"expected one tensor; {_ADVICE}"
        )
    if storages == 0:
        raise RawDataError(f"{where}: holds no tensor; {_ADVICE}")


def _opcodes(stream: io.BytesIO, where: str) -> list[tuple[str, Any, int]]:
    try:
        return [
            (opcode.name, argument, position or 0)
            for opcode, argument, position in pickletools.genops(stream)
        ]
    except (ValueError, IndexError, OverflowError, EOFError, AttributeError, TypeError) as error:
        raise RawDataError(
            f"{where}: damaged: its pickle cannot be followed ({error}); copy or extract it again"
        ) from None


def _refused(what: object, where: str) -> RawDataError:
    return RawDataError(
        f"{where}: refused: loading it would run code ({str(what)[:100]!a}); {_ADVICE}"
    )
