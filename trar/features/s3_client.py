"""The connection to an S3 server, one a process, and what its refusals mean to a user.

Server and credentials come from the environment and AWS's own files, as for every AWS tool:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as NoConnectionError
from s3fs import S3FileSystem

from trar.errors import DiskError, TrarError

_BLOCK_BYTES = 8 << 20  # what is read ahead of a file that is read from its beginning
_CONNECTIONS = 32
_CONDITION = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_UNKNOWN = {"NotImplemented", "501"}
_ANSWERS = {"NoSuchKey", "404", "InvalidRange", "416"} | _CONDITION | _UNKNOWN
_clients: dict[tuple[int, tuple[tuple[str, str], ...]], Client] = {}


class Client(S3FileSystem):  # type: ignore[misc]
    """s3fs, with one-line errors for what a user can mend. Missing objects stay
    FileNotFoundError, refused conditions FileExistsError or OSError."""

    cachable = False

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._call_s3(method, *args, **kwargs)
        except Exception as error:
            explained = explain(error, kwargs.get("Bucket", ""), kwargs.get("Key"))
            if explained is None:
                raise
            raise explained from error


def client() -> Client:
    """This process's connection, made anew where the environment's settings have changed.

    Those of a parent process are kept, so that nothing of them is closed here."""
    settings = sorted(one for one in os.environ.items() if one[0].startswith("AWS_"))
    key = os.getpid(), tuple(settings)
    if key not in _clients:
        _clients[key] = Client(
            use_listings_cache=False,
            default_block_size=_BLOCK_BYTES,
            config_kwargs={"max_pool_connections": _CONNECTIONS, "connect_timeout": 10},
        )
    return _clients[key]


def ranges(
    places: Sequence[tuple[str, int, int]],
) -> Iterator[tuple[int, bytes | Exception]]:
    """Bytes ``start`` to ``stop`` of each (path, start, stop), all asked for at once, as they come:
    the number of the place and its bytes, fewer than asked for at an object's end, or the error."""
    connection = client()

    async def fetch(number: int) -> tuple[int, bytes | Exception]:
        path, start, stop = places[number]
        try:
            return number, await connection._cat_file(path, start=start, end=stop)
        except Exception as error:
            return number, explain(error, *path.removeprefix("s3://").split("/", 1)) or error

    futures = [
        asyncio.run_coroutine_threadsafe(fetch(number), connection.loop)
        for number in range(len(places))
    ]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def explain(error: Exception, bucket: str, key: str | None = None) -> TrarError | None:
    """What went wrong in one line, or None where the caller knows better."""
    where = f"s3://{bucket}/{key}" if key else f"s3://{bucket}"
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    code = _code(error)
    if code == "NoSuchBucket":
        return DiskError(
            f"s3://{bucket}: no such bucket at {server}; correct --store, or make the bucket "
            f"(aws s3 mb s3://{bucket})"
        )
    if isinstance(error, PermissionError):
        return DiskError(
            f"{where}: access denied by {server} ({code}: {error}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and what the bucket's policy allows"
        )
    if isinstance(error, NoCredentialsError):
        return DiskError(
            f"{where}: no AWS credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE"
        )
    if isinstance(error, (NoConnectionError, HTTPClientError, aiohttp.ClientError, TimeoutError)):
        return DiskError(
            f"{where}: {server} cannot be reached ({line(error)}); check AWS_ENDPOINT_URL and the "
            "network, then run the same command again"
        )
    if isinstance(error, BotoCoreError):
        return DiskError(f"{where}: {line(error)}")
    if code and code not in _ANSWERS:
        return DiskError(
            f"{where}: {server} failed ({code}: {line(error)}); run the same command again later"
        )
    return None


def is_condition(error: Exception) -> bool:
    """Whether a conditional request was refused because of its condition."""
    return _code(error) in _CONDITION


def is_unknown(error: Exception) -> bool:
    """Whether the server does not know what was asked for."""
    return _code(error) in _UNKNOWN


def _code(error: Exception) -> str:
    cause = error if isinstance(error, ClientError) else error.__cause__
    return str(cause.response["Error"].get("Code")) if isinstance(cause, ClientError) else ""


def line(error: Exception) -> str:
    """An error's text as one line."""
    return " ".join(str(error).split())
