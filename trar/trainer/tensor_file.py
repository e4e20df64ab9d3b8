"""Safetensors files with a crc32c per tensor, written without a second copy in memory.

The library's own ``save`` needs twice the checkpoint in memory, and its ``save_file`` renames a
file of its own, around ``atomic_write`` and its fsync. The format is a length, a JSON header and
the tensors' bytes: https://github.com/huggingface/safetensors#format. Reading is the library's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from crc32c import crc32c
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trar.errors import CheckpointError
from trar.fileio import atomic_write

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8
_CHECKSUMS = "crc32c"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; ``metadata`` gains the checksums.

    Raises:
        DiskError: no space or no permission; an older file of that name is untouched.
    """
    # as in the library: larger elements first, so that every tensor is aligned
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    buffers = {name: _bytes(tensor) for name, tensor in ordered}
    checksums = {name: crc32c(buffer) for name, buffer in buffers.items()}
    header: dict[str, object] = {"__metadata__": {**metadata, _CHECKSUMS: json.dumps(checksums)}}
    offset = 0
    for name, tensor in ordered:
        end = offset + buffers[name].nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for buffer in buffers.values():
            file.write(buffer)


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors.

    Raises:
        CheckpointError: missing, cut short, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such checkpoint; give a run's folder, or a file in it"
        ) from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not readable as safetensors ({error}): cut short, damaged, or no checkpoint; "
            "use another checkpoint of the run"
        ) from None


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by the rest of their names, each checked.

    Raises:
        CheckpointError: see ``read_metadata``, or a tensor that does not match its checksum.
    """
    checksums = json.loads(read_metadata(path)[_CHECKSUMS])
    tensors = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (no dict: it cannot be iterated)
            if not name.startswith(prefix):
                continue
            tensor = file.get_tensor(name)
            if crc32c(_bytes(tensor)) != checksums.get(name):
                raise CheckpointError(
                    f"{path}: tensor {name} does not match its crc32c: damaged; "
                    "use another checkpoint of the run"
                )
            tensors[name.removeprefix(prefix)] = tensor
    return tensors


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor; no copy where it lies contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().numpy().reshape(-1).view(np.uint8).data
