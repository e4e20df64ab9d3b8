"""Chooses the source of a dataset by its name."""

from __future__ import annotations

from trar.errors import ConfigError
from trar.pipeline.config import PrepareConfig
from trar.pipeline.sources.base import Source
from trar.pipeline.sources.clevr import ClevrSource
from trar.pipeline.sources.easy_vqa import GRID, EasyVqaSource
from trar.pipeline.sources.table import TableSource
from trar.pipeline.sources.vqa import VqaSource


def open_source(config: PrepareConfig) -> Source:
    """The source of ``config.dataset``; lists files, reads none.

    Raises:
        ConfigError: options that the dataset does not have.
    """
    if config.dataset == "easy-vqa":
        if config.grid not in (None, GRID):
            raise ConfigError(f"--grid {config.grid}: easy-vqa is described as {GRID}x{GRID} cells")
        if config.features is not None or config.questions:
            raise ConfigError("easy-vqa has its own files: give --raw, not --features, --questions")
        return EasyVqaSource(config.raw)
    if config.dataset == "clevr":
        return ClevrSource(config.raw, config.features, config.questions)
    if config.dataset == "table":
        if len(config.questions) > 1:
            raise ConfigError("--questions: a table is one file; it may have a column split")
        table = config.questions[0] if config.questions else None
        return TableSource(config.raw, table, config.features)
    return VqaSource(config.raw, config.features, config.questions)
