"""Training: questions from a store in, checkpoints and scores out.

The run's folder is complete after every epoch, and within one every ``loop.checkpoint_steps``
steps: a run that is stopped, by whatever, goes on from there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trar.errors import DiskError, TrarError
from trar.features.reader import FeatureStore
from trar.trainer.config import TrainConfig
from trar.trainer.distributed import Ranks, lost_rank, ranks_of
from trar.trainer.evaluator import pick_device
from trar.trainer.fit import check_fit
from trar.trainer.memory_budget import memory_note, need_memory, training_bytes, within_memory
from trar.trainer.new_model import whole_model_config
from trar.trainer.progress import Progress, Report
from trar.trainer.resume import Begin, begin_run, how_to_resume
from trar.trainer.run_folder import (
    checkpoint_path,
    checkpoints_in,
    read_log,
    rewind_log,
    write_config,
)
from trar.trainer.run_log import RunLog
from trar.trainer.run_parts import Parts
from trar.trainer.run_scoring import model_cost
from trar.trainer.score_history import best_epoch
from trar.trainer.training_data import open_store, scored_split, training_loader
from trar.trainer.training_run import TrainingRun
from trar.trainer.word_vectors import choose_vectors


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
    In processes that ``torchrun`` started this is one run: each takes its share of every batch,
    the first writes and reports.

    Raises:
        TrarError: anything the user can fix: settings, store, checkpoint, disk, a loss that is
            not finite, a GPU without enough memory.
        KeyboardInterrupt: with a note on how to continue.
    """
    started = time.perf_counter()
    report = report or (lambda _: None)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with ranks_of(config.device) as ranks:
        device = pick_device(config.device)
        store = open_store(config)
        check_fit(config, store)
        model_bytes = training_bytes(whole_model_config(config, store))
        asked = config
        config, memory = within_memory(
            asked, store.meta, model_bytes=model_bytes, ranks=ranks.ranks
        )
        need_memory(memory, device, processes=ranks.here)
        loader = training_loader(config, store, device=device, ranks=ranks)
        eval_split, why_not = scored_split(config, store)
        start = choose_vectors(config, store)
        begin = _begin(config, store, resume, ranks)
        run, checkpoint = begin.run, begin.checkpoint
        notes = [begin.note, why_not, None if checkpoint else start.note]
        for note in filter(None, [*notes, memory_note(asked, config, memory)]):
            if ranks.first:
                report(Progress("note", run, note=note))
        parts = Parts(config, store, loader, eval_split, run, device, ranks)
        with RunLog(
            run,
            write=ranks.first,
            tensorboard=config.loop.tensorboard,
            steps=parts.steps,
            from_step=checkpoint.step if checkpoint else -1,
        ) as log:
            state = TrainingRun(parts, checkpoint or start, log, report)
            if not state.finished and ranks.first:
                write_config(run, config, store)
                at = (checkpoint.epoch, checkpoint.epoch_step) if checkpoint else (-1, 0)
                rewind_log(run, *at)
                if checkpoint is None:
                    vectors = {"vectors": start.name, "note": start.note}
                    log.add({"event": "start", "epoch": 0, **vectors})
                if all(line["event"] != "model" for line in read_log(run)):
                    cost = model_cost(parts, state.stepper.model)
                    log.add({"event": "model", "epoch": 0, **cost})
            try:
                if state.unscored:  # stopped between the epoch's checkpoint and its score
                    state.score_epoch()
                while not state.finished:
                    state.train_epoch()
                    state.score_epoch()
            except KeyboardInterrupt as stop:
                stop.add_note(how_to_resume(run, config))
                raise
            except torch.OutOfMemoryError as error:
                raise _too_large(run, config, error) from None
            except DiskError as error:
                raise DiskError(f"{error}; {how_to_resume(run, config)}") from None
            except RuntimeError as error:
                if not lost_rank(error):
                    raise
                raise TrarError(
                    f"{run}: another process of this run has ended, see what it says; "
                    f"{how_to_resume(run, config)}"
                ) from None
        ranks.wait()  # the first rank has written what the others look for
        best = best_epoch(state.history, checkpoints_in(run))
        return TrainResult(
            run=run,
            checkpoint=state.saved,
            best_checkpoint=state.saved if best == state.epoch else checkpoint_path(run, best),
            scores=state.history[-1]["scores"],
            history=tuple(state.history),
            seconds=time.perf_counter() - started,
        )


def _begin(
    config: TrainConfig, store: FeatureStore, resume: str | Path | None, ranks: Ranks
) -> Begin:
    """Where the run begins; the first rank decides, and what it refuses all refuse."""
    begin: Begin | TrarError | None = None
    if ranks.first:
        try:
            begin = begin_run(config, store, resume)
        except TrarError as error:
            if ranks.ranks == 1:
                raise
            begin = error
    begin = ranks.from_first(begin)
    if isinstance(begin, TrarError):
        raise begin
    assert begin is not None
    return begin


def _too_large(run: Path, config: TrainConfig, error: torch.OutOfMemoryError) -> TrarError:
    data = config.data
    divisors = (n for n in range(data.accumulation + 1, data.batch_size) if not data.batch_size % n)
    parts = next(divisors, data.batch_size)
    return TrarError(
        f"{run}: the GPU's memory is too small for this step ({str(error).split('. ')[0]}); send "
        f"each batch of {data.batch_size} through the model in more parts (--set "
        f"data.accumulation={parts}), take --set loop.precision=bf16, or score in smaller batches "
        f"(--set data.eval_batch_size={max(1, data.eval_batch_size // 2)})"
    )
