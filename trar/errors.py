"""Errors a user can cause and fix. The command line prints their message without a traceback.

Every message says what is wrong, where, what was expected and found, and what to do.
"""

from __future__ import annotations


class TrarError(Exception):
    """Base of every error whose message is written for the user."""


class ConfigError(TrarError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class RawDataError(TrarError):
    """A raw file is missing, damaged, or not what its place promises."""


class StoreError(TrarError):
    """A feature store is missing, incomplete, of another format, or damaged."""


class CheckpointError(TrarError):
    """A checkpoint is missing, damaged, or belongs to another model, vocabulary or store."""


class ScoreError(TrarError):
    """Results and annotations cannot be scored against each other."""


class DiskError(TrarError):
    """The disk is full, or a path cannot be written or read."""


REMAKE = "run trar-data repair, or prepare this dataset again"
"""What to do about a damaged file of a store, for the end of a message."""
