"""How much one map for all windows saves over one softmax a window: forward and backward.

Interleaved in one process, alternating order; prints the median of paired ratios as a table and
as JSON. Ratios, because machines are shared and noisy.

    python benchmarks/routed_attention.py --threads 2 --rounds 9
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention

Case = tuple[int, int, int, int, tuple[int, ...]]

# batch, heads, grid side, channels a head, orders
CASES: tuple[Case, ...] = (
    (64, 2, 8, 32, (0, 1, 2, 3)),  # the easy-VQA preset
    (64, 8, 8, 64, (0, 1, 2, 3)),  # VQA-v2, 8x8
    (16, 8, 14, 64, (0, 1, 3)),  # CLEVR
)


def plain(
    q: Tensor, k: Tensor, v: Tensor, route: Tensor, keep: Sequence[Tensor], rate: float
) -> Tensor:
    """The paper's equation as it stands: mask, softmax and dropout once per window."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    maps = [
        torch.dropout(scores.masked_fill(~one, -1e9).softmax(-1), rate, train=True) for one in keep
    ]
    mixed = sum(route[:, number, None, None, None] * one for number, one in enumerate(maps))
    assert isinstance(mixed, Tensor)
    return mixed @ v


def windows(side: int, orders: Sequence[int]) -> list[Tensor]:
    """Which cells each cell may attend to, (n, n) bool for every order."""
    cell = torch.arange(side * side)
    y, x = cell // side, cell % side
    distance = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
    return [distance <= (side if order == 0 else order) for order in orders]


def seconds(work: Callable[[], Tensor], inputs: Sequence[Tensor]) -> float:
    """One forward and backward pass."""
    for one in inputs:
        one.grad = None
    begin = time.perf_counter()
    work().sum().backward()
    return time.perf_counter() - begin


def measure(case: Case, rate: float, rounds: int) -> dict[str, object]:
    """Median times of both forms and the median of their paired ratios."""
    batch, heads, side, channels, orders = case
    rings, keep = Rings(side, orders), windows(side, orders)
    shape = (batch, heads, side * side, channels)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    route = torch.rand(batch, len(orders)).softmax(-1).requires_grad_()
    forms: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain(q, k, v, route, keep, rate),
        "ours": lambda: routed_attention(q, k, v, route, rings, dropout=rate),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name in list(forms)[:: 1 if number % 2 else -1]:
            times[name].append(seconds(forms[name], (q, k, v, route)))
    first, second = (times[name][1:] for name in ("plain", "ours"))
    return {
        "batch": batch,
        "heads": heads,
        "cells": side * side,
        "windows": len(orders),
        "dropout": rate,
        "plain_ms": round(1e3 * statistics.median(first), 1),
        "ours_ms": round(1e3 * statistics.median(second), 1),
        "ratio": round(statistics.median(a / b for a, b in zip(first, second, strict=True)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(case, rate, options.rounds) for case in CASES for rate in (0.0, 0.1)]
    print(json.dumps({"threads": options.threads, "rows": rows}))
    print("  ".join(f"{name:>8}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>8}" for value in row.values()))


if __name__ == "__main__":
    main()
