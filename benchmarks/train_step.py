"""How much faster a training step is than the plain formulation of the same function.

Attention alone, the routed block with its projections and router, and whole steps (forward,
backward, Adam), each against ``plain_trar`` with the same weights and inputs: first both must give
the same numbers, then they take turns in one process, and the median of paired ratios counts,
because machines are shared and noisy. Besides, what each form of the attention keeps for its
backward pass, in bytes.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/train_step.py --threads 2 --json step.json
    python benchmarks/train_step.py --quick     # small sizes, to see that it runs
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from plain_trar import (
    PlainRoutedAttention,
    block_state,
    plain_attention,
    plain_copy,
    window_masks,
)
from torch import Tensor, nn

from trar.trainer.importers import to_original
from trar.trainer.models import Trar, TrarConfig
from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention
from trar.trainer.optim import build_adam

Row = dict[str, Any]
VQA = TrarConfig(
    vocabulary_size=20573,
    answer_count=3129,
    pool_mask=False,
    empty_window="uniform",
)
CLEVR = dataclasses.replace(
    VQA,
    vocabulary_size=90,
    answer_count=28,
    feature_dim=1024,
    grid_side=14,
    orders=(0, 1, 3),
    routing="hard",
    pooling="fc",
)
# side of the grid, batch, orders
GRIDS = ((8, 64, (0, 1, 2, 3)), (14, 16, (0, 1, 3)), (16, 16, (0, 1, 2, 3)))
# name, config, batch, words, longest question, rows of the grid that are padding
STEPS = (("VQA 8x8", VQA, 64, 14, 12, 2), ("CLEVR 14x14", CLEVR, 32, 43, 40, 0))
# what is aimed at, of rows whose dropout is one mask for all windows
TARGETS = {
    ("attention", 8): ("ratio", 2.0),
    ("attention", 16): ("ratio", 3.0),
    ("block", 14): ("ratio", 1.4),
    ("block", 16): ("ratio", 2.0),
    ("step", 8): ("ratio", 1.1),
    ("step", 14): ("ratio", 1.4),
    ("kept", 16): ("kept_ratio", 5.0),
}
DROPOUTS = ((0.0, "shared"), (0.1, "shared"), (0.1, "per_order"))
PARTS = ("attention", "block", "step")
COLUMNS = (
    "what",
    "side",
    "batch",
    "dropout",
    "plain_ms",
    "ours_ms",
    "ratio",
    "cpu_ratio",
    "plain_kept_mib",
    "ours_kept_mib",
    "kept_ratio",
)
Form = Callable[[], Tensor | None]


def take_turns(forms: dict[str, Form], leaves: Sequence[Tensor], rounds: int) -> Row:
    """Median milliseconds of each form, and the median of the paired ratios of wall and of
    processor time. A form that returns something is followed by its backward pass, from a gradient
    of full size as in training (that of ``sum`` is one number, expanded)."""
    gradient: Tensor | None = None
    wall: dict[str, list[float]] = {name: [] for name in forms}
    processor: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):  # the first round warms up
        for name in list(forms)[:: 1 if number % 2 else -1]:
            for leaf in leaves:
                leaf.grad = None
            begin = time.perf_counter(), time.process_time()
            result = forms[name]()
            if result is not None:
                gradient = torch.randn_like(result) if gradient is None else gradient
                result.backward(gradient)
            wall[name].append(time.perf_counter() - begin[0])
            processor[name].append(time.process_time() - begin[1])

    def ratio(times: dict[str, list[float]]) -> float:
        pairs = zip(times["plain"][1:], times["ours"][1:], strict=True)
        return round(statistics.median(plain / ours for plain, ours in pairs), 2)

    return {
        "plain_ms": round(1e3 * statistics.median(wall["plain"][1:]), 1),
        "ours_ms": round(1e3 * statistics.median(wall["ours"][1:]), 1),
        "ratio": ratio(wall),
        "cpu_ratio": ratio(processor),
    }


def must_agree(ours: Tensor, plain: Tensor, leaves: Sequence[Tensor] | None) -> None:
    """Stop unless values, and gradients of ``leaves``, are equal up to float32's rounding."""
    pairs = [(ours, plain)]
    if leaves is not None:
        cotangent = torch.randn_like(ours)
        both = (torch.autograd.grad(one, leaves, cotangent) for one in (ours, plain))
        pairs += zip(*both, strict=True)
    for first, second in pairs:
        error = (first - second).detach().abs().max() / second.detach().abs().max()
        if float(error) > 1e-4:
            sys.exit(f"the two forms differ by {float(error):.1e} of the largest number")


def kept_bytes(form: Form, inputs: Sequence[Tensor]) -> int:
    """Bytes kept for the backward pass besides the inputs, each storage counted once."""
    given = {one.untyped_storage().data_ptr() for one in inputs}
    found: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in given:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = form()
    assert result is not None
    return sum(found.values())


