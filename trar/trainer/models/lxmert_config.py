"""LXMERT's sizes, and what the adaptive transformer adds to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trar.errors import ConfigError
from trar.trainer.models.field_checks import check_fields

STACKS = ("language", "object", "cross")


@dataclass(frozen=True, kw_only=True)
class LxmertConfig:
    """The settings of LXMERT and of the adaptive transformer.

    ``adaptive_span``: every head learns how far it looks. ``distance``: ``relative``, tokens from
    query to key, where words attend to words (objects are in no order, and no span is learned
    there); ``absolute``, places to the last of ``text_tokens`` or ``objects``, in every attention,
    as the public code has it. ``span_ramp``: the width of the soft edge, in keys.
    ``span_penalty``: what the mean span of each attention adds to the mean loss of a question.
    ``entmax``: every head learns its sparsity. ``layer_drop``: layers of each stack left out of a
    training step. ``language_kept``, ``object_kept``, ``cross_kept``: the layers that evaluation
    goes through, from 0; None: all.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    vocabulary_size: int
    answer_count: int
    feature_dim: int = 2048
    language_layers: int = 9
    object_layers: int = 5
    cross_layers: int = 5
    width: int = 768
    heads: int = 12
    ff_width: int = 3072
    positions: int = 512
    dropout: float = 0.1
    text_tokens: int = 20
    objects: int = 36
    adaptive_span: bool = False
    distance: Literal["absolute", "relative"] = "relative"
    span_ramp: float = 5.0
    span_penalty: float = 0.00512
    entmax: bool = False
    layer_drop: int = field(default=0, metadata={"least": 0})
    language_kept: tuple[int, ...] | None = None
    object_kept: tuple[int, ...] | None = None
    cross_kept: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.span_ramp <= 0:
            raise ConfigError(f"span_ramp is {self.span_ramp}; it must be above 0")
        if self.span_penalty < 0:
            raise ConfigError(f"span_penalty is {self.span_penalty}; it must be 0 or more")
        for stack in STACKS:
            layers = getattr(self, f"{stack}_layers")
            if self.layer_drop >= layers:
                raise ConfigError(
                    f"layer_drop is {self.layer_drop} of {layers} {stack} layers; at least one "
                    "must be left"
                )
            self._check_kept(f"{stack}_kept", layers)

    def _check_kept(self, name: str, layers: int) -> None:
        kept = getattr(self, name)
        if isinstance(kept, list):  # from JSON
            kept = tuple(kept)
            object.__setattr__(self, name, kept)
        if kept is not None and (
            not kept
            or any(type(one) is not int for one in kept)
            or list(kept) != sorted(set(kept) & set(range(layers)))
        ):
            raise ConfigError(
                f"{name} is {list(kept)}; it must be ascending numbers from 0 to {layers - 1}"
            )

    def learns_spans(self, *, words_only: bool) -> bool:
        """Whether the heads of an attention learn how far they look; ``words_only``: it is of words
        to words, the one kind that a relative distance is known of."""
        return self.adaptive_span and (words_only or self.distance == "absolute")
