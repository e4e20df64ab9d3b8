"""Every system, with all that it has to offer, goes on after Ctrl-C to the bits of a run that was
never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from systems import EVERYTHING, SYSTEMS, small_run
from training import StopAfter

from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.loop import train

SETS = (
    *("model.dropout=0.1", "schedule.epochs=2", "schedule.decay_epochs=[1]"),
    *("loop.checkpoint_steps=2", "loop.eval_epochs=2"),
)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_that_was_stopped_between_checkpoints_goes_on_to_the_same_bits(
    system: str, shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = (*SETS, *EVERYTHING.get(system, ()))
    whole = train(small_run(system, shared_store.path, tmp_path / "a", *sets))
    config = small_run(system, shared_store.path, tmp_path / "b", *sets, run="mine")
    for steps in (3, 4, 5):
        with pytest.raises(KeyboardInterrupt):
            train(config, StopAfter(steps), resume="auto")
    resumed = train(config, resume="auto")
    one, other = load_file(whole.checkpoint), load_file(resumed.checkpoint)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    checkpoints = [load_checkpoint(run.checkpoint) for run in (whole, resumed)]
    assert checkpoints[0].counters == checkpoints[1].counters
    assert whole.history == resumed.history
    slow = any(name.startswith("optimiser.slow_params.") for name in one)
    assert slow == (config.optim.lookahead_steps > 0)
