"""Checks of a model's config that follow from the types of its fields alone."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Literal

from trar.errors import ConfigError


def check_fields(config: Any) -> None:
    """Refuse a value of another type than its field's, an unknown choice, and a size below 1, or
    below what the field's metadata calls ``least``; then what no transformer can have.

    Raises:
        ConfigError: the field, its value, and what it must be.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, least = getattr(config, field.name), field.metadata.get("least", 1)
        _check_value(field.name, value, hints[field.name], least)
    rate = getattr(config, "dropout", 0.0)
    if not 0 <= rate < 1:
        raise ConfigError(f"dropout is {rate}; it must be at least 0 and below 1")
    width, heads = getattr(config, "width", 2), getattr(config, "heads", 1)
    if width % heads:
        raise ConfigError(f"width {width} is not a multiple of heads {heads}; change one of them")


def _check_value(name: str, value: Any, hint: Any, least: int) -> None:
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else None
    if choices is not None and value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose {' or '.join(map(repr, choices))}")
    if hint is int and (type(value) is not int or value < least):
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, {least} or more")
    if hint is bool and type(value) is not bool:
        raise ConfigError(f"{name} is {value!r}; it must be true or false")
    if hint == float | None and value is None:
        return
    if hint in (float, float | None) and type(value) not in (int, float):
        raise ConfigError(f"{name} is {value!r}; it must be a number")
    if hint == tuple[int, ...] and (
        not isinstance(value, tuple) or any(type(one) is not int for one in value)
    ):
        raise ConfigError(f"{name} is {value!r}; it must be a list of whole numbers")
