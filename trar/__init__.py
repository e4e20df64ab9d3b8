"""trar: raw VQA files to a feature store, the store to a trained and scored TRAR model."""

__version__ = "0.1.0"
