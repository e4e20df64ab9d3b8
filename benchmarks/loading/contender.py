"""What a contender is: it delivers batches of images, one after the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from loading.data import Place, RandomBatches, Rows

Delivered = tuple[Rows, NDArray[Any]]
"""Which images (b,), and their features (b, 64, 2048) float16 or float32."""


@dataclass(frozen=True)
class Contender:
    """``open(place, order)`` delivers batches: the given ones, or where ``own_order`` is set those
    that the library chooses. ``forms`` are what it reads, ``modules`` what it needs installed.
    ``ahead`` batches may be ready before they are asked for, made while others had their turn;
    ``processes``: it starts worker processes. ``quick``: it takes part in ``--quick``."""

    name: str
    open: Callable[[Place, RandomBatches], Iterator[Delivered]]
    forms: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    ahead: int = 0
    processes: bool = False
    own_order: bool = False
    quick: bool = False

    def missing(self) -> str | None:
        """Why it cannot take part here, if so."""
        for name in self.modules:
            try:
                importlib.import_module(name)
            except Exception as error:  # others' packages fail to import in ways of their own
                line = str(error).splitlines()[0] if str(error) else ""
                return f"{name} cannot be imported: {type(error).__name__}: {line}"
        return None
