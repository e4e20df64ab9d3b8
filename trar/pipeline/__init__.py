"""Raw files to feature stores."""

from trar.pipeline.config import PrepareConfig
from trar.pipeline.run import PrepareResult, prepare

__all__ = ["PrepareConfig", "PrepareResult", "prepare"]
