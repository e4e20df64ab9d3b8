"""Models by the name of their system."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from trar.errors import ConfigError
from trar.trainer.models.config import TrarConfig
from trar.trainer.models.trar import Trar

__all__ = ["MODELS", "Trar", "TrarConfig", "build_model"]

MODELS: dict[str, tuple[type[TrarConfig], Callable[[TrarConfig], nn.Module]]] = {
    "trar": (TrarConfig, Trar),
}


def build_model(config: TrarConfig | Mapping[str, Any]) -> nn.Module:
    """A new model with torch's default initialisation, from torch's random state.

    ``config`` is the dataclass, or a mapping of its fields with the key ``system`` besides.

    Raises:
        ConfigError: an unknown system or field, with the nearest known one; a field left out.
    """
    if isinstance(config, TrarConfig):
        return Trar(config)
    values = dict(config)
    system = values.pop("system", None)
    if system not in MODELS:
        raise ConfigError(f"system is {system!r}; choose one of {', '.join(sorted(MODELS))}")
    kind, build = MODELS[system]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            close = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(fields)}"
            raise ConfigError(f"{name} is no setting of {system}{hint}")
    left_out = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and name not in values
    ]
    if left_out:
        raise ConfigError(f"{system} needs {' and '.join(left_out)}; give them a value")
    return build(kind(**values))
