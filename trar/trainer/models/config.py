"""The settings that fix a TRAR model: sizes, routing, and the switches of the originals' quirks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trar.errors import ConfigError
from trar.trainer.models.frame import FrameConfig
from trar.trainer.ops.rings import check_orders
from trar.trainer.ops.routed import AttentionDropout, EmptyWindow, Kernel

Routing = Literal["soft", "hard"]
Pooling = Literal["avg", "attention", "fc"]
EvalAlpha = Literal["softmax", "argmax", "gumbel"]


@dataclass(frozen=True, kw_only=True)
class TrarConfig(FrameConfig):
    """TRAR (Zhou et al., ICCV 2021). Sizes: the originals' configs/vqa/trar.yml.

    ``orders``: the attention windows to route between, 0 = whole grid, k = (2k+1) x (2k+1) cells.
    ``binarize``: hard routing takes the best order alone at evaluation, after noise if any.
    ``eval_alpha``: how hard routing weighs the orders at evaluation: their ``softmax``, the best
    one alone (``argmax``), or with noise as in training (``gumbel``, as the originals do).
    ``eval_tau``: the temperature then; None: the saved one. The originals use their largest, 10.
    ``pool_mask``: the router's pooling leaves padded cells out (the originals do not).
    ``empty_window``: what a query sees whose window holds only padding; the originals: ``uniform``.
    ``attn_dropout``: one mask on the routed map, or one per order as in the originals.
    ``kernel``: how routed attention is computed; ``auto`` = by Triton on CUDA.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    grid_side: int = 8
    orders: tuple[int, ...] = (0, 1, 2, 3)
    layers: int = 6
    routing: Routing = "soft"
    pooling: Pooling = "avg"
    binarize: bool = False
    eval_alpha: EvalAlpha = "softmax"
    eval_tau: float | None = None
    pool_mask: bool = True
    empty_window: EmptyWindow = "zero"
    attn_dropout: AttentionDropout = "shared"
    kernel: Kernel = "auto"

    def __post_init__(self) -> None:
        # A list from JSON becomes a tuple, so that configs are hashable and compare equal.
        orders: Any = self.orders
        if isinstance(orders, list):
            object.__setattr__(self, "orders", tuple(orders))
        super().__post_init__()
        if self.width < 2:
            raise ConfigError(f"width is {self.width}; the router needs 2 or more")
        check_orders(self.grid_side, self.orders)
        if self.eval_tau is not None and not 0 < self.eval_tau < math.inf:
            raise ConfigError(f"eval_tau is {self.eval_tau}; it must be above 0")
        for name, unused in (("binarize", False), ("eval_alpha", "softmax"), ("eval_tau", None)):
            value = getattr(self, name)
            if self.routing == "soft" and value != unused:
                raise ConfigError(
                    f"{name} is {value!r} with routing 'soft'; it needs routing 'hard'"
                )
