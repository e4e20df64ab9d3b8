"""Operators of the models: pure functions and thin modules on torch alone."""
