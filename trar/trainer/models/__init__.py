"""Models by the name of their system: adding one takes its file, and its line in ``MODELS``."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from trar.errors import ConfigError
from trar.trainer.models.config import TrarConfig
from trar.trainer.models.lsat import Lsat, LsatConfig
from trar.trainer.models.lxmert import Lxmert
from trar.trainer.models.lxmert_config import LxmertConfig
from trar.trainer.models.mcan import Mcan, McanConfig
from trar.trainer.models.rwsan import Rwsan, RwsanConfig
from trar.trainer.models.trar import Trar

__all__ = [
    "MODELS",
    "Lsat",
    "LsatConfig",
    "Lxmert",
    "LxmertConfig",
    "Mcan",
    "McanConfig",
    "Rwsan",
    "RwsanConfig",
    "Trar",
    "TrarConfig",
    "build_model",
    "system_named",
]

# Each has a frozen dataclass of its settings and sizes, and the model that is built from one.
MODELS: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "trar": (TrarConfig, Trar),
    "mcan": (McanConfig, Mcan),
    "rwsan": (RwsanConfig, Rwsan),
    "lsat": (LsatConfig, Lsat),
    "lxmert": (LxmertConfig, Lxmert),
}


def build_model(config: Any) -> nn.Module:
    """A new model with torch's default initialisation, from torch's random state.

    ``config`` is the dataclass of one of ``MODELS``, or a mapping of its fields with the key
    ``system`` besides.

    Raises:
        ConfigError: an unknown system or field, with the nearest known one; a field left out.
    """
    if isinstance(config, Mapping):
        values = dict(config)
        system = values.pop("system", None)
        kind, build = system_named(system)
        _check_names(system, kind, values)
        return build(kind(**values))
    for kind, build in MODELS.values():
        if type(config) is kind:
            return build(config)
    raise ConfigError(f"{type(config).__name__} is the config of no model in MODELS; add its line")


def system_named(system: Any) -> tuple[type[Any], type[nn.Module]]:
    """The config and the model of a system.

    Raises:
        ConfigError: no such system; the message names the nearest and lists them.
    """
    if system not in MODELS:
        close = difflib.get_close_matches(str(system), MODELS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"system is {system!r}{hint}; choose one of {', '.join(sorted(MODELS))}")
    return MODELS[system]


def _check_names(system: str, kind: type[Any], values: Mapping[str, Any]) -> None:
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
