"""The settings of a model, by its system: what a recipe says of it, without what the store decides.

TRAR's stand here, so that reading its recipes imports no torch. Every other system's are made from
the fields of its config in ``trar.trainer.models.MODELS``, which has the types, the defaults and
the rules, so that a new model needs nothing here.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, create_model, model_validator

from trar.errors import ConfigError
from trar.trainer.settings_section import NotNegative, Positive, Section, Share

DEFAULT_SYSTEM = "trar"  # of presets and checkpoints that do not say it
# The fields of a model's config that are no settings, with values that fit any recipe.
DECIDED_BY_STORE = {"vocabulary_size": 1, "answer_count": 1, "feature_dim": 1, "grid_side": 1024}


class ModelSettings(Section):
    """The settings of any model; ``system`` says which it is."""

    system: str


class TrarSettings(ModelSettings):
    """TRAR's, see ``trar.trainer.models.config``.

    What has a default came after the first checkpoints, which do not say it."""

    system: Literal["trar"] = "trar"
    orders: tuple[NotNegative, ...] = Field(min_length=1)
    layers: Positive
    width: Positive
    heads: Positive
    ff_width: Positive
    word_width: Positive
    flat_hidden: Positive
    flat_width: Positive
    dropout: Share
    routing: Literal["soft", "hard"]
    pooling: Literal["avg", "attention", "fc"]
    binarize: bool
    eval_alpha: Literal["softmax", "argmax", "gumbel"] = "softmax"
    eval_tau: float | None = Field(default=None, gt=0)
    pool_mask: bool
    empty_window: Literal["uniform", "zero"]
    attn_dropout: Literal["shared", "per_order"]
    layer_norm: Literal["exact", "fast"]
    kernel: Literal["auto", "eager", "triton"] = "auto"

    @model_validator(mode="after")
    def _fits(self) -> TrarSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class _OfConfig(ModelSettings):
    """Settings made from the fields of a model's config, which checks them together."""

    @model_validator(mode="after")
    def _fits(self) -> _OfConfig:
        kind = _config_class(self.system)
        fields = {field.name for field in dataclasses.fields(kind)}
        store = {name: value for name, value in DECIDED_BY_STORE.items() if name in fields}
        try:
            kind(**store, **self.model_dump(exclude={"system"}))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


def settings_class(system: str) -> type[ModelSettings]:
    """The settings of a system.

    Raises:
        ConfigError: no such system; the message names the nearest and lists them.
    """
    return TrarSettings if system == DEFAULT_SYSTEM else _made_from(system, _config_class(system))


def system_of(model: Any) -> str:
    """The system that a model section, plain or parsed, is of."""
    if isinstance(model, Mapping):
        return str(model.get("system", DEFAULT_SYSTEM))
    return str(getattr(model, "system", DEFAULT_SYSTEM))


def of_system(system: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """``model``, a plain section, for another system: the settings that this one has too.

    Raises:
        ConfigError: no such system.
    """
    known = settings_class(system).model_fields
    return {name: value for name, value in model.items() if name in known} | {"system": system}


def _parsed(model: Any) -> Any:
    if not isinstance(model, Mapping):
        return model
    try:
        kind = settings_class(system_of(model))
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return kind.model_validate(dict(model))


AnyModelSettings = Annotated[SerializeAsAny[ModelSettings], BeforeValidator(_parsed)]


def _config_class(system: str) -> Any:
    from trar.trainer.models import system_named  # torch

    return system_named(system)[0]


@functools.cache
def _made_from(system: str, kind: Any) -> type[ModelSettings]:
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {
        field.name: (
            hints[field.name],
            ... if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(kind)
        if field.name not in DECIDED_BY_STORE
    }
    named: Any = Literal[system]
    name = f"{kind.__name__.removesuffix('Config')}Settings"
    return create_model(name, __base__=_OfConfig, system=(named, system), **fields)
