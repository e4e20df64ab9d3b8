"""What a run writes down as it goes on: a JSON line each, and TensorBoard's curves where wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trar.errors import ConfigError
from trar.trainer.run_folder import append_log

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD_FOLDER = "tensorboard"
_CURVES = {"model": "model", "steps": "train", "epoch": "epoch", "scores": "score"}
_PLACE = {"epoch", "step", "steps"}


class RunLog:
    """The log of the run in ``folder``; a run of several processes has it in the first alone.

    ``steps`` are those of an epoch, ``from_step`` the global step that a resumed run goes on after:
    curves beyond it are drawn anew.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, *, write: bool, tensorboard: bool, steps: int, from_step: int
    ) -> None:
        self._folder, self._write, self._steps = folder, write, steps
        self._board: SummaryWriter | None = None
        if tensorboard and write:
            self._board = _open_board(folder / TENSORBOARD_FOLDER, from_step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, line: dict[str, Any]) -> None:
        """Write a line: ``event``, the ``epoch`` from 1, the ``step`` in it where there is one."""
        if self._write:
            append_log(self._folder, line)
        if self._board is None:
            return
        whole = self._steps * (line["epoch"] - ("step" in line)) + line.get("step", 0)
        for name, value in _points(line):
            self._board.add_scalar(name, value, whole)


def _points(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """What a line adds to which curve."""
    curve = _CURVES.get(line["event"])
    for name, value in line.items():
        if curve and name not in _PLACE and isinstance(value, int | float):
            yield f"{curve}/{name}", value
    for figure, rows in line.get("figures", {}).items():
        for row, values in rows.items():
            for number, value in enumerate(values):
                yield f"{figure}/{row}/{number}", value


def _open_board(folder: Path, from_step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "loop.tensorboard needs TensorBoard, which is not installed: "
            'pip install "trar[tensorboard]", or leave the setting out (log.jsonl has it all)'
        ) from None
    return SummaryWriter(str(folder), purge_step=from_step + 1)
