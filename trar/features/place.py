"""Where a store can be, and what writing one asks of such a place.

A store is in a local folder or below ``s3://bucket/prefix``. Both are handled as a ``Path``:
``folder / name``, ``read_bytes``, ``exists``, ``stat`` work on either. What differs, because an
object store has no rename, no lock on a folder and no disk to fill, stands in ``Place`` and nowhere
else. Names are POSIX paths relative to the place's folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeGuard, TypeVar, cast

from trar.errors import ConfigError, DiskError, StoreError
from trar.features.schema import WORK_FOLDER
from trar.fileio import disk_errors, need_files, need_space, sha256_file, sync_file, sync_folder

Item = TypeVar("Item")
Result = TypeVar("Result")

PARTIAL = "*.partial"


def open_place(place: str | os.PathLike[str]) -> Path:
    """The path of a local folder or of an ``s3://bucket/prefix``; touches neither.

    ``s3:/bucket``, what pathlib makes of such a text, is understood as well.

    Raises:
        ConfigError: another kind of address, no bucket, or S3 without the packages for it.
    """
    if is_remote(place):
        return place
    text = os.fspath(place)
    kind, slash, rest = text.partition(":/")
    if not slash or "/" in kind:
        return Path(text)
    if kind != "s3":
        raise ConfigError(f"{text}: a store is in a local folder or at s3://bucket/prefix")
    bucket, _, prefix = rest.lstrip("/").partition("/")
    if not bucket or not prefix.strip("/"):
        raise ConfigError(f"{text}: expected s3://bucket/prefix")
    try:
        from trar.features.s3 import S3Folder
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{text}: {error.name} is not installed; stores on S3 need it: pip install "trar[s3]"'
        ) from None
    return cast(Path, S3Folder(f"s3://{bucket}/{prefix.strip('/')}"))


def is_remote(place: object) -> TypeGuard[Path]:
    """Whether a path is in an object store."""
    return getattr(place, "protocol", None) == "s3"


class Place(Protocol):
    """What differs between places. Everything raises DiskError where a place cannot be used."""

    folder: Path

    def hold(self) -> contextlib.AbstractContextManager[Hold]:
        """Keep other writers out; StoreError where one is in."""

    def need_room(self, size_bytes: int, files: int, in_flight_bytes: int) -> None:
        """Refuse before the first byte what cannot end well: ``size_bytes`` in ``files`` are going
        to be written, at most ``in_flight_bytes`` of them at a time."""

    def need_write(self) -> None:
        """Refuse where this process may not write."""

    def workshop(self, size_bytes: int) -> contextlib.AbstractContextManager[Path]:
        """A local folder to make up to ``size_bytes`` of files in before they are ``put``."""

    def stage(self) -> contextlib.AbstractContextManager[Path]:
        """A local folder laid out like this one, for files that are made in their places."""

    def aside(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local folder for files that may take the places of others; it is removed at the end,
        or kept for the next try if that is a bad one and the place can."""

    def put(self, made: Mapping[str, Path]) -> None:
        """Put finished local files into their places, each at one instant, durably."""

    def rename(self, names: Mapping[str, str]) -> None:
        """Give files of this place other names in it; stopped, the same call can go on."""

    def link(self, names: Mapping[str, str]) -> None:
        """Let files be known by a second name each, without reading them where that can be."""

    def tail(self, name: str, size_bytes: int) -> bytes:
        """The last bytes of a file, fewer where it has fewer."""

    def arrays(self, name: str) -> Any:
        """What zarr-python reads everything below ``name`` from: a path or a store of its own."""

    def sha256(self, name: str, size_bytes: int) -> str:
        """The hex digest of a file of that size."""

    def sizes(self) -> dict[str, int]:
        """Every file below the folder and its bytes, sorted; none where there is no folder."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and folders that are empty then."""

    def remove_folder(self, name: str) -> None:
        """Remove a folder and everything in it, if it is there."""

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """``map``, with as many calls at once as the place rewards."""