def attention(side: int, batch: int, orders: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """The attention alone: time and what it keeps."""
    shape = (batch, VQA.heads, side * side, VQA.width // VQA.heads)
    inputs = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    inputs.append(torch.rand(batch, len(orders)).softmax(-1).requires_grad_())
    rings, hidden = Rings(side, orders), window_masks(side, orders, inputs[0].device)
    for rate, mode in DROPOUTS:

        def plain(rate: float = rate) -> Tensor:
            return plain_attention(*inputs, hidden, rate)

        def ours(rate: float = rate, mode: str = mode) -> Tensor:
            return routed_attention(*inputs, rings, dropout=rate, attn_dropout=mode)

        if not rate:
            must_agree(ours(), plain(), inputs)
        kept = kept_bytes(plain, inputs), kept_bytes(ours, inputs)
        yield {
            **named("attention", side, batch, rate, mode),
            **take_turns({"plain": plain, "ours": ours}, inputs, rounds),
            "plain_kept_mib": round(kept[0] / 2**20, 1),
            "ours_kept_mib": round(kept[1] / 2**20, 1),
            "kept_ratio": round(kept[0] / kept[1], 1),
        }


def block(side: int, batch: int, orders: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """The routed self-attention block: router, projections, attention."""
    sizes = {"vocabulary_size": 3, "answer_count": 2, "feature_dim": 1, "layers": 1}
    x = torch.randn(batch, side * side, VQA.width, requires_grad=True)
    hidden = window_masks(side, orders, x.device)
    for rate, mode in DROPOUTS:
        model = Trar(
            dataclasses.replace(
                VQA, **sizes, grid_side=side, orders=orders, dropout=rate, attn_dropout=mode
            )
        )
        state = block_state(to_original(model.state_dict(), model.config), 0)
        routed, rings = model.decoder[0].routed, model.rings
        plain_block = PlainRoutedAttention(model.config)
        plain_block.load_state_dict(state)

        def plain(block: nn.Module = plain_block) -> Tensor:
            return block(x, hidden)

        def ours(block: nn.Module = routed, rings: Rings = rings) -> Tensor:
            return block(x, None, rings, 1.0, None)[0]

        if not rate:
            must_agree(ours(), plain(), [x])
        leaves = [x, *routed.parameters(), *plain_block.parameters()]
        times = take_turns({"plain": plain, "ours": ours}, leaves, rounds)
        yield {**named("block", side, batch, rate, mode), **times}


def step(
    name: str,
    config: TrarConfig,
    batch: int,
    words: int,
    longest: int,
    padded: int,
    mode: str,
    rounds: int,
) -> Iterator[Row]:
    """A whole training step: forward, backward, Adam. Questions are padded to ``words``; the last
    ``padded`` rows of the grid are padding, as images that are not square leave them."""
    image = torch.randn(batch, config.grid_side**2, config.feature_dim)
    if padded:
        image[:, -padded * config.grid_side :] = 0
    question = torch.randint(3, config.vocabulary_size, (batch, words))
    question[torch.arange(words) >= torch.randint(longest // 3, longest + 1, (batch, 1))] = 0
    targets = (torch.rand(batch, config.answer_count) > 0.999).float()
    model = Trar(dataclasses.replace(config, attn_dropout=mode)).eval()
    plain_model = plain_copy(model)
    with torch.no_grad():
        must_agree(model(image, question), plain_model(image, question), None)
    forms: dict[str, Form] = {}
    leaves: list[Tensor] = []
    for kind, one in (("plain", plain_model.train()), ("ours", model.train())):
        leaves += list(one.parameters())
        adam = build_adam(one.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)

        def whole(one: nn.Module = one, adam: torch.optim.Optimizer = adam) -> None:
            logits = one(image, question)
            F.binary_cross_entropy_with_logits(logits, targets, reduction="sum").backward()
            adam.step()

        forms[kind] = whole
    found = named("step", config.grid_side, batch, config.dropout, mode)
    yield {**found, "name": name, **take_turns(forms, leaves, rounds)}


def named(what: str, side: int, batch: int, rate: float, mode: str) -> Row:
    """What a row measures; dropout is drawn once for all windows or for each, if at all."""
    dropout = "none" if not rate else f"{rate}, {mode}"
    return {"what": what, "side": side, "batch": batch, "dropout": dropout}


def verdicts(rows: list[Row]) -> list[Row]:
    """Each target with the worst figure of the rows it is meant for."""
    found = []
    for (what, side), (key, wanted) in TARGETS.items():
        figures = [
            row[key]
            for row in rows
            if row["what"] == (what if what != "kept" else "attention")
            and row["side"] == side
            and "per_order" not in row["dropout"]
        ]
        if figures:
            reached = min(figures) >= wanted
            found.append({"what": what, "side": side, "target": wanted, "figure": min(figures),
                          "reached": reached})  # fmt: skip
    return found


def measure(only: Sequence[str], rounds: int, quick: bool) -> Iterator[Row]:
    """Every row, one after the other."""
    for side, batch, orders in GRIDS:
        size = 2 if quick else batch
        if "attention" in only:
            yield from attention(side, size, orders, rounds)
        if "block" in only:
            yield from block(side, size, orders, rounds)
    for mode in ("shared", "per_order") if "step" in only else ():
        for name, config, batch, *rest in STEPS:
            if quick:
                config = dataclasses.replace(config, layers=1, vocabulary_size=90)
            yield from step(name, config, 2 if quick else batch, *rest, mode, rounds)


def line(values: Iterable[object]) -> str:
    """A line of a table."""
    return "  ".join(f"{value!s:>14}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="two rounds of batches of 2")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rounds = 2 if options.quick else options.rounds
    rows = []
    print(line(COLUMNS))
    for row in measure(options.only, rounds, options.quick):
        print(line(row.get(column, "") for column in COLUMNS), flush=True)
        rows.append(row)
    report = {
        "torch": torch.__version__,
        "threads": options.threads,
        "rounds": rounds,
        "quick": options.quick,
        "rows": rows,
        "targets": verdicts(rows),
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print("\n" + line(("target", "side", "at least", "found")))
    for one in report["targets"]:
        verdict = "reached" if one["reached"] else "MISSED"
        print(line((one["what"], one["side"], one["target"], one["figure"], verdict)))


if __name__ == "__main__":
    main()
