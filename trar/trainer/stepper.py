"""One optimiser step: forward, backward and update, whatever the precision and the ranks.

The loss is a sum over questions, so a batch that goes through the model in parts, or on several
ranks, has the gradient of the whole. DistributedDataParallel takes the mean over ranks, which is
why the loss is multiplied by their number.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trar.trainer.batch import Batch, model_inputs, noise_keys
from trar.trainer.config import TrainConfig
from trar.trainer.distributed import Ranks
from trar.trainer.losses import Loss, dense_targets, gradient_share, loss_named
from trar.trainer.optim import build_optimiser, set_learning_rate

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NEW_NAME = "forward_sync_buffers"  # of an option that torch 2.13 has renamed
_HAS_IT = _NEW_NAME in inspect.signature(DistributedDataParallel.__init__).parameters
_OWN_BUFFERS: dict[str, Any] = {_NEW_NAME if _HAS_IT else "broadcast_buffers": False}


class Stepper:
    """A model in training with its optimiser; ``answers`` is the size of the answer dictionary.

    ``model`` is the bare model, the one to save; ``scored`` is the one to score: the same, or the
    average of its weights where ``loop.ema`` asks for one.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        answers: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.answers, self.ranks = model, answers, ranks or Ranks()
        self.device = next(model.parameters()).device
        self.noise_seed = config.seed  # of the routing noise, set for each step
        self._config = config
        self._loss: Loss = loss_named(config.loss)
        self._share = gradient_share(config.loss, config.data.batch_size)
        loop = config.loop
        self.optimiser = build_optimiser(model.parameters(), config.optim)
        self._half = _HALVES.get(loop.precision)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=loop.precision == "fp16")
        self._averaged: AveragedModel | None = None
        if loop.ema is not None:
            averaging = get_ema_multi_avg_fn(loop.ema)  # type: ignore[no-untyped-call]
            self._averaged = AveragedModel(model, multi_avg_fn=averaging)
            self._averaged.requires_grad_(False)
        self._forward: nn.Module = model
        if loop.compile:
            model.compile()
        if self.ranks.ranks > 1:
            self._forward = DistributedDataParallel(
                self._forward,
                gradient_as_bucket_view=True,
                **_OWN_BUFFERS,
            )

    @property
    def scored(self) -> nn.Module:
        """The model to score."""
        if self._averaged is None:
            return self.model
        module: nn.Module = self._averaged.module
        return module

    @property
    def average(self) -> nn.Module | None:
        """The model of averaged weights, if they are averaged."""
        return None if self._averaged is None else self.scored

    @property
    def scaler_state(self) -> dict[str, Any] | None:
        """What the loss scaling of fp16 has learned so far."""
        return self._scaler.state_dict() if self._scaler.is_enabled() else None

    def restore(self, average: dict[str, Tensor] | None, scaler: dict[str, Any] | None) -> None:
        """Take up saved averages and loss scaling; the optimiser is restored by itself."""
        if self._averaged is not None and average is not None:
            self._averaged.module.load_state_dict(average)
            self._averaged.n_averaged.fill_(1)  # else the next step would begin a new average
        if scaler is not None:
            self._scaler.load_state_dict(scaler)

    def set(self, *, learning_rate: float, temperature: float) -> None:
        """Use these from the next step on. The temperature is a buffer of the model, where it has
        one, and so saved with it."""
        set_learning_rate(self.optimiser, learning_rate)
        for model in {id(one): one for one in (self.model, self.scored)}.values():
            buffer = dict(model.named_buffers()).get("temperature")
            if buffer is not None:
                buffer.fill_(temperature)

    def __call__(self, batch: Batch) -> Tensor:
        """Take one step with this rank's part of a batch, which may be empty; returns the summed
        loss of the whole batch, still on the device."""
        self.optimiser.zero_grad(set_to_none=True)
        weight = 1.0
        if not len(batch):  # every rank must take part in every step
            batch, weight = _blank(batch), 0.0
        # the whole batch in so many parts, and this rank's share of each
        size = -(-self._config.data.batch_size // self._config.data.accumulation)
        size = -(-size // self.ranks.ranks)
        starts = range(0, len(batch), size)
        total = torch.zeros((), device=self.device)
        for start in starts:
            part = batch.part(start, min(start + size, len(batch)))
            last = start == starts[-1]
            with self._without_exchange() if not last else contextlib.nullcontext():
                total += weight * self._backward(part, weight)
        unread: Callable[[int], list[nn.Parameter]] = getattr(
            self.model, "unread_parameters", lambda _: []
        )
        for parameter in unread(self.noise_seed):
            parameter.grad = None
        self._penalise()
        self._update()
        return self.ranks.sum(total)

    def _backward(self, part: Batch, weight: float) -> Tensor:
        part = part.to(self.device)
        with torch.autocast(self.device.type, self._half, enabled=self._half is not None):
            keys: dict[str, Any] = dict(noise_keys(self.model, part, self.noise_seed))
            if getattr(self.model, "takes_step_seed", False):
                keys["step_seed"] = self.noise_seed
            logits = self._forward(*model_inputs(self.model, part), **keys)
        targets = dense_targets(
            part.target_row, part.target_label, part.target_score, (len(part), self.answers)
        )
        loss = self._loss(logits.float(), targets)
        scaled = self._scaler.scale(loss * (weight * self.ranks.ranks * self._share))
        scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _penalise(self) -> None:
        """Add the gradient of what a model with a ``penalty`` adds to the mean loss of a question.
        The losses that are told are those of the answers alone."""
        penalty: Tensor | None = getattr(self.model, "penalty", lambda: None)()
        if penalty is None:
            return
        scaled = self._scaler.scale(penalty * (self._share * self._config.data.batch_size))
        parameters = list(self.model.parameters())
        # not by backward(), which the ranks would exchange: it is the same on all of them
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            scaled, parameters, allow_unused=True
        )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                before = parameter.grad
                parameter.grad = gradient if before is None else before.add_(gradient)

    def _without_exchange(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return contextlib.nullcontext()

    def _update(self) -> None:
        clip = self._config.loop.clip_norm
        if clip is not None:
            self._scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self._averaged is not None:
            self._averaged.update_parameters(self.model)


def _blank(batch: Batch) -> Batch:
    """A question of nothing about nothing, for a rank that has no question in a step."""
    return replace(
        batch,
        features=batch.features.new_zeros((1, *batch.features.shape[1:])),
        cells=batch.cells.new_ones((1, *batch.cells.shape[1:])),
        tokens=batch.tokens.new_ones((1, 1)),
        question_ids=batch.question_ids.new_zeros(1),
        boxes=None if batch.boxes is None else batch.boxes.new_zeros((1, *batch.boxes.shape[1:])),
        sizes=None if batch.sizes is None else batch.sizes.new_ones((1, 2)),
    )
