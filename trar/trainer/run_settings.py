"""The settings of a run by section: its data, optimiser, schedules and loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from trar.trainer.memory_bound import parse_size
from trar.trainer.settings_section import NotNegative, Positive, Section, Share

Size = Annotated[int, BeforeValidator(parse_size), Field(ge=1)]


class DataSettings(Section):
    """How questions become batches. ``batch_size`` is one optimiser step; with ``accumulation``
    > 1 it goes through the model in that many parts, which changes memory and not the sum.
    Questions are cut to ``max_tokens`` words; None: to the longest of the store, so never.
    ``vectors``: what word embeddings start from, a name in the store, ``auto`` or ``none``.

    ``threads`` read ``prefetch`` batches ahead (0: each batch is read when it is asked for).
    ``order``, ``window`` (bytes, or "2G"), ``block_images`` and ``length_buckets``: see
    ``orders.OrderSettings``; ``where`` to ``epoch_questions``: see ``subsets.Selection.parse``.
    ``verify_reads``: which images are compared with their checksums as they are read. ``max_ram``
    ("8G"): prefetch, threads and window are made smaller to keep to it.
    ``grid``: the side of the feature grid that the recipe is for; None: whatever the store has.
    ``tokenizer``: questions as words or as word pieces; ``targets``: answers by their normal form,
    or as annotated and in LXMERT's order. ``prepare`` makes the others with the same options."""

    max_tokens: Positive | None
    batch_size: Positive
    accumulation: Positive
    prefetch: Positive
    eval_batch_size: Positive
    vectors: str = Field(min_length=1)
    threads: int = Field(default=1, ge=0, le=16)
    order: Literal["global", "block"] = "global"
    window: Size = 1 << 30
    block_images: Positive = 32
    length_buckets: NotNegative = 0
    verify_reads: Literal["all", "sample", "none"] = "all"
    max_ram: Size | None = None
    where: str | None = None
    fraction: float = Field(default=1.0, gt=0, le=1)
    limit: Positive | None = None
    mix: str | None = None
    epoch_questions: Positive | None = None
    grid: Positive | None = None
    tokenizer: Literal["openvqa", "wordpiece"] = "openvqa"
    targets: Literal["openvqa", "lxmert"] = "openvqa"

    @model_validator(mode="after")
    def _divides(self) -> DataSettings:
        if self.batch_size % self.accumulation:
            fits = [n for n in range(1, self.batch_size + 1) if self.batch_size % n == 0]
            near = min(fits, key=lambda n: abs(n - self.accumulation))
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into accumulation "
                f"{self.accumulation} equal parts; {near} would do"
            )
        return self


class OptimSettings(Section):
    """Adam, or LAMB with ``weight_decay``. With ``lookahead_steps`` weights are drawn towards those
    of so many steps ago: ``lookahead_share`` of the way is kept."""

    kind: Literal["adam", "lamb"] = "adam"
    lr: float = Field(gt=0)
    betas: tuple[Share, Share]
    eps: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    lookahead_steps: NotNegative = 0
    lookahead_share: float = Field(default=0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _decays(self) -> OptimSettings:
        if self.weight_decay and self.kind == "adam":
            raise ValueError("weight_decay goes with kind lamb; adam has none")
        return self


class ScheduleSettings(Section):
    """Epochs count from 0 in ``decay_epochs``; the learning rate drops at the start of each. A
    ``cyclic`` one goes up from ``lowest`` of it in ``up_steps`` steps and down again in
    ``down_steps``, over and over."""

    kind: Literal["epochs", "cyclic"] = "epochs"
    epochs: Positive
    warmup_epochs: NotNegative
    decay_epochs: tuple[NotNegative, ...]
    decay_rate: float = Field(gt=0, le=1)
    up_steps: Positive = 2000
    down_steps: Positive = 2000
    lowest: Share = 0.2

    @model_validator(mode="after")
    def _one_kind(self) -> ScheduleSettings:
        if self.kind == "cyclic" and (self.warmup_epochs or self.decay_epochs):
            raise ValueError("a cyclic schedule has warmup_epochs 0 and decay_epochs []")
        return self


class TemperatureSettings(Section):
    """The temperature of hard routing over the epochs; soft routing does not use it."""

    policy: int = Field(ge=0, le=2)
    max: float = Field(gt=0)
    min: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureSettings:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}")
        return self


class LoopSettings(Section):
    """How the loop goes through the steps, and what it keeps.

    ``precision``: of the forward and backward pass; weights and moments stay float32.
    ``clip_norm``: gradients longer than this are shortened to it. ``ema``: decay of an average of
    the weights, which is then what is scored. ``early_stop``: end after so many scored epochs
    without a better score. ``keep_last`` checkpoints stay besides the best. Scored every
    ``eval_epochs`` epochs and, where given, every ``eval_steps`` steps; ``checkpoint_steps``: also
    write a checkpoint within an epoch. ``compile``: run the model through torch.compile."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip_norm: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    early_stop: Positive | None = None
    keep_last: Positive = 2
    eval_epochs: Positive = 1
    eval_steps: Positive | None = None
    checkpoint_steps: Positive | None = None
    compile: bool = False
    tensorboard: bool = False
