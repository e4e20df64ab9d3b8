"""Scores. A score always says by which rules it was made: see ``result``."""

from trar.trainer.metrics.result import VqaScore

__all__ = ["VqaScore"]
