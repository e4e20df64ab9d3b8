"""One regular file, read through the operating system; each of its refusals is one line."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trar.errors import RawDataError
from trar.fileio import disk_errors

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe would wait for its writer


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[int, int]]:
    """The descriptor of a regular file, and its size.

    Raises:
        RawDataError: a folder, a pipe or a device.
    """
    handle = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise RawDataError(f"{path}: {what}, expected a file; put the file itself there")
        yield handle, status.st_size
    finally:
        os.close(handle)


def read_fully(handle: int, offset: int, count: int) -> bytes:
    """``count`` bytes from ``offset``; fewer only where the file ends."""
    data = os.pread(handle, count, offset)
    while data and len(data) < count:  # the system gives at most 2 GiB a call
        more = os.pread(handle, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the operating system says about ``path`` into one line.

    Raises:
        DiskError: it may not be read, or the disk is at fault.
        RawDataError: it is missing, or cannot be read for another reason.
    """
    try:
        with disk_errors(path):
            yield
    except FileNotFoundError:
        raise RawDataError(
            f"{path}: missing: moved or deleted since, or a link that leads nowhere; put it back"
        ) from None
    except OSError as error:
        raise RawDataError(f"{path}: cannot be read ({error}); copy or download it again") from None


def cut_short(where: str, found: int, expected: int) -> RawDataError:
    """The error of bytes that end early."""
    return RawDataError(
        f"{where}: cut short at {found} bytes, expected {expected}; copy or download it again"
    )
