"""Tables of numbers as maps of colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trar.trainer.drawing import new_figure, save_figure


def draw_table(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    titles: tuple[str, str],
    path: Path,
) -> None:
    """Draw ``values``, which have a name for each row and column, into ``path``; ``titles``: of the
    columns and of the whole. Errors as ``new_figure`` and ``save_figure``."""
    figure = new_figure(7, 1.5 + 0.22 * len(rows))
    axes = figure.subplots()
    figure.colorbar(axes.imshow(np.array(values), aspect="auto", cmap="viridis"))
    axes.set_xlabel(titles[0])
    axes.set_title(titles[1])
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
    save_figure(figure, path)
