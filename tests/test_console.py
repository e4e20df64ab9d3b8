"""Numbers and tables as a person reads them, and what a log gets of a long job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from trar import console
from trar.commands.options import on_stop
from trar.console import TrainingProgress, WorkProgress, duration, table
from trar.fileio import human_bytes
from trar.trainer.metrics.result import collect
from trar.trainer.progress import Progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (262144, "256.0 KiB"), (53.7e9, "50.0 GiB")]
)
def test_sizes(size: float, text: str) -> None:
    assert human_bytes(size) == text


def test_table_aligns_numbers_to_the_right() -> None:
    lines = table([("a", "1.50"), ("long name", "10.00")], header=("", "all")).splitlines()
    assert lines == ["             all", "a           1.50", "long name  10.00"]


def test_a_log_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkProgress("images") as progress:
        progress("features", 1, 10)
        assert capsys.readouterr().err == ""  # the first minute says nothing
        monkeypatch.setattr(console, "_LINE_EVERY_S", 0.0)
        progress("features", 5, 10)
    line = capsys.readouterr().err
    assert line.startswith("features: 5 of 10 ")
    assert "images/s" in line
    assert line.rstrip().endswith("left")


def test_every_epoch_leaves_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/x")
    scores = collect("official", [1, 2], np.array([0.6, 0.4]), ["", ""], ["yes/no", ""])
    with TrainingProgress() as progress:
        progress(Progress("note", run, note="careful"))
        progress(
            Progress("train", run, 1, 2, 9, 9, loss=1.5, samples_per_s=1234, data_wait_share=0.014)
        )
        progress(Progress("epoch", run, 1, 2, loss=1.25, scores=scores))
    assert capsys.readouterr().err == (
        "Note: careful\n"
        "epoch 1/2: loss 1.2500, 1,234 samples/s, data wait 1.4 %, 50.00 (yes/no 60.00), "
        "2 questions, official VQA rules of 2021\n"
    )


def test_the_live_line_has_everything_and_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LINE_EVERY_S", 0.0)
    told = Progress(
        "train",
        Path("runs/x"),
        epoch=3,
        epochs=13,
        step=3456,
        steps=6933,
        loss=2.345,
        learning_rate=1e-4,
        temperature=8.125,
        samples_per_s=412.3,
        eta_s=46_740,
        data_wait_share=0.03,
    )
    with TrainingProgress() as progress:
        progress(told)
    line = capsys.readouterr().err.rstrip()
    assert line == (
        "epoch 3/13 train 3456/6933 loss 2.35 lr 1e-04 tau 8.12 412/s wait 3 % left 12 h 59 min"
    )
    assert len(line.removeprefix("epoch ")) <= 80  # of the terminal's form, "train 3/13 3456/6933"


def test_json_output_keeps_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(quiet=True) as progress:
        progress(Progress("note", Path("x"), note="careful"))
    assert capsys.readouterr().err == ""


def test_interrupt_lost_in_a_finaliser_is_raised_at_the_next_step() -> None:
    """Python ignores what a finaliser raises; a Ctrl-C that falls there must still end the work."""

    class Loud:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    steps = []

    def work(check: Callable[[], None]) -> None:
        progress = WorkProgress("images", check)
        for step in range(5):
            progress("features", step, 5)
            steps.append(step)
            if step == 2:
                Loud()

    with pytest.raises(click.Abort), on_stop("go on so") as check:
        work(check)
    assert steps == [0, 1, 2]
