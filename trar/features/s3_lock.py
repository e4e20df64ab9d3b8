"""Keeps a second writer out of a dataset in an object store: a lock object with a heartbeat.

The lock is made by a PUT that succeeds only where there is none (``If-None-Match: *``), says who
holds it, and is written anew every ``RENEW_S``. One that was not renewed for ``STALE_S``, by the
server's clock, or whose process on this very machine is gone, belongs to a writer that was killed:
the next one takes it over, by a PUT that succeeds only where it is still that one (``If-Match``).
A server that ignores conditions is caught, as far as that can be, by reading back who holds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import msgspec

from trar.errors import StoreError, TrarError
from trar.features.s3_client import client, is_condition, is_unknown
from trar.features.schema import WORK_FOLDER

LOCK = f"{WORK_FOLDER}/lock"
RENEW_S, STALE_S = 20, 120


class Owner(msgspec.Struct, frozen=True):
    """Who holds a lock: ``machine`` is a digest of the boot and the process numbering of the
    machine, so that ``pid`` is looked for only where it means the same process. ``beat`` counts
    renewals: it makes each version of the lock another one."""

    host: str
    pid: int
    machine: str
    since: str
    token: str
    beat: int = 0


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Lock]:
    """Hold the dataset ``folder`` for writing; the lock is removed at the end.

    Raises:
        StoreError: another writer holds it; the message says who, and when it will be free.
        DiskError: the bucket cannot be used.
    """
    bucket, _, prefix = str(folder).removeprefix("s3://").partition("/")
    lock = Lock(folder, {"Bucket": bucket, "Key": f"{prefix}/{LOCK}"})
    lock.acquire()
    stop = threading.Event()
    beat = threading.Thread(target=lock.keep, args=(stop,), name="trar-lock", daemon=True)
    beat.start()
    try:
        yield lock
    finally:
        stop.set()
        beat.join()
        lock.release()


@dataclass(frozen=True)
class _Found:
    """A lock that is there: whose, which version, and seconds since it was last renewed."""

    owner: Owner | None
    etag: str
    age_s: float


class Lock:
    """The lock object of one dataset folder; ``place`` are its bucket and key."""

    def __init__(self, folder: Path, place: dict[str, str]) -> None:
        self.folder, self._place = folder, place
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._owner = Owner(socket.gethostname(), os.getpid(), _machine(), since, uuid.uuid4().hex)
        self._etag = ""

    def acquire(self) -> None:
        """See ``hold``."""
        while not self._put("IfNoneMatch", "*"):
            found = self._find()
            if found is None:
                continue  # given back in this moment
            if not self._is_dead(found):
                raise self._refusal(found)
            if self._put("IfMatch", found.etag):
                break
        self.check()

    def keep(self, stop: threading.Event) -> None:
        """Renew until told to stop, unless another writer has taken it over."""
        while not stop.wait(RENEW_S):
            with contextlib.suppress(OSError, TrarError):  # the next beat may come through
                self._put("IfMatch", self._etag)

    def check(self) -> None:
        """Ask the server whether the lock is still ours.

        Raises:
            StoreError: it is not.
        """
        if not self._is_ours():
            raise StoreError(
                f"{self.folder}: another trar-data has taken this dataset over, since this one did "
                f"not renew its lock for {STALE_S} s (no network, or the process was suspended); "
                "finished shards are kept"
            )

    def release(self) -> None:
        """Remove the lock if it is ours; one that cannot be removed goes stale."""
        with contextlib.suppress(OSError, TrarError):
            if self._is_ours():
                client().call_s3("delete_object", **self._place)

    def _is_ours(self) -> bool:
        found = self._find()
        return bool(found and found.owner and found.owner.token == self._owner.token)

    def _put(self, condition: str, value: str) -> bool:
        """Write a new version of the lock; False where the condition does not hold."""
        owner = msgspec.structs.replace(self._owner, beat=self._owner.beat + 1)
        lock: dict[str, Any] = {**self._place, "Body": msgspec.json.encode(owner)}
        try:
            put = client().call_s3("put_object", **lock, **{condition: value})
        except OSError as error:
            if is_condition(error):
                return False
            if not is_unknown(error):
                raise
            found = self._find()  # a server without conditions: nearly as good
            if (found.etag if found else "*") != value:
                return False
            put = client().call_s3("put_object", **lock)
        self._owner, self._etag = owner, put["ETag"]
        return True

    def _find(self) -> _Found | None:
        try:
            head = client().call_s3("head_object", **self._place)
            body = client().cat_file("/".join(self._place.values()))
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        try:
            owner = msgspec.json.decode(body, type=Owner)
        except msgspec.DecodeError:
            owner = None
        return _Found(owner, head["ETag"], (now - head["LastModified"]).total_seconds())

    def _is_dead(self, found: _Found) -> bool:
        owner = found.owner
        if owner is not None and owner.machine == self._owner.machine and not _is_alive(owner.pid):
            return True
        return found.age_s > STALE_S

    def _refusal(self, found: _Found) -> StoreError:
        owner = found.owner
        who = f" (process {owner.pid} on {owner.host}, since {owner.since})" if owner else ""
        return StoreError(
            f"{self.folder}: another trar-data{who} is writing this dataset; wait for it to end, "
            f"or choose another --store. Its lock was renewed {found.age_s:.0f} s ago; one that is "
            f"not renewed for {STALE_S} s is of a killed process and will be taken over"
        )


def _machine() -> str:
    """The same for two processes only if they see each other under the same numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        numbering = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return uuid.uuid4().hex
    return hashlib.sha256(f"{boot} {numbering}".encode()).hexdigest()[:16]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
