"""What ``verify`` reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a store: where (a file or a column) and what."""

    where: str
    what: str
