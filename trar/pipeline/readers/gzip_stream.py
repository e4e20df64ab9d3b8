"""Random access into gzip data, by seek points.

One pass leaves the points (32 KiB each, at most about 4096 of them: 128 MiB), from which any byte
is at most a few MiB of inflating away. The process that lists an archive makes that pass and
exports the points to a file; processes that are sent the stream import them, or make the pass
themselves where that file is not (another machine).

Offsets and sizes are in bytes of the decoded data, unless said otherwise.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from indexed_gzip import IndexedGzipFile

from trar.errors import DiskError, RawDataError
from trar.pipeline.readers.archive_bytes import Archive
from trar.pipeline.readers.gzip_source import GzipSource

_SPACING = 1 << 20  # the least: closer points save no time worth their memory
_POINTS = 4096
_AHEAD = 8 << 20
_BUFFER = 1 << 20
_OPEN_STREAMS = 4
_FOLDER = "trar-index-"
_ENDS_READ = 1 << 17  # reads at the end: more than the many short streams of one block need

# what indexed_gzip raises: subclasses of OSError and ValueError, and whatever its source raised
_STREAM_ERRORS = (OSError, ValueError, EOFError, SystemError, MemoryError, OverflowError)


@dataclass(frozen=True, slots=True)
class GzipStream:
    """What a gzip source decodes to, as random access bytes; small, and opened once a process.

    ``index_file`` is where the process that listed the archive leaves the seek points.
    """

    source: GzipSource
    index_file: str

    def decoded_size(self) -> int:
        """How much it inflates to; makes the pass that finds the seek points where none has.

        Raises:
            RawDataError: cut short or damaged.
        """
        return _opened(self).size

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; fewer only where the data end.

        Raises:
            RawDataError: cut short or damaged.
        """
        return _opened(self).read_at(offset, count)


def new_index_file(archive: Archive, start: int) -> str:
    """Where this process will leave the seek points of what begins at ``start`` of an archive; the
    same place for the same data.

    Raises:
        DiskError: there is no place for temporary files.
    """
    key = f"{archive.path.absolute()} {archive.stamp(start)}".encode(errors="surrogateescape")
    return str(_index_folder() / hashlib.sha256(key).hexdigest())


class _SourceFile:
    """A gzip source as the file object that indexed_gzip reads."""

    def __init__(self, source: GzipSource) -> None:
        self._source = source
        self._position = 0
        self.ends_read = 0
        self.before_read: Callable[[], None] = lambda: None

    def read(self, count: int) -> bytes:
        self.before_read()
        data = self._source.read_at(self._position, count)
        self._position += len(data)
        if not data:
            self.ends_read += 1
            if self.ends_read > _ENDS_READ:
                raise EOFError("the data end early")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}
        self._position = starts.get(whence, 0) + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True


