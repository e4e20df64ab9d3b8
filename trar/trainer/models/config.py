"""The settings that fix a TRAR model: sizes, routing, and the switches of the originals' quirks."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trar.errors import ConfigError
from trar.trainer.models.layers import LayerNormKind
from trar.trainer.ops.rings import check_orders
from trar.trainer.ops.routed import AttentionDropout, EmptyWindow

Routing = Literal["soft", "hard"]
Pooling = Literal["avg", "attention", "fc"]


@dataclass(frozen=True, kw_only=True)
class TrarConfig:
    """TRAR (Zhou et al., ICCV 2021). Sizes: the originals' configs/vqa/trar.yml.

    ``orders``: the attention windows to route between, 0 = whole grid, k = (2k+1) x (2k+1) cells.
    ``binarize``: hard routing takes the best order alone at evaluation.
    ``pool_mask``: the router's pooling leaves padded cells out (the originals do not).
    ``empty_window``: what a query sees whose window holds only padding; the originals: ``uniform``.
    ``attn_dropout``: one mask on the routed map, or one per order as in the originals.
    ``layer_norm``: ``exact`` = the originals' form, ``fast`` = torch's.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    vocabulary_size: int
    answer_count: int
    feature_dim: int = 2048
    grid_side: int = 8
    orders: tuple[int, ...] = (0, 1, 2, 3)
    layers: int = 6
    width: int = 512
    heads: int = 8
    ff_width: int = 2048
    word_width: int = 300
    flat_hidden: int = 512
    flat_width: int = 1024
    dropout: float = 0.1
    routing: Routing = "soft"
    pooling: Pooling = "avg"
    binarize: bool = False
    pool_mask: bool = True
    empty_window: EmptyWindow = "zero"
    attn_dropout: AttentionDropout = "shared"
    layer_norm: LayerNormKind = "exact"

    def __post_init__(self) -> None:
        # A list from JSON becomes a tuple, so that configs are hashable and compare equal.
        orders: Any = self.orders
        if isinstance(orders, list):
            object.__setattr__(self, "orders", tuple(orders))
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check_value(field.name, getattr(self, field.name), hints[field.name])
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.width % self.heads:
            raise ConfigError(
                f"width {self.width} is not a multiple of heads {self.heads}; change one of them"
            )
        if self.width < 2:
            raise ConfigError(f"width is {self.width}; the router needs 2 or more")
        check_orders(self.grid_side, self.orders)
        if self.binarize and self.routing == "soft":
            raise ConfigError("binarize is True with routing 'soft'; it needs routing 'hard'")


def _check_value(name: str, value: Any, hint: Any) -> None:
    """Refuse a value of another type than the field's, a size below 1, an unknown choice."""
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else None
    if choices is not None and value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose {' or '.join(map(repr, choices))}")
    if hint is int and (type(value) is not int or value < 1):
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, 1 or more")
    if hint is bool and type(value) is not bool:
        raise ConfigError(f"{name} is {value!r}; it must be true or false")
    if hint is float and type(value) not in (int, float):
        raise ConfigError(f"{name} is {value!r}; it must be a number")
    if name == "orders" and (
        not isinstance(value, tuple) or any(type(order) is not int for order in value)
    ):
        raise ConfigError(f"orders is {value!r}; it must be a list of whole numbers")
