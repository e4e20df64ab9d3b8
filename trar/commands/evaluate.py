"""``trar eval`` and ``trar predict``: what a checkpoint scores and what it answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from trar.commands.options import PATH, device_option, json_option, share_cores, store_option
from trar.commands.score_report import as_plain, need_folder, report

if TYPE_CHECKING:
    from trar.features import FeatureStore
    from trar.trainer import Checkpoint
    from trar.trainer.logits_file import LogitsType
    from trar.trainer.metrics import VqaScore

_checkpoint_argument = click.argument("checkpoint", type=PATH, required=False)
_WITHOUT_IMAGE = "without the image (most frequent answer to the question)"


def score_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What ``eval`` and ``ensemble`` share."""
    for option in (
        click.option("--question-types", is_flag=True, help="Also print every question type."),
        click.option(
            "--allow-trained-on",
            is_flag=True,
            help="Score questions that were trained on; the result is called training accuracy.",
        ),
        click.option(
            "--rules",
            type=click.Choice(["official", "legacy"]),
            default="official",
            show_default=True,
            help="VQA rules of 2021, or of 2016 as in the original repositories.",
        ),
    ):
        function = option(function)
    return function


_switches_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another switch that changes no weight, such as model.language_kept=[0,2,4].",
)


def _logits_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--logits-dtype",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        show_default=True,
        help="float16 halves the file, and may settle near ties otherwise.",
    )(function)
    return click.option(
        "--save-logits",
        type=PATH,
        metavar="FILE.npz",
        help="Also write the logits of every question and answer, for trar ensemble.",
    )(function)


@click.command(name="eval")
@_checkpoint_argument
@store_option
@click.option("--split", default="val", show_default=True, help="The question split to score.")
@score_options
@_switches_option
@_logits_options
@device_option
@json_option
def evaluate(
    checkpoint: Path | None,
    store: Path,
    dataset: str | None,
    split: str,
    sets: tuple[str, ...],
    rules: Literal["official", "legacy"],
    allow_trained_on: bool,
    question_types: bool,
    save_logits: Path | None,
    logits_dtype: LogitsType,
    device: str,
    as_json: bool,
) -> None:
    """Score a checkpoint by the official metric.

    CHECKPOINT is a file, or a run's folder (its last epoch); without it the newest run is taken.
    Questions that the checkpoint was trained on are refused.

    \b
    Example: trar eval runs/vqa-soft-avg --store ./features --split val
    """
    share_cores()
    from trar.console import WorkProgress
    from trar.features import FeatureStore
    from trar.trainer import evaluate as run_evaluation
    from trar.trainer import load_checkpoint
    from trar.trainer.leakage import leakage, refuse_trained_on
    from trar.trainer.store_check import check_store
    from trar.trainer.switches import with_switches

    loaded = with_switches(load_checkpoint(checkpoint or _newest_run()), sets)
    opened = loaded.view_of(FeatureStore(store, dataset))
    remark = check_store(loaded, opened)
    if remark:
        click.echo(f"Note: {remark}", err=True)
    leak = leakage(opened, loaded.trained_on, split)
    if not allow_trained_on:
        refuse_trained_on(leak, str(loaded.path))
    with (
        WorkProgress("questions") as progress,
        _kept(save_logits, loaded, opened, split, logits_dtype) as keep_logits,
    ):
        score = run_evaluation(
            loaded,
            opened,
            split,
            rules=rules,
            device=device,
            progress=lambda done, total: progress("eval", done, total),
            keep_logits=keep_logits,
        )
    others = _without_image(opened, loaded.trained_on, split, rules)
    if as_json:
        origin: dict[str, Any] = {"checkpoint": str(loaded.path), "store": str(opened.path)}
        origin |= {"split": split} | ({"set": list(sets)} if sets else {})
        click.echo(json.dumps(origin | as_plain(score, leak, others), indent=1))
        return
    changed = f", with {', '.join(sets)}" if sets else ""
    click.echo(f"{loaded.path} on {opened.path}, split {split}{changed}")
    report(score, leak, others, question_types=question_types)


@click.command(short_help="Write the answers to a split as EvalAI takes them.")
@_checkpoint_argument
@store_option
@click.option("--split", default="test", show_default=True, help="The question split to answer.")
@click.option(
    "--out",
    type=PATH,
    help="The file to write.  [default: <run>/result-<split>.json; .txt for CLEVR]",
)
@_switches_option
@_logits_options
@device_option
def predict(
    checkpoint: Path | None,
    store: Path,
    dataset: str | None,
    split: str,
    out: Path | None,
    sets: tuple[str, ...],
    save_logits: Path | None,
    logits_dtype: LogitsType,
    device: str,
) -> None:
    """Write the answers to a split as EvalAI takes them; for CLEVR, one a line.

    EvalAI wants all questions of test2015, also in its test-dev phase: --split test.

    \b
    Example: trar predict runs/vqa-soft-avg --store ./features --split test
    """
    share_cores()
    from trar.console import WorkProgress
    from trar.features import FeatureStore
    from trar.trainer import load_checkpoint
    from trar.trainer import predict as run_prediction
    from trar.trainer.expected_questions import left_out
    from trar.trainer.submission import need_order, submission_name, write_submission
    from trar.trainer.switches import with_switches

    loaded = with_switches(load_checkpoint(checkpoint or _newest_run()), sets)
    opened = loaded.view_of(FeatureStore(store, dataset))
    path = out or loaded.path.parent / submission_name(opened.dataset, split)
    need_folder(path)
    need_order(path, opened.dataset, opened.questions(split).ids)
    for note in left_out(opened, split):
        click.echo(f"Note: {note}", err=True)
    with (
        WorkProgress("questions") as progress,
        _kept(save_logits, loaded, opened, split, logits_dtype) as keep_logits,
    ):
        predictions = run_prediction(
            loaded,
            opened,
            split,
            device=device,
            progress=lambda done, total: progress("predict", done, total),
            keep_logits=keep_logits,
        )
    write_submission(path, opened.dataset, predictions)
    click.echo(f"{path}: {len(predictions.answers):,} answers")
    click.echo(f"Next: trar submit check {path} --store {opened.path} --split {split}")


@contextlib.contextmanager
def _kept(
    path: Path | None, checkpoint: Checkpoint, store: FeatureStore, split: str, kind: LogitsType
) -> Iterator[Callable[[Any], None]]:
    """What takes the logits: a file, or nothing."""
    if path is None:
        yield lambda _: None
        return
    from trar.trainer.logits_file import logits_writer

    need_folder(path)
    with logits_writer(path, checkpoint, store, split, kind) as writer:
        yield writer.write


def _without_image(
    store: FeatureStore, trained_on: list[str], split: str, rules: Literal["official", "legacy"]
) -> dict[str, VqaScore]:
    """The baseline that never looks, where the store has the questions that were trained on."""
    from trar.trainer import blind_baseline

    known = store.meta.question_splits
    if not all(name in known and known[name].answered for name in trained_on):
        return {}
    return {_WITHOUT_IMAGE: blind_baseline(store, "+".join(trained_on), split, rules=rules)}


def _newest_run() -> Path:
    """The run in ./runs whose checkpoint was written last."""
    found = list(Path("runs").glob("*/checkpoint-*.safetensors"))
    if not found:
        raise click.UsageError("no checkpoint given and none in ./runs: name a file or a run")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent
