"""The feature store: its format, its writer, its reader and its proof of soundness."""

from trar.features.problem import Problem
from trar.features.reader import FeatureStore
from trar.features.row_reader import ImageBatch
from trar.features.verify import verify_store

__all__ = ["FeatureStore", "ImageBatch", "Problem", "verify_store"]
