"""What a prepare is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PrepareConfig(BaseModel):
    """Settings of one ``trar-data prepare``; every default is what the command line shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Literal["vqa", "easy-vqa"] = "vqa"
    raw: Path = Path("data")
    store: Path = Path("features")
    split: str = "train+val"
    """Question splits, joined by ``+``."""
    grid: int = Field(default=8, ge=1, le=64)
    """Side of the feature grid: a feature file must have ``grid * grid`` cells."""
    feature_dim: int | None = Field(default=None, ge=1)
    """Asserted width of a cell's features; None takes the first image's."""
    dtype: Literal["float16", "float32"] = "float16"
    answers: Path | None = None
    """A given answer dictionary in the originals' shape; None builds one."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many images of each split (lowest ids), and only the questions about them."""
    shard_images: int | None = Field(default=None, ge=1)
    """Images per shard; None: 1024, or fewer so that a shard has at most 256 MiB."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that read features; 0: this one; None: as many as there are cores."""
