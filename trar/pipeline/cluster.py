"""Processes that write shards: dask workers on this machine, or a dask cluster of the user's."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trar
from trar.errors import ConfigError, TrarError
from trar.features.place import open_place, place_of

CONNECT_S = 30


@contextlib.contextmanager
def local_workers(processes: int) -> Iterator[Any]:
    """A dask client of that many processes on this machine.

    They are started with SIGINT ignored, which they inherit: a terminal sends Ctrl-C to all of
    them, but ending them is this process's work.
    """
    from distributed import Client, LocalCluster

    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=processes,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: None would insist on 8787
            silence_logs="CRITICAL",
        )
    finally:
        if here:
            signal.signal(signal.SIGINT, before)
    with cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]
        yield client


@contextlib.contextmanager
def cluster_at(address: str, folder: Path) -> Iterator[Any]:
    """A dask client of the cluster whose scheduler is at ``address`` (``tcp://host:port``).

    Its workers must have this version of trar and see the store's ``folder`` under the same path;
    where that is on S3 they need the AWS settings as well, which are never sent to them.

    Raises:
        ConfigError: no address.
        TrarError: nobody answers there, no worker is connected, or a worker cannot do the work.
    """
    from distributed import Client

    if "://" not in address:
        raise ConfigError(
            f"--scheduler {address}: expected an address like tcp://10.0.0.1:8786, as "
            "`dask scheduler` prints it"
        )
    try:
        client = Client(address, timeout=CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise TrarError(
            f"--scheduler {address}: no dask scheduler answers there ({error}); start one with "
            "`dask scheduler` and workers with `dask worker`"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise TrarError(
                f"--scheduler {address}: it has no worker; start some with "
                f"`dask worker {address} --nthreads 1`"
            ) from None
        _check_workers(client.run(_describe, str(folder)))
        yield client


def _describe(folder: str) -> tuple[str, str | None]:
    """Runs on a worker: its version of trar, and why it cannot write where the store is."""
    try:
        place_of(open_place(folder)).need_write()
    except TrarError as error:
        return trar.__version__, str(error)
    return trar.__version__, None


def _check_workers(found: dict[str, tuple[str, str | None]]) -> None:
    for worker, (version, refusal) in found.items():
        if version != trar.__version__:
            raise TrarError(
                f"worker {worker} has trar {version}, this is {trar.__version__}: install the same "
                "version on every machine"
            )
        if refusal is not None:
            raise TrarError(f"worker {worker} cannot write to the store: {refusal}")
