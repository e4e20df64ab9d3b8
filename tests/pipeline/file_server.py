"""A real HTTP server on this machine that gives files out, with the faults that servers have."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Served:
    """What one path gives. ``faults`` are used up one a request, before the file is given whole.

    A fault is a status code, ``"drop:N"`` (N bytes, then the line breaks), ``"silent:N"`` (N bytes,
    then nothing more comes), or ``"refuse"`` (the line breaks before any answer).
    """

    data: bytes
    ranges: bool = True
    etag: str | None = "auto"
    last_modified: str | None = None
    length: bool = True
    content_type: str = "application/zip"
    redirect: str | None = None
    always: int | None = None
    reason: str | None = None
    faults: list[int | str] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)


class FileServer:
    """Serves ``files`` by path; ``asked`` records (path, Range, If-Range) of each request."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self._stopping = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/{path}"

    def give(self, path: str, data: bytes, **how: Any) -> str:
        self.files[path] = Served(data, **how)
        return self.url(path)

    def ranges_of(self, path: str) -> list[str | None]:
        return [one for asked, one, _ in self.asked if asked == path]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/")
        asked_range = request.headers.get("Range")
        self.asked.append((path, asked_range, request.headers.get("If-Range")))
        request.close_connection = True
        served = self.files.get(path)
        if served is None:
            request.send_error(404)
            return
        fault = served.faults.pop(0) if served.faults else served.always
        if fault == "refuse":
            request.connection.close()
            return
        if isinstance(fault, int):
            request.send_response(fault, served.reason)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if served.redirect:
            request.send_response(302)
            request.send_header("Location", served.redirect)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        self._send(request, served, asked_range, fault)

    def _send(
        self,
        request: http.server.BaseHTTPRequestHandler,
        served: Served,
        asked_range: str | None,
        fault: str | None,
    ) -> None:
        data = served.data
        etag = served.etag
        if etag == "auto":
            etag = f'"{hashlib.md5(data).hexdigest()}"'
        start = 0
        if asked_range and served.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked_range)[1])  # type: ignore[index]
            condition = request.headers.get("If-Range")
            if condition and condition not in (etag, served.last_modified):
                start = 0
            elif start >= len(data):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(data)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if etag:
            request.send_header("ETag", etag)
        if served.last_modified:
            request.send_header("Last-Modified", served.last_modified)
        if served.length:
            request.send_header("Content-Length", str(len(data) - start))
        request.send_header("Content-Type", served.content_type)
        for name, value in served.extra.items():
            request.send_header(name, value)
        request.end_headers()
        kind, _, count = (fault or "").partition(":")
        body = data[start : start + int(count)] if count else data[start:]
        request.wfile.write(body)
        request.wfile.flush()
        while kind == "silent" and not self._stopping.wait(0.05):
            time.sleep(0)
