"""Figures of matplotlib, which an extra of the package brings, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trar.errors import ConfigError, DiskError
from trar.fileio import disk_errors


def new_figure(width: float, height: float) -> Any:
    """An empty figure, its size in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "--plot needs matplotlib: pip install 'trar[plots]', or take the table or --json"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write ``figure`` as what the suffix of ``path`` says.

    Raises:
        ConfigError: matplotlib does not know the suffix.
        DiskError: no such folder, no space or no permission.
    """
    if path.suffix.lstrip(".") not in figure.canvas.get_supported_filetypes():
        raise ConfigError(
            f"{path}: matplotlib writes no {path.suffix or 'nameless'} files; use .png"
        )
    if not path.parent.is_dir():
        raise DiskError(f"{path}: there is no folder {path.parent}; make it or name another file")
    with disk_errors(path):
        figure.savefig(path, dpi=150)
