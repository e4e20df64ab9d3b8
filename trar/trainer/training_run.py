"""A run in progress: its weights, where it stands, and the epochs that it goes through.

Everything random is a function of (seed, step) and the order one of (seed, epoch), so a run that
goes on from a checkpoint ends with the bits of one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from trar.errors import TrarError
from trar.trainer.bad_batch import bad_batch_path, write_bad_batch
from trar.trainer.checkpoint import Checkpoint, save_checkpoint
from trar.trainer.metrics import VqaScore
from trar.trainer.model_sizes import feature_sizes
from trar.trainer.new_model import new_model
from trar.trainer.optim import set_learning_rate
from trar.trainer.progress import Losses, NotFiniteError, Progress, Rate, Report
from trar.trainer.rates import (
    epoch_learning_rate,
    epoch_temperature,
    step_learning_rate,
    uses_temperature,
)
from trar.trainer.run_folder import (
    checkpoint_path,
    checkpoints_in,
    drop_checkpoints,
    drop_within_epoch,
)
from trar.trainer.run_log import RunLog
from trar.trainer.run_parts import Parts
from trar.trainer.run_scoring import figures_on_the_way, score_on_the_way
from trar.trainer.sampler import step_seed
from trar.trainer.score_history import best_epoch, kept_scores, patience_spent
from trar.trainer.stepper import Stepper
from trar.trainer.word_vectors import StartVectors


class TrainingRun:
    """What changes as a run goes on: weights, moments, position, and the history of its epochs.

    ``epoch`` epochs are finished, and ``epoch_step`` steps of the next.
    """

    def __init__(
        self, parts: Parts, begin: Checkpoint | StartVectors, log: RunLog, report: Report
    ) -> None:
        self.parts, self._log = parts, log
        self._report = report if parts.ranks.first else lambda _: None
        config, store = parts.config, parts.store
        self.epoch = self.epoch_step = 0
        self.history: list[dict[str, Any]] = []
        self._seen: list[float] = []
        if isinstance(begin, Checkpoint):
            self.epoch, self.epoch_step = begin.epoch, begin.epoch_step
            self.history, self._seen = list(begin.history), begin.losses()
            model = begin.model(parts.device, average=False)
            self.saved = begin.path
        else:
            model = new_model(config, store, begin, parts.device)
            self.saved = parts.run
        self.stepper = Stepper(model, config, answers=len(store.answers), ranks=parts.ranks)
        if isinstance(begin, Checkpoint):
            begin.restore_optimiser(model, self.stepper.optimiser)
            average = begin.weights(average=True) if begin.averaged else None
            self.stepper.restore(average, begin.scaler)
        left = parts.steps * (config.schedule.epochs - self.epoch) - self.epoch_step
        self._rate = Rate(left)

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained, or none of the last ones was better."""
        loop, epochs = self.parts.config.loop, self.parts.config.schedule.epochs
        return self.epoch >= epochs or patience_spent(self.history, loop.early_stop)

    @property
    def unscored(self) -> bool:
        """Whether the last finished epoch is still to be scored."""
        due = self.parts.eval_split is not None and self._scored_epoch(self.epoch)
        return bool(due and not self.epoch_step and self.history and not self._last["scores"])

    def train_epoch(self) -> None:
        """Train the next epoch, or what is left of it, and save a checkpoint after it."""
        parts, config = self.parts, self.parts.config
        told = self._epoch_begins(self.epoch)
        losses = Losses(
            self._log,
            told,
            batch_size=config.data.batch_size,
            questions=parts.loader.order.questions,
            log_steps=config.log_steps,
            seen=self._seen,
        )
        self.stepper.model.train()
        begun, samples = time.perf_counter(), 0
        with parts.loader.stream(self.epoch, self.epoch_step) as stream:
            for batch in stream:
                self._seed_step()
                if config.schedule.kind == "cyclic":
                    losses.told = told = self._step_begins(told)
                losses.add(self.stepper(batch))
                self.epoch_step += 1
                self._rate.step()
                samples += len(batch)
                # looking at a loss waits for the device: each step only where there is no wait
                due = self.epoch_step % config.log_steps == 0 or self.epoch_step == parts.steps
                if due or parts.device.type == "cpu":
                    self._look(losses, log=due)
                seconds = time.perf_counter() - begun
                told = dataclasses.replace(
                    told,
                    step=self.epoch_step,
                    loss=losses.latest,
                    samples_per_s=samples / seconds,
                    eta_s=self._rate.eta_s(),
                    data_wait_share=stream.waited_s / seconds,
                )
                self._report(told)
                if self.epoch_step < parts.steps:
                    self._within_epoch(losses)
        self.epoch, self.epoch_step, self._seen = self.epoch + 1, 0, []
        said = {"epoch": self.epoch, "split": config.split, "loss": losses.mean, "scores": None}
        self.history.append(said)
        # logged first: what is logged beyond the newest checkpoint is dropped on resuming
        self._log_epoch(told, time.perf_counter() - begun)
        self._log_figures({"epoch": self.epoch}, parts.steps)
        self._save()

    def score_epoch(self) -> None:
        """Score the epoch just finished, where that is due, and drop checkpoints that go."""
        told = self._told("epoch", self.epoch)
        if self.unscored:
            scores = self._evaluate(told)
            self._last["scores"] = kept_scores(scores, self.parts.eval_split)
            self._log.add({"event": "scores", "epoch": self.epoch, **self._last["scores"]})
            self._save()
            told = dataclasses.replace(told, scores=scores)
        if self.parts.ranks.first:
            newest = range(self.epoch - self.parts.config.loop.keep_last + 1, self.epoch + 1)
            best = best_epoch(self.history, checkpoints_in(self.parts.run))
            drop_checkpoints(self.parts.run, {*newest, best})
        self._report(told)

    @property
    def _last(self) -> dict[str, Any]:
        return self.history[-1]

    def _scored_epoch(self, epoch: int) -> bool:
        """Whether an epoch (from 1) is one to score: every so many, and the last."""
        every = self.parts.config.loop.eval_epochs
        return epoch % every == 0 or epoch == self.parts.config.schedule.epochs

    def _seed_step(self) -> None:
        """What is random in this step depends on nothing before it; each rank has its own."""
        parts = self.parts
        step = self.epoch * parts.steps + self.epoch_step
        torch.manual_seed(step_seed(parts.config.seed, step, parts.ranks.rank))
        self.stepper.noise_seed = step_seed(parts.config.seed, step)  # the same on all ranks

    def _within_epoch(self, losses: Losses) -> None:
        """Score and save in the middle of an epoch, where that is due."""
        loop = self.parts.config.loop
        if (
            self.parts.eval_split is not None
            and loop.eval_steps
            and self.epoch_step % loop.eval_steps == 0
        ):
            told = dataclasses.replace(self._told("epoch", self.epoch + 1), step=self.epoch_step)
            scores = self._evaluate(told)
            self.stepper.model.train()
            kept = kept_scores(scores, self.parts.eval_split)
            at = {"epoch": self.epoch + 1, "step": self.epoch_step}
            self._log.add({"event": "scores", **at, **kept})
            self._log_figures(at, self.epoch_step)
        if loop.checkpoint_steps and self.epoch_step % loop.checkpoint_steps == 0:
            self._look(losses, log=False)
            self._save(losses.seen)

    def _evaluate(self, told: Progress) -> VqaScore:
        def count(done: int, total: int) -> None:
            self._report(dataclasses.replace(told, stage="evaluate", step=done, steps=total))

        return score_on_the_way(self.parts, self.stepper.scored, count)

    def _told(self, stage: Any, epoch: int) -> Progress:
        loss = self._last["loss"] if self.history else None
        return Progress(stage, self.parts.run, epoch, self.parts.config.schedule.epochs, loss=loss)

    def _epoch_begins(self, epoch: int) -> Progress:
        """Set what is constant within an epoch: learning rate and temperature."""
        config = self.parts.config
        rate, warmth = epoch_learning_rate(config, epoch), epoch_temperature(config, epoch)
        self.stepper.set(learning_rate=rate, temperature=warmth)
        return dataclasses.replace(
            self._told("train", epoch + 1),
            loss=None,
            steps=self.parts.steps,
            learning_rate=rate,
            temperature=warmth if uses_temperature(config) else 0.0,
        )

    def _step_begins(self, told: Progress) -> Progress:
        """Set the learning rate of a schedule that goes by steps."""
        step = self.epoch * self.parts.steps + self.epoch_step
        rate = step_learning_rate(self.parts.config, step)
        set_learning_rate(self.stepper.optimiser, rate)
        return dataclasses.replace(told, learning_rate=rate)

    def _look(self, losses: Losses, *, log: bool) -> None:
        try:
            losses.look(log=log)
        except NotFiniteError as error:
            run, epoch = self.parts.run, self.epoch + 1
            path = bad_batch_path(run, epoch, error.step)
            if self.parts.ranks.first:
                write_bad_batch(path, self.parts.loader, epoch, error.step)
            newest = f"the newest checkpoint is {self.saved.name}"
            if self.saved == run:
                newest = "there is no checkpoint yet"
            raise TrarError(f"{run}: {error}; the batch is in {path.name}, {newest}") from None

    def _save(self, losses: list[float] | None = None) -> None:
        """Write a checkpoint; ``losses`` are those of an epoch that is not finished."""
        parts, store = self.parts, self.parts.store
        within = self.epoch_step if losses else 0
        path = checkpoint_path(parts.run, self.epoch, within)
        self.saved = path
        if not parts.ranks.first:
            return
        features = feature_sizes(store)
        checkpoint = Checkpoint(
            path=path,
            config=parts.config,
            epoch=self.epoch,
            step=self.epoch * parts.steps + within,
            epoch_step=within,
            dataset=store.dataset,
            store_fingerprint=store.meta.fingerprint,
            feature_dim=features.feature_dim,
            grid_side=features.grid_side,
            vocabulary=store.vocabulary,
            answers=store.answers,
            history=tuple(self.history),
            scaler=self.stepper.scaler_state,
        )
        save_checkpoint(
            checkpoint,
            self.stepper.model,
            self.stepper.optimiser,
            average=self.stepper.average,
            losses=losses or (),
        )
        if within:
            drop_within_epoch(parts.run, but=path)

    def _log_epoch(self, told: Progress, seconds: float) -> None:
        self._log.add(
            {
                "event": "epoch",
                "epoch": self.epoch,
                "loss": self._last["loss"],
                "learning_rate": told.learning_rate,
                "temperature": told.temperature,
                "seconds": round(seconds, 3),
                "data_wait_share": round(told.data_wait_share, 4),
            }
        )

    def _log_figures(self, at: dict[str, int], steps: int) -> None:
        """Log what the model has learned about its attention, ``steps`` into the epoch ``at``."""
        if not self.parts.ranks.first:
            return
        begin = (at["epoch"] - 1) * self.parts.steps
        model, scored = self.stepper.model, self.stepper.scored
        figures = figures_on_the_way(self.parts, model, scored, range(begin, begin + steps))
        if figures:
            self._log.add({"event": "figures", **at, "figures": figures})
