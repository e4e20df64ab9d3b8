"""One published file over HTTP: resumed after a break, from the first mirror that has it whole.

The bytes gather in a partial file beside the target; size, then digest, are checked before it takes
the target's name. Ctrl-C, a full disk or a dead line leave it there, and the next run goes on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

import trar
from trar.errors import RawDataError
from trar.features.progress import Progress
from trar.fileio import need_space
from trar.pipeline.manifest import Archive
from trar.pipeline.partial_file import Note, PartialFile
from trar.pipeline.published import Proof, check_published

_BLOCK = 1 << 16  # what a broken connection may cost
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that a second try may change
_FINAL_ERRORS = (
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18})")
_PAGE = re.compile(rb"\s*<(?:!doctype html|html|head|\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server: ``silent_s`` seconds without a byte end a request; ``tries``
    requests in a row without any gain end a mirror. Pauses between them double from ``pause_s``."""

    connect_s: float = 20.0
    silent_s: float = 60.0
    tries: int = 4
    pause_s: float = 1.0


PATIENT = Patience()


@dataclass(frozen=True)
class Downloaded:
    """From which URL a file came, and what proves it."""

    url: str
    proof: Proof


def download(
    archive: Archive,
    urls: Sequence[str],
    target: Path,
    patience: Patience = PATIENT,
    progress: Progress = lambda *_: None,
) -> Downloaded:
    """Fetch ``archive`` to ``target``, from the first of ``urls`` that gives it whole and right.

    Raises:
        RawDataError: no mirror did, with the reason of each; ``target`` is already there; or a
            partial file that this function did not make is in the way.
        DiskError: no space, or a folder that cannot be written.
    """
    if target.exists():
        raise RawDataError(f"{target}: already there; it is not overwritten: move it away")
    reasons = []
    with requests.Session() as session, PartialFile(target) as partial:
        session.headers.update(
            {"User-Agent": f"trar-data/{trar.__version__}", "Accept-Encoding": "identity"}
        )
        for url in urls:
            mirror = _Mirror(session, url, archive, partial, patience, progress)
            try:
                found = mirror.fetch()
            except _MirrorError as error:
                reason = "".join(c if c.isprintable() else "?" for c in str(error))
                reasons.append(f"{url}: {reason}")  # servers put what they like into it
                continue
            partial.take_name()
            return found
        kept = f"; {partial.size:,} bytes are kept for the next run" if partial.size else ""
    raise RawDataError(
        f"{archive.name}: no mirror gave it ({'; '.join(reasons) or 'no URL is known'}){kept}. Try "
        f"again later, or put it at {target} yourself"
    )


class _MirrorError(Exception):
    """Why a mirror was given up; the next one is tried."""


class _PassingError(Exception):
    """A fault that another request to the same mirror may not have."""


