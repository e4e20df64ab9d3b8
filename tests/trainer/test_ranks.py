"""Several processes that torchrun starts train one model: the same losses as one process.

Without dropout, whose masks each rank draws for itself; the noise of hard routing belongs to the
question and is the same in every rank.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks_of_systems
import torch
import torch.distributed as dist
from systems import EVERYTHING, SYSTEMS, small_run
from torchrun_processes import EXACT, LAUNCHER, command, environment, run
from training import small_config

from trar.errors import TrarError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.loop import train
from trar.trainer.run_folder import read_log
from trar.trainer.stepper import Stepper


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if line["event"] == "steps"]


def assert_close_weights(one: Path, other: Path) -> None:
    left, right = (load_checkpoint(path).weights() for path in (one, other))
    for name, tensor in left.items():
        torch.testing.assert_close(right[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ranks", "routing"), [(3, "hard")])
def test_ranks_have_the_losses_of_one_process(
    shared_store: FeatureStore, tmp_path: Path, ranks: int, routing: str
) -> None:
    chosen = f"model.routing={routing}"
    alone = train(small_config(shared_store.path, tmp_path / "a", *EXACT, chosen))
    done = run(ranks, shared_store.path, tmp_path / "b", "--set", chosen)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained in") == 1
    together = tmp_path / "b/easy-vqa"
    assert len(losses(together)) == 16
    assert losses(together) == pytest.approx(losses(alone.run), rel=1e-6)
    assert_close_weights(alone.checkpoint, together / alone.checkpoint.name)
    scores = [load_checkpoint(path).history[-1]["scores"] for path in (alone.run, together)]
    assert scores[0] == scores[1]


def test_every_system_has_the_losses_of_one_process(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    program = Path(ranks_of_systems.__file__)
    done = subprocess.run(
        [*LAUNCHER, "2", str(program), str(shared_store.path), str(tmp_path / "two")],
        env={**environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for system in SYSTEMS:
        sets = (*ranks_of_systems.EXACT, *EVERYTHING.get(system, ()))
        alone = train(small_run(system, shared_store.path, tmp_path / "one", *sets))
        together = tmp_path / "two" / system
        # LAMB divides by the length of an update, which is rounding where there is no gradient
        near = 1e-4 if "optim.kind=lamb" in sets else 1e-6
        assert losses(together) == pytest.approx(losses(alone.run), rel=near), system


def test_a_rank_without_a_question_in_the_last_batch_takes_part(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    """33 questions in batches of 16, and 45 to be scored in batches of 11: one is left each time,
    which the second rank does not get."""
    few = ("data.limit=33", "data.eval_batch_size=11")
    scored = len(shared_store.questions("val"))
    assert scored % 11 == 1
    alone = train(small_config(shared_store.path, tmp_path / "a", *EXACT, *few))
    options = [word for one in few for word in ("--set", one)]
    done = run(2, shared_store.path, tmp_path / "b", *options)
    assert done.returncode == 0, done.stderr
    together = tmp_path / "b/easy-vqa"
    assert len(losses(together)) == 2 * 3
    assert losses(together) == pytest.approx(losses(alone.run), rel=1e-6)
    assert_close_weights(alone.checkpoint, together / alone.checkpoint.name)
    scores = [load_checkpoint(path).history for path in (alone.run, together)]
    assert [one["scores"] for one in scores[0]] == [one["scores"] for one in scores[1]]


def test_a_run_goes_on_with_another_number_of_ranks(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(told: object) -> None:
        if (told.stage, told.epoch, told.step) == ("train", 2, 6):
            raise StopError

    within = "loop.checkpoint_steps=5"
    alone = train(small_config(shared_store.path, tmp_path / "a", *EXACT, within))
    with pytest.raises(StopError):
        train(small_config(shared_store.path, tmp_path / "b", *EXACT, within), stop)
    done = run(2, shared_store.path, tmp_path / "b", "--set", within, "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert "continuing after step 5 of epoch 2" in done.stderr
    together = tmp_path / "b/easy-vqa"
    assert losses(together) == pytest.approx(losses(alone.run), rel=1e-6)
    assert_close_weights(alone.checkpoint, together / alone.checkpoint.name)


def test_a_rank_that_dies_stops_all(shared_store: FeatureStore, tmp_path: Path) -> None:
    long = ("--set", "schedule.epochs=100000")
    process = subprocess.Popen(
        command(2, shared_store.path, tmp_path, *long),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        log = tmp_path / "easy-vqa/log.jsonl"
        while not log.exists() or len(read_log(log.parent)) < 5:
            assert process.poll() is None
            time.sleep(0.1)
        ranks = children(process.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "Signal 9 (SIGKILL)" in said
        assert "this is a bug" not in said  # what the other one makes of it
        assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/x/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error"), True),
        (dist.DistBackendError("NCCL error: remote process exited"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_the_end_of_another_process_is_no_bug(
    shared_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
    lost: bool,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Stepper, "__call__", fail)
    kind, said = (RuntimeError, "shapes cannot be")
    if lost:
        kind, said = (TrarError, "another process of this run has ended, see what it says; .*conti")
    with pytest.raises(kind, match=said) as raised:
        train(small_config(shared_store.path, tmp_path))
    assert isinstance(raised.value, TrarError) == lost


def test_an_error_of_every_rank_is_one_line_of_each(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    done = run(2, shared_store.path, tmp_path, "--split", "nothing")
    assert done.returncode == 1
    assert re.search(r"^rank [01]: Error: .*no question split 'nothing'", done.stderr, re.MULTILINE)


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return sorted(int(one) for one in path.read_text().split())