class _OpenStream:
    """What a process keeps of a stream: its seek points and the last bytes it inflated."""

    def __init__(self, stream: GzipStream) -> None:
        self._source = stream.source
        self._index_file = Path(stream.index_file)
        self._lock = threading.Lock()
        self._window = bytearray()
        self._window_start = 0
        self._encoded = _SourceFile(stream.source)
        self._spacing = _SPACING
        self.size = 0
        if not self._import_points():
            self._find_points()

    def read_at(self, offset: int, count: int) -> bytes:
        with self._lock:
            count = min(count, self.size - offset)
            if count <= 0:
                return b""
            first = offset - self._window_start
            if first < 0 or first + count > len(self._window):
                # every inflating starts at a seek point: who reads on gets much at once
                reads_on = 0 <= first <= len(self._window) + self._spacing
                wanted = max(count, 4 * self._spacing, _AHEAD) if reads_on else count
                self._window = self._inflate(offset, min(wanted, self.size - offset))
                self._window_start, first = offset, 0
            return bytes(memoryview(self._window)[first : first + count])

    def _inflate(self, offset: int, count: int) -> bytearray:
        data = bytearray(count)
        self._encoded.ends_read = 0
        try:
            self._file.raw.seek(offset)
            found = self._file.raw.readinto(memoryview(data))
        except _STREAM_ERRORS as error:
            raise self._damaged(error) from None
        if found != count:
            raise self._damaged(f"{found} bytes at {offset}, expected {count}")
        return data

    def _import_points(self) -> bool:
        if not self._index_file.is_file():
            return False
        try:
            self._file = self._new_file(_SPACING)
            self._file.raw.import_index(str(self._index_file))
            self._measure()
        except _STREAM_ERRORS:
            return False
        return True

    def _find_points(self) -> None:
        guess = 1.1 * self._source.size * self._source.sampled_ratio()
        spacing = _SPACING
        while spacing * _POINTS < guess:
            spacing *= 2
        while not self._build(spacing):
            spacing *= 4
        stated = int.from_bytes(self._source.read_at(self._source.size - 4, 4), "little")
        if self.size % (1 << 32) != stated:
            # cut short, which indexed_gzip does not say, or more after the first stream's end
            found = self._source.check()
            if found != self.size:
                raise self._damaged(f"{self.size} of {found} bytes could be indexed")
        self._export_points()

    def _build(self, spacing: int) -> bool:
        """One pass; False if it would leave too many points, as data of changing ratio do."""
        limit, too_many = _POINTS, False

        def refuse_many() -> None:
            nonlocal limit, too_many
            if file.raw.npoints > limit:
                [(decoded, _)] = deque(file.raw.seek_points(), maxlen=1)
                too_many = decoded > _POINTS * spacing
                if too_many:
                    raise EOFError("too many points")
                limit *= 2  # many short streams in a row: their points are bare numbers

        try:
            file = self._file = self._new_file(spacing)
            self._encoded.before_read = refuse_many
            file.raw.build_full_index()
            self._measure()
        except _STREAM_ERRORS as error:
            if too_many:
                return False
            if self._source.check() > 0:
                raise self._damaged(error) from None
            self.size = 0  # sound, and nothing in it
        finally:
            self._encoded.before_read = lambda: None
        return True

    def _new_file(self, spacing: int) -> IndexedGzipFile:
        self._encoded.ends_read = 0
        return IndexedGzipFile(fileobj=self._encoded, spacing=spacing, buffer_size=_BUFFER)

    def _measure(self) -> None:
        self.size = self._file.raw.seek(0, os.SEEK_END)
        self._spacing = max(_SPACING, self.size // max(self._file.raw.npoints, 1))

    def _export_points(self) -> None:
        """Best effort: processes that find no file make their own pass."""
        partial = self._index_file.with_name(f"{self._index_file.name}.{os.getpid()}")
        with contextlib.suppress(*_STREAM_ERRORS):
            self._file.raw.export_index(str(partial))
            partial.replace(self._index_file)

    def _damaged(self, why: object) -> RawDataError:
        self._source.check()  # says it better, where it finds the fault
        return RawDataError(f"{self._source.name}: damaged ({why}); download it again")


_streams: OrderedDict[GzipStream, _OpenStream] = OrderedDict()
_streams_lock = threading.Lock()


def _opened(stream: GzipStream) -> _OpenStream:
    with _streams_lock:
        opened = _streams.get(stream)
        if opened is None:
            opened = _streams[stream] = _OpenStream(stream)
            if len(_streams) > _OPEN_STREAMS:
                _streams.popitem(last=False)
        else:
            _streams.move_to_end(stream)
        return opened


def _start_afresh() -> None:
    global _streams_lock
    _streams_lock = threading.Lock()
    _streams.clear()


@functools.cache
def _index_folder() -> Path:
    try:
        for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
            owner = left.name.removeprefix(_FOLDER).partition("-")[0]
            if owner.isdecimal() and not _is_running(int(owner)):  # it was killed
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    except OSError as error:
        raise DiskError(
            f"no temporary folder for the seek points of archives ({error}); set TMPDIR to a "
            "folder with some hundred MiB free"
        ) from None
    atexit.register(_remove_index_folder, folder, os.getpid())
    return folder


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _remove_index_folder(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process leaves it to the one that made it
        shutil.rmtree(folder, ignore_errors=True)


os.register_at_fork(after_in_child=_start_afresh)