@dataclass
class _Mirror:
    """One URL's turn at filling the partial file."""

    session: requests.Session
    url: str
    archive: Archive
    partial: PartialFile
    patience: Patience
    progress: Progress

    def fetch(self) -> Downloaded:
        """Fill the partial file and prove it.

        Raises:
            _MirrorError: this mirror does not have the file, or not the right one.
        """
        for last in (False, True):
            self._receive()
            self.partial.flush()
            try:
                proof = check_published(self.partial.path, self.archive, self.progress)
            except RawDataError as error:
                pieced = self.partial.pieced
                self.partial.empty()
                if last or not pieced:  # else perhaps only the piece from before was wrong
                    raise _MirrorError(str(error).removeprefix(f"{self.partial.path}: ")) from None
            else:
                return Downloaded(self.url, proof)
        raise AssertionError("the second round returns or raises")

    def _receive(self) -> None:
        """Request until every byte is there."""
        fruitless = 0
        while True:
            before = self.partial.size
            try:
                if self._request():
                    return
                reason = "the connection ended early"
            except _FINAL_ERRORS as error:
                raise _MirrorError(_short(error)) from None
            except (requests.ConnectionError, requests.Timeout) as error:
                reason = _short(error)
                fruitless += 1  # a host that cannot be reached gets half as many tries
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _short(error)
            except _PassingError as error:
                reason = str(error)
            fruitless = 0 if self.partial.size > before else fruitless + 1
            if fruitless >= self.patience.tries:
                raise _MirrorError(f"{reason}; {self._progress_text()}")
            time.sleep(min(30.0, self.patience.pause_s * 2 ** max(0, fruitless - 1)))

    def _progress_text(self) -> str:
        total = self.archive.exact_bytes or self.partial.note.total
        of = f" of {total:,}" if total else ""
        return f"{self.partial.size:,}{of} bytes came"

    def _request(self) -> bool:
        """One request; True when the file is complete, as far as its length tells."""
        partial = self.partial
        offset, headers = self._resume()
        known = self.archive.exact_bytes
        if offset and known is not None and offset >= known:
            return True  # all there since the last run; the check decides
        with self._ask(headers) as response:
            begin, total = self._agree(response, offset)
            if begin != partial.size:
                partial.empty()
            if begin == total:
                return True
            partial.pieced = begin > 0
            if total is not None:
                need_space(partial.path.parent, total - begin, f"fetching {self.archive.name}")
            partial.begin(
                Note(
                    self.url,
                    total,
                    response.headers.get("ETag"),
                    response.headers.get("Last-Modified"),
                )
            )
            limit = known if total is None else total
            while block := response.raw.read(_BLOCK, decode_content=False):
                if partial.size == 0 and _PAGE.match(block):
                    raise _MirrorError(_page("its content"))
                partial.write(block)
                if limit is not None and partial.size > limit:
                    partial.empty()
                    raise _MirrorError(f"sends more than the {limit:,} bytes expected")
                self.progress(self.archive.name, partial.size, limit or 0)
        return limit is None or partial.size == limit

    def _ask(self, headers: dict[str, str]) -> requests.Response:
        try:
            return self.session.get(
                self.url,
                headers=headers,
                stream=True,
                timeout=(self.patience.connect_s, self.patience.silent_s),
            )
        except requests.RequestException:
            raise
        except ValueError as error:  # a redirect that the standard library cannot parse
            raise _MirrorError(f"leads to no valid URL ({error})") from None

    def _resume(self) -> tuple[int, dict[str, str]]:
        """Where to go on, and the headers that ask for it.

        Bytes of another run or mirror are continued when the server says now, or a digest
        proves afterwards, that both are of one file; else they are asked for anew.
        """
        partial, note = self.partial, self.partial.note
        if partial.size == 0:
            return 0, {}
        proof_later = bool(self.archive.sha256 or self.archive.md5) or _is_zip(self.archive.name)
        etag = note.etag if note.etag and not note.etag.startswith("W/") else None
        validator = etag or note.last_modified
        headers = {"Range": f"bytes={partial.size}-"}
        if note.url == self.url and validator:
            headers["If-Range"] = validator
        elif not (proof_later and (note.url == self.url or self.archive.exact_bytes or note.total)):
            return 0, {}
        return partial.size, headers

    def _agree(self, response: requests.Response, offset: int) -> tuple[int, int | None]:
        """Judge the answer's head: where its bytes begin, and the size of the whole file."""
        status = response.status_code
        span = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if status == 416 and offset:
            if span is not None and int(span[2]) == offset:
                return offset, offset  # complete: there was nothing left to send
            self.partial.empty()
            raise _PassingError("HTTP 416: it does not continue what is here")
        if status in _PASSING:
            raise _PassingError(f"HTTP {status} {response.reason}")
        if status not in (200, 206):
            raise _MirrorError(f"HTTP {status} {response.reason}")
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise _MirrorError(_page("text/html"))
        total: int | None
        if status == 206:
            if span is None or span[1] is None or int(span[1]) != offset:
                self.partial.empty()
                raise _PassingError("HTTP 206 with another range than asked for")
            begin, total = offset, int(span[2])
        else:
            length = _LENGTH.fullmatch(response.headers.get("Content-Length", ""))
            begin, total = 0, None if length is None else int(length[0])
        self._check_total(total)
        if begin and self.partial.note.total not in (None, total):
            self.partial.empty()
            raise _PassingError("the file changed its size since the last run")
        return begin, total

    def _check_total(self, total: int | None) -> None:
        known = self.archive.exact_bytes
        if known is None or total is None or total == known:
            return
        kind = "truncated, or another" if total < known else "another"
        raise _MirrorError(
            f"wrong size: it offers {total:,} bytes, expected {known:,}: {kind} file"
        )


def _is_zip(name: str) -> bool:
    return name.endswith((".zip", ".whl"))


def _page(evidence: str) -> str:
    return f"a web page ({evidence}) instead of the file: a login, consent or error page"


def _short(error: Exception) -> str:
    """The innermost reason of a network error, without addresses of objects."""
    reason: BaseException = error
    while True:
        inner = getattr(reason, "reason", None)
        if not isinstance(inner, BaseException) and reason.args:
            inner = reason.args[0]
        if not isinstance(inner, BaseException):
            break
        reason = inner
    first = reason.args[0] if reason.args else None  # ("Connection broken: …", the exception)
    text = first if isinstance(first, str) and len(reason.args) > 1 else str(reason)
    text = re.sub(r"^<[^>]*>: |^\w+\([^)]*\): ", "", text)
    return text[:200] or type(error).__name__