class Hold(Protocol):
    """The right to write, until it is given back."""

    def check(self) -> None:
        """StoreError if it was lost meanwhile."""


def place_of(folder: Path) -> Place:
    """How to write at ``folder``; touches nothing yet."""
    if is_remote(folder):
        from trar.features.s3 import S3Place

        return S3Place(folder)
    return LocalPlace(folder)


class LocalPlace:
    """A folder of this machine: files appear by rename, an flock keeps other writers out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def hold(self) -> Iterator[Hold]:
        """An flock on the folder itself: it dies with its process and leaves no file behind."""
        new = [path for path in (self.folder, self.folder.parent) if not path.exists()]
        with disk_errors(self.folder):
            (self.folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"{self.folder}: another trar-data is writing this dataset; wait for it to "
                    "end, or choose another --store"
                ) from None
            yield _Held()
        except BaseException:
            self._leave_nothing(new)
            raise
        finally:
            os.close(lock)

    def need_room(self, size_bytes: int, files: int, in_flight_bytes: int) -> None:
        need_space(self.folder, size_bytes, "this store")
        need_files(self.folder, files, "this store")

    def need_write(self) -> None:
        if not os.access(self.folder, os.W_OK):
            raise DiskError(
                f"{self.folder} cannot be written here: --store and --raw must be on a disk that "
                "every machine has under the same path"
            )

    @contextlib.contextmanager
    def workshop(self, size_bytes: int) -> Iterator[Path]:
        yield self.folder / WORK_FOLDER

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """The folder itself; a killed writer's partial files are removed, the hold says that nobody
        else is writing."""
        with disk_errors(self.folder):
            (self.folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
            for partial in [
                *(self.folder / WORK_FOLDER).glob(PARTIAL),
                *self.folder.glob(f".{PARTIAL}"),
            ]:
                partial.unlink()
        yield self.folder

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        yield self.folder / WORK_FOLDER / name
        shutil.rmtree(self.folder / WORK_FOLDER / name, ignore_errors=True)

    def put(self, made: Mapping[str, Path]) -> None:
        with disk_errors(self.folder):
            for name, path in made.items():
                sync_file(path)
                target = self.folder / name
                if path != target:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
                    sync_folder(target.parent)

    def rename(self, names: Mapping[str, str]) -> None:
        with disk_errors(self.folder):
            for old, new in names.items():
                target = self.folder / new
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / old).replace(target)
            for folder in {(self.folder / new).parent for new in names.values()}:
                sync_folder(folder)

    def link(self, names: Mapping[str, str]) -> None:
        for old, new in names.items():
            target = self.folder / new
            if target.exists():
                continue
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(self.folder / old)
                except OSError:  # no links there
                    shutil.copy2(self.folder / old, target)

    def tail(self, name: str, size_bytes: int) -> bytes:
        with (self.folder / name).open("rb") as file:
            file.seek(-min(size_bytes, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read()

    def arrays(self, name: str) -> Any:
        return self.folder

    def sha256(self, name: str, size_bytes: int) -> str:
        return sha256_file(self.folder / name)

    def sizes(self) -> dict[str, int]:
        return {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def remove(self, names: Iterable[str]) -> None:
        with disk_errors(self.folder):
            for name in names:
                path = self.folder / name
                path.unlink()
                while (path := path.parent) != self.folder and not any(path.iterdir()):
                    path.rmdir()

    def remove_folder(self, name: str) -> None:
        with disk_errors(self.folder), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder / name)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return map(function, items)

    def _leave_nothing(self, new: list[Path]) -> None:
        """Remove the folders that this hold has made, unless shards were finished in them."""
        if new and not any((self.folder / WORK_FOLDER).iterdir()):
            shutil.rmtree(self.folder)
            for parent in new[1:]:
                parent.rmdir()


class _Held:
    """An flock cannot be lost."""

    def check(self) -> None:
        pass
