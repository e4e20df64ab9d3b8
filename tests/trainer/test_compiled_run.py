"""``loop.compile``: a run through torch.compile is the run that it would be without."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
import torch
from lxmert_runs import ALL, small_lxmert
from safetensors.torch import load_file
from torch import nn
from training import StopAfter, small_config

from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.config import TrainConfig
from trar.trainer.evaluator import evaluate
from trar.trainer.loop import train

# torch.compile's own code warns on some versions
pytestmark = pytest.mark.filterwarnings("ignore:::torch")
COMPILED = "loop.compile=true"
SHORT = ("schedule.epochs=1", "model.dropout=0.0", "data.limit=48")  # three steps
NO_DECAY = ("schedule.decay_epochs=[]",)


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests() -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()


def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and differentiate as always, then run op by op: without the minutes of a compiler."""
    through = functools.partialmethod(nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(nn.Module, "compile", through)


def same_run(plain: TrainConfig, compiled: TrainConfig) -> None:
    """Train both: the same losses and scores to rounding, and checkpoints of the same names."""
    one, other = train(plain), train(compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    losses = [[epoch["loss"] for epoch in run.history] for run in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert load_file(one.checkpoint).keys() == load_file(other.checkpoint).keys()
    scores = evaluate(other.checkpoint, plain.store, "val", device="cpu")
    assert scores.overall == other.history[-1]["scores"]["overall"]


def stopped_and_resumed(config: TrainConfig, steps: int) -> dict[str, torch.Tensor]:
    """The weights of a run that was stopped after so many steps and went on."""
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(steps))
    torch.compiler.reset()  # as in another process
    resumed = load_checkpoint(train(config, resume="auto").checkpoint)
    assert resumed.epoch == config.schedule.epochs
    return resumed.weights(average=False)


def test_a_traced_run_is_the_run_that_it_would_be(
    shared_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(monkeypatch)
    sets = (*SHORT, *NO_DECAY)
    same_run(*(small_config(shared_store.path, tmp_path, *sets, *one) for one in ((), (COMPILED,))))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(("system", "backend"), [("trar", "inductor"), ("lxmert", "aot_eager")])
def test_a_compiled_run_is_the_run_that_it_would_be_and_goes_on(
    shared_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    backend: str,
) -> None:
    """LXMERT with all its options has too many sets of layers to wait for a compiler."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    if backend == "aot_eager":
        traced(monkeypatch)
    sets = (*SHORT, "loop.checkpoint_steps=1", "optim.eps=1e-3")
    small, more = (small_lxmert, ALL) if system == "lxmert" else (small_config, NO_DECAY)
    plain, compiled = (
        small(shared_store.path, tmp_path / name, *sets, *more, *own)
        for name, own in (("plain", ()), ("compiled", (COMPILED,)))
    )
    same_run(plain, compiled)
    whole = load_checkpoint(tmp_path / "compiled" / compiled.run_name).weights(average=False)
    again = compiled.model_copy(update={"runs": tmp_path / "again", "run": "again"})
    parts = stopped_and_resumed(again, steps=2)
    assert parts.keys() == whole.keys()
    # shapes come in another order, so kernels are made for others: the same but for rounding
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-3)
