"""Chooses the source of a dataset by its name."""

from __future__ import annotations

from trar.errors import ConfigError
from trar.pipeline.config import PrepareConfig
from trar.pipeline.sources.base import Source
from trar.pipeline.sources.easy_vqa import GRID, EasyVqaSource
from trar.pipeline.sources.vqa import VqaSource


def open_source(config: PrepareConfig) -> Source:
    """The source of ``config.dataset``; reads nothing yet."""
    if config.dataset == "easy-vqa":
        if config.grid != GRID:
            raise ConfigError(f"--grid {config.grid}: easy-vqa is described as {GRID}x{GRID} cells")
        return EasyVqaSource(config.raw)
    return VqaSource(config.raw, config.grid)
