"""The Triton kernels of routed attention: in Triton's interpreter, compiled for a GPU that is not
here, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from triton_cases import CASES, check, inputs

from trar.errors import ConfigError
from trar.trainer.ops.routed import routed_attention

HERE = Path(__file__).parent
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)


def test_the_interpreted_kernels_equal_the_eager_path_and_the_equations() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", HERE / "interpreted_triton.py", "-q", "--noconftest"],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE)},
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(CASES) + 4} passed" in result.stdout


def test_a_kernel_that_cannot_be_used_is_refused_with_the_reason(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    values, rings, _ = inputs(2, (0, 1), 4)
    with pytest.raises(ConfigError, match="kernel is 'triton', but the tensors are on cpu; use"):
        routed_attention(*values, rings, kernel="triton")


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from trar.trainer.ops import triton_kernels as kernels

constants = dict(HEADS=8, SIZE=64, CHANNELS=64, LEVELS=4, PADDED=True, UNIFORM=True, DROPOUT=2,
                 CHANNEL_BLOCK=64, PRECISION="tf32x3", QUERY_BLOCK=64, KEY_BLOCK=64)
floats = {"route", "tops", "totals", "deltas"}
types = {"level": "*u8", "cells": "*u8", "rate": "fp32", "scale": "fp32"}
halves = {"q", "k", "v", "out", "grad_out", "grad_q", "grad_k", "grad_v"}
for name in ("forward", "backward_queries", "backward_keys"):
    kernel = getattr(kernels, name)
    signature = {
        one: "constexpr" if one in constants
        else "*bf16" if one in halves
        else "*fp32" if one in floats
        else types.get(one, "i32")
        for one in kernel.arg_names
    }
    places = {(kernel.arg_names.index(one),): value for one, value in constants.items()}
    made = triton.compile(
        ASTSource(kernel, signature, constexprs=places), target=GPUTarget("cuda", 90, 32)
    )
    print(name, ".target sm_90" in made.asm["ptx"], made.metadata.shared < 200_000)
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path) -> None:
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    env.pop("TRITON_INTERPRET", None)
    result = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, env=env, check=False
    )
    lines = result.stdout.splitlines()
    assert lines == [
        f"{name} True True" for name in ("forward", "backward_queries", "backward_keys")
    ], result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize(("side", "orders", "channels", "scale", "padded", "empty"), CASES)
def test_the_kernels_equal_the_eager_path_on_a_gpu(
    side, orders, channels, scale, padded, empty
) -> None:
    values, rings, cells = inputs(side, orders, channels, scale=scale, padded=padded, device="cuda")
    check(values, rings, cells, empty_window=empty)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("side", "orders"), [(8, (0, 1, 2, 3)), (14, (0, 1, 3)), (16, (0, 2))])
def test_the_published_grids_fit_on_a_gpu(side, orders, dtype) -> None:
    values, rings, cells = inputs(side, orders, 64, padded=0.3, device="cuda")
    values = [x.detach().to(dtype).requires_grad_() for x in values]
    both = []
    for kernel in ("eager", "triton"):
        out = routed_attention(*values, rings, cells=cells, empty_window="uniform", kernel=kernel)
        grads = torch.autograd.grad(out.float().sin().sum(), values)
        both.append([out, *grads])
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    for eager, triton in zip(*both, strict=True):
        largest = float(eager.float().abs().max())
        difference = (eager.float() - triton.float()).abs().max()
        assert float(difference) < tolerance * largest
