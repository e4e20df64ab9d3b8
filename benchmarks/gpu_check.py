"""What a CUDA machine gives: the Triton kernels against the eager path, and training steps against
the plain formulation, in samples a second and peak memory.

Needs torch and triton alone, and the repository as it lies. Without CUDA it runs the same steps on
the CPU at small sizes and says what it left out.

    python benchmarks/gpu_check.py --json gpu.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from plain_trar import plain_copy
from torch import Tensor, nn

from trar.trainer.models import Trar, TrarConfig
from trar.trainer.ops.rings import Rings
from trar.trainer.ops.routed import routed_attention

Row = dict[str, Any]
VQA = TrarConfig(vocabulary_size=20573, answer_count=3129, pool_mask=False, empty_window="uniform")
CASES = {
    "VQA 8x8": VQA,
    "VQA 16x16": dataclasses.replace(VQA, grid_side=16),
    "CLEVR 14x14": dataclasses.replace(
        VQA, grid_side=14, orders=(0, 1, 3), feature_dim=1024, answer_count=28, pooling="fc"
    ),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WORDS = 14


def parity(device: torch.device) -> list[Row]:
    """The largest difference of the kernels from the eager path, values and gradients, as a share
    of the largest number; scores of some hundreds and padded cells included."""
    rows = []
    for name, config in CASES.items():
        rings = Rings(config.grid_side, config.orders).to(device)
        shape = (4, config.heads, config.grid_side**2, config.width // config.heads)
        for kind, dtype in DTYPES.items():
            for scale in (1.0, 8.0):
                q, k, v = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))
                route = torch.rand(4, len(config.orders), device=device).softmax(-1)
                values = [x.requires_grad_() for x in (q * scale, k * scale, v, route)]
                cells = torch.rand(4, shape[2], device=device) > 0.5
                both = []
                for kernel in ("eager", "triton"):
                    out = routed_attention(
                        *values, rings, cells=cells, empty_window="uniform", kernel=kernel
                    )
                    grads = torch.autograd.grad(out.float().cos().sum(), values)
                    both.append([x.detach().float() for x in (out, *grads)])
                worst = max(
                    float((eager - triton).abs().max() / eager.abs().max())
                    for eager, triton in zip(*both, strict=True)
                )
                limit = 2e-4 if dtype == torch.float32 else 4e-2
                rows.append({"case": name, "dtype": kind, "scale": scale, "difference": worst,
                             "within": worst < limit})  # fmt: skip
    return rows


def training(name: str, batch: int, kind: str, device: torch.device, steps: int) -> list[Row]:
    """Steps of ours by Triton, ours by the eager path, and the plain formulation, in turns."""
    config = CASES[name]
    if device.type == "cpu":
        config = dataclasses.replace(config, layers=1, vocabulary_size=90)
    torch.manual_seed(0)
    model = Trar(dataclasses.replace(config, kernel="eager")).to(device)
    forms: dict[str, nn.Module] = {"plain": plain_copy(model), "eager": model}
    if device.type == "cuda":
        forms["triton"] = Trar(dataclasses.replace(config, kernel="triton")).to(device)
        forms["triton"].load_state_dict(model.state_dict())
    image = torch.randn(batch, config.grid_side**2, config.feature_dim, device=device)
    image[:, -2 * config.grid_side :] = 0
    question = torch.randint(3, config.vocabulary_size, (batch, WORDS), device=device)
    question[:, WORDS // 2 :] = 0
    targets = torch.zeros(batch, config.answer_count, device=device)
    targets[:, 0] = 1.0
    logits = {}
    for key, one in forms.items():
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=kind == "bf16"):
            logits[key] = one.eval()(image[:8], question[:8]).float()
    apart = {
        key: float((value - logits["plain"]).abs().max() / logits["plain"].abs().max())
        for key, value in logits.items()
    }
    rows = {}
    works: dict[str, Callable[[], None]] = {}
    for key, one in forms.items():
        adam = torch.optim.Adam(one.train().parameters(), lr=1e-4, fused=True)
        works[key] = step_of(one, adam, image, question, targets, kind)
        rows[key] = {"case": name, "batch": batch, "dtype": kind, "form": key,
                     "logits_apart": apart[key]}  # fmt: skip
    times: dict[str, list[float]] = {key: [] for key in works}
    for number in range(steps + 2):  # two to warm up
        for key in list(works)[:: 1 if number % 2 else -1]:
            try:
                seconds, peak = measured(works[key], device)
            except torch.OutOfMemoryError:
                rows[key]["out_of_memory"] = True
                del works[key]
                torch.cuda.empty_cache()
                continue
            if number > 1:
                times[key].append(seconds)
                rows[key]["peak_mib"] = max(peak, rows[key].get("peak_mib", 0))
    for key, seconds in times.items():
        if seconds:
            rows[key]["samples_per_s"] = round(batch / statistics.median(seconds), 1)
    return list(rows.values())


def step_of(
    model: nn.Module,
    adam: torch.optim.Optimizer,
    image: Tensor,
    question: Tensor,
    targets: Tensor,
    kind: str,
) -> Callable[[], None]:
    """One training step as a function."""

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=kind == "bf16"):
            logits = model(image, question)
        F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum").backward()
        adam.step()

    return step


def measured(work: Callable[[], None], device: torch.device) -> tuple[float, int]:
    """Seconds, and on CUDA the peak of what the step took above what lay there before, in MiB."""
    if device.type != "cuda":
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin, 0
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    return seconds, (torch.cuda.max_memory_allocated() - before) >> 20


def show(rows: list[Row]) -> None:
    """A table; numbers short."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("  ".join(f"{column:>13}" for column in columns))
    for row in rows:
        texts = (row.get(name, "") for name in columns)
        print("  ".join(f"{x:>13.2e}" if isinstance(x, float) and x < 1 else f"{x!s:>13}"
                        for x in texts))  # fmt: skip
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report: Row = {"torch": torch.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        report["device"] = torch.cuda.get_device_name()
        report["parity"] = parity(device)
        show(report["parity"])
        batches, steps, names = options.batches, options.steps, list(CASES)
    else:
        report["device"] = "cpu"
        report["left_out"] = "no CUDA here: the Triton kernels, peak memory, batches above 2"
        print(report["left_out"])
        batches, steps, names = [2], 1, list(CASES)[:1]
    report["training"] = [
        row
        for name in names
        for kind in DTYPES
        for batch in batches
        for row in training(name, batch, kind, device, steps)
    ]
    show(report["training"])
    text = json.dumps(report)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    if not all(row["within"] for row in report.get("parity", [])):
        sys.exit("the Triton kernels differ from the eager path by more than rounding")


if __name__ == "__main__":
    main()
