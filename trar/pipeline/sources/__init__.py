"""One file a dataset: where its raw files stand, and how its questions and images join."""

from trar.pipeline.sources.base import Questions, Source
from trar.pipeline.sources.open import open_source

__all__ = ["Questions", "Source", "open_source"]
