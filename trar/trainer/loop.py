"""The training loop: epochs of steps, a checkpoint after each epoch, a score where there is one.

Everything random in a step is a function of (seed, global step) and the order of questions one of
(seed, epoch), so a run that was killed and continued ends with the same bits as one that was not
(on the CPU, with the same number of threads).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trar.errors import ConfigError, StoreError
from trar.features.reader import FeatureStore
from trar.trainer.batch import Batch
from trar.trainer.checkpoint import (
    Checkpoint,
    feature_sizes,
    model_config,
    save_checkpoint,
)
from trar.trainer.config import TrainConfig
from trar.trainer.evaluator import evaluate, pick_device
from trar.trainer.loader import BatchStream, Questions
from trar.trainer.losses import Loss, dense_targets, loss_named
from trar.trainer.metrics import VqaScore
from trar.trainer.models import TrarConfig, build_model
from trar.trainer.optim import build_adam, set_learning_rate
from trar.trainer.progress import Losses, Progress, Rate, Report
from trar.trainer.resume import begin_run, how_to_resume
from trar.trainer.run_folder import (
    append_log,
    checkpoint_path,
    checkpoints_in,
    drop_checkpoints,
    rewind_log,
    write_config,
)
from trar.trainer.sampler import epoch_order, rows_of_step, step_seed, steps_per_epoch
from trar.trainer.schedules import learning_rate_factor, temperature
from trar.trainer.word_vectors import StartVectors, choose_vectors, start_embeddings

_KEPT_CHECKPOINTS = 2  # besides the best


@dataclass(frozen=True)
class TrainResult:
    """What a run left: its folder, the last and the best checkpoint (the same where nothing was
    scored), the scores and mean loss of every epoch, and how long this call took."""

    run: Path
    checkpoint: Path
    best_checkpoint: Path
    scores: dict[str, Any] | None
    history: tuple[dict[str, Any], ...]
    seconds: float


def train(
    config: TrainConfig, report: Report | None = None, *, resume: str | Path | None = None
) -> TrainResult:
    """Train as ``config`` says; every finished epoch is a checkpoint in the run's folder.

    ``resume="auto"`` continues the newest checkpoint of the run (``config.run``, or the newest run
    of this preset), and starts it where there is none; a path continues from that file in a new
    run folder. Without ``resume`` a folder that exists is left alone and the next number is taken.

    Raises:
        TrarError: anything the user can fix: settings, store, checkpoint, disk, a loss that is
            not finite.
        KeyboardInterrupt: with a note on how to continue.
    """
    started = time.perf_counter()
    report = report or (lambda _: None)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    store = FeatureStore(config.store, config.dataset)
    max_tokens = config.data.max_tokens or store.meta.longest_question
    questions = Questions(store, config.splits, max_tokens=max_tokens, targets=True)
    if not questions.scored_answers:
        raise ConfigError(
            f"{store.path}: no question of {config.split} has an answer that is in the answer "
            f"dictionary ({len(store.answers):,} answers); train on another split, or prepare the "
            "store with answers that fit"
        )
    eval_split, why_not = _eval_split(config, store)
    _model_config(config, store)  # refused here, before there is a folder
    start = choose_vectors(config, store)
    begin = begin_run(config, store, resume)
    run = begin.run
    for note in filter(None, [begin.note, why_not, None if begin.checkpoint else start.note]):
        report(Progress("note", run, note=note))
    state = _State(config, store, questions, eval_split, run, device, begin.checkpoint or start)
    if state.epoch < config.schedule.epochs:
        write_config(run, config, store)
        rewind_log(run, state.epoch if begin.checkpoint else -1)
    if begin.checkpoint is None:
        append_log(run, {"event": "start", "epoch": 0, "vectors": start.name, "note": start.note})
    try:
        if state.epoch and eval_split and state.history[-1]["scores"] is None:
            state.score_epoch(report)  # killed between the epoch's checkpoint and its score
        rate = Rate(state.steps * (config.schedule.epochs - state.epoch))
        while state.epoch < config.schedule.epochs:
            state.train_epoch(report, rate)
            state.score_epoch(report)
    except KeyboardInterrupt as stop:
        stop.add_note(how_to_resume(run, config))
        raise
    best = _best_epoch(state.history, checkpoints_in(run))
    return TrainResult(
        run=run,
        checkpoint=state.saved,
        best_checkpoint=state.saved if best == state.epoch else checkpoint_path(run, best),
        scores=state.history[-1]["scores"],
        history=tuple(state.history),
        seconds=time.perf_counter() - started,
    )


def _eval_split(config: TrainConfig, store: FeatureStore) -> tuple[str | None, str | None]:
    """The split to score after each epoch, or None and the reason to tell."""
    split = config.eval_split
    if split is None:
        return None, None
    if split in config.splits:
        return None, (
            f"training on {config.split} includes {split}: nothing is scored on the way; predict "
            "a split that is not trained on, for example `trar predict --split test`"
        )
    if split not in store.meta.question_splits:
        return None, (
            f"{store.path} has no split {split}: nothing is scored on the way; add it with "
            f"`trar-data prepare --split {split}`"
        )
    if not store.meta.question_splits[split].answered:
        raise StoreError(
            f"{store.path}: split {split} has no answers to score against; choose another "
            "eval_split, or none with --set eval_split=null"
        )
    return split, None


def _model_config(config: TrainConfig, store: FeatureStore) -> TrarConfig:
    width, side = feature_sizes(store)
    return model_config(
        config.model,
        vocabulary_size=len(store.vocabulary),
        answer_count=len(store.answers),
        feature_dim=width,
        grid_side=side,
    )


def _new_model(
    config: TrainConfig, store: FeatureStore, start: StartVectors, device: torch.device
) -> nn.Module:
    """The untrained model: the same weights for the same seed on every device, and all but the
    word embeddings the same whatever those start from."""
    torch.manual_seed(config.seed)
    model = build_model(_model_config(config, store))
    start_embeddings(model, start)
    return model.to(device)


class _State:
    """What changes as a run goes on: weights, moments, finished epochs and their history."""

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        questions: Questions,
        eval_split: str | None,
        run: Path,
        device: torch.device,
        begin: Checkpoint | StartVectors,
    ) -> None:
        self.config, self.store, self.questions = config, store, questions
        self.eval_split, self.run, self.device = eval_split, run, device
        checkpoint = begin if isinstance(begin, Checkpoint) else None
        self.epoch = checkpoint.epoch if checkpoint else 0
        self.history = list(checkpoint.history) if checkpoint else []
        self.steps = steps_per_epoch(len(questions), config.data.batch_size)
        self.loss: Loss = loss_named(config.loss)
        self.answers = len(store.answers)
        if isinstance(begin, Checkpoint):
            self.model = begin.model(device)
        else:
            self.model = _new_model(config, store, begin, device)
        optim = config.optim
        self.optimiser = build_adam(
            self.model.parameters(), lr=optim.lr, betas=optim.betas, eps=optim.eps
        )
        self.saved = checkpoint.path if checkpoint else run
        if checkpoint is not None:
            checkpoint.restore_optimiser(self.model, self.optimiser)

    def train_epoch(self, report: Report, rate: Rate) -> None:
        """Train the next epoch and save a checkpoint after it."""
        config, epoch = self.config, self.epoch
        told = self._epoch_begins(epoch)
        order = epoch_order(len(self.questions), seed=config.seed, epoch=epoch)
        size = config.data.batch_size
        rows = (rows_of_step(order, step, size) for step in range(self.steps))
        losses = Losses(self.run, told, size, len(self.questions))
        self.model.train()
        begun = time.perf_counter()
        with BatchStream(self.questions, rows, prefetch=config.data.prefetch) as stream:
            for step, batch in enumerate(stream, start=1):
                torch.manual_seed(step_seed(config.seed, epoch * self.steps + step - 1))
                losses.add(self._step(batch))
                rate.step()
                # looking at a loss waits for the device: each step only where there is no wait
                due = step % config.log_steps == 0 or step == self.steps
                if due or self.device.type == "cpu":
                    losses.look(log=due)
                seconds = time.perf_counter() - begun
                told = dataclasses.replace(
                    told,
                    step=step,
                    loss=losses.latest,
                    samples_per_s=losses.samples / seconds,
                    eta_s=rate.eta_s(),
                    data_wait_share=stream.waited_s / seconds,
                )
                report(told)
        self.epoch += 1
        self.history.append({"epoch": self.epoch, "loss": losses.mean, "scores": None})
        # logged first: what is logged beyond the newest checkpoint is dropped on resuming
        self._log_epoch(told, time.perf_counter() - begun)
        self._save()

    def score_epoch(self, report: Report) -> None:
        """Score the epoch just finished, where there is something to score it on."""
        told = Progress(
            "epoch", self.run, self.epoch, self.config.schedule.epochs, loss=self._last["loss"]
        )
        if self.eval_split is not None:

            def count(done: int, total: int) -> None:
                report(dataclasses.replace(told, stage="evaluate", step=done, steps=total))

            scores = evaluate(
                self.model,
                self.store,
                self.eval_split,
                batch_size=self.config.data.eval_batch_size,
                max_tokens=self.config.data.max_tokens or self.store.meta.longest_question,
                progress=count,
            )
            self._last["scores"] = _without_questions(scores, self.eval_split)
            line = {"event": "scores", "epoch": self.epoch, **self._last["scores"]}
            append_log(self.run, line)
            self._save()
            told = dataclasses.replace(told, scores=scores)
        newest = range(self.epoch - _KEPT_CHECKPOINTS + 1, self.epoch + 1)
        best = _best_epoch(self.history, checkpoints_in(self.run))
        drop_checkpoints(self.run, {*newest, best})
        report(told)

    @property
    def _last(self) -> dict[str, Any]:
        return self.history[-1]

    def _epoch_begins(self, epoch: int) -> Progress:
        """Set what is constant within an epoch: learning rate and temperature."""
        schedule, heat = self.config.schedule, self.config.temperature
        lr = self.config.optim.lr * learning_rate_factor(
            epoch,
            warmup_epochs=schedule.warmup_epochs,
            decay_epochs=schedule.decay_epochs,
            decay_rate=schedule.decay_rate,
        )
        warmth = temperature(
            heat.policy,
            epoch,
            epochs=schedule.epochs,
            warmup_epochs=schedule.warmup_epochs,
            largest=heat.max,
            smallest=heat.min,
        )
        set_learning_rate(self.optimiser, lr)
        self.model.get_buffer("temperature").fill_(warmth)  # saved, so evaluation has it too
        return Progress(
            "train",
            self.run,
            epoch + 1,
            schedule.epochs,
            steps=self.steps,
            learning_rate=lr,
            temperature=warmth,
        )

    def _step(self, batch: Batch) -> Tensor:
        """One optimiser step; returns the summed loss, still on the device."""
        self.optimiser.zero_grad(set_to_none=True)
        size = -(-self.config.data.batch_size // self.config.data.accumulation)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(batch), size):
            part = batch.part(start, min(start + size, len(batch))).to(self.device)
            logits = self.model(part.features, part.tokens, part.cells)
            targets = dense_targets(
                part.target_row, part.target_label, part.target_score, (len(part), self.answers)
            )
            loss = self.loss(logits, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()  # a sum over questions: parts add up to the whole batch
        self.optimiser.step()
        return total

    def _save(self) -> None:
        width, side = feature_sizes(self.store)
        checkpoint = Checkpoint(
            path=checkpoint_path(self.run, self.epoch),
            config=self.config,
            epoch=self.epoch,
            step=self.epoch * self.steps,
            dataset=self.store.dataset,
            store_fingerprint=self.store.meta.fingerprint,
            feature_dim=width,
            grid_side=side,
            vocabulary=self.store.vocabulary,
            answers=self.store.answers,
            history=tuple(self.history),
        )
        save_checkpoint(checkpoint, self.model, self.optimiser)
        self.saved = checkpoint.path

    def _log_epoch(self, told: Progress, seconds: float) -> None:
        line = {
            "event": "epoch",
            "epoch": self.epoch,
            "loss": self._last["loss"],
            "learning_rate": told.learning_rate,
            "temperature": told.temperature,
            "seconds": round(seconds, 3),
            "data_wait_share": round(told.data_wait_share, 4),
        }
        append_log(self.run, line)


def _without_questions(scores: VqaScore, split: str) -> dict[str, Any]:
    """Scores as they are kept beside the weights: all but the line per question."""
    return {
        "split": split,
        "rules": scores.rules,
        "overall": scores.overall,
        "per_answer_type": scores.per_answer_type,
        "per_question_type": scores.per_question_type,
    }


def _best_epoch(history: list[dict[str, Any]], having: Container[int]) -> int:
    """The epoch with the highest score among those with a checkpoint, the last of equals; the
    last epoch where nothing was scored."""
    scored = [
        (one["scores"]["overall"], one["epoch"])
        for one in history
        if one["scores"] and one["epoch"] in having
    ]
    return int(max(scored)[1] if scored else history[-1]["epoch"])
