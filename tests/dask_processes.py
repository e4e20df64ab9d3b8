"""A dask cluster of real processes on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

DASK = Path(sysconfig.get_path("scripts")) / "dask"


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, DASK, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextlib.contextmanager
def running(*processes: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def scheduling(folder: Path) -> Iterator[str]:
    """A scheduler's address."""
    file = folder / "scheduler.json"
    process = start(
        "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file
    )
    with running(process):
        while not file.exists() or not file.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]


def worker(address: str, name: str) -> subprocess.Popen:
    return start(
        "worker", address, "--nthreads", 1, "--no-nanny", "--host", "127.0.0.1", "--name", name,
        "--no-dashboard",
    )  # fmt: skip
