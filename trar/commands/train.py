"""``trar``: train on a store, score a checkpoint, write a submission."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import click

from trar.commands.options import PATH, json_option, on_stop, store_option

_checkpoint_argument = click.argument("checkpoint", type=PATH, required=False)
_device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto takes a GPU where there is one.",
)


@click.command()
@store_option
@click.option("--preset", help="A recipe by name.  [default: the dataset's own]")
@click.option(
    "--split", default="train", show_default=True, help="Question splits to train on, joined by +."
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting, for example --set optim.lr=1e-4. May be given again.",
)
@click.option("--run", help="Name of the run's folder.  [default: the preset's name]")
@click.option(
    "--runs", type=PATH, default=Path("runs"), show_default=True, help="Where run folders go."
)
@click.option(
    "--resume",
    metavar="auto|FILE",
    help="Go on after the newest checkpoint of the run (auto), or after this checkpoint.",
)
@click.option("--seed", type=int, help="Of everything random.  [default: fixed]")
@_device_option
@json_option
def train(
    store: Path,
    dataset: str | None,
    preset: str | None,
    sets: tuple[str, ...],
    resume: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a model on a store, scored every epoch.

    The run's folder gets the effective config, a log, and checkpoints; an existing run is never
    overwritten.

    \b
    Example: trar train --store ./features
             trar train --store ./features --run first --resume auto
    """
    _share_cores()
    from trar.console import TrainingProgress, duration
    from trar.trainer import build_config
    from trar.trainer import train as run_training

    config = build_config(store, dataset=dataset, preset=preset, sets=sets, **settings)
    stopped = "Stopped before training began."
    with on_stop(stopped) as check, TrainingProgress(as_json, check) as progress:
        result = run_training(config, progress, resume=resume)
    if as_json:
        report = {
            "run": str(result.run),
            "checkpoint": str(result.checkpoint),
            "best_checkpoint": str(result.best_checkpoint),
            "scores": result.scores,
            "seconds": round(result.seconds, 1),
        }
        click.echo(json.dumps(report, indent=1))
        return
    click.echo(f"Trained in {duration(result.seconds)}: {result.checkpoint}")
    if result.best_checkpoint != result.checkpoint:
        click.echo(f"Best on {config.eval_split}: {result.best_checkpoint}")
    click.echo(f"Log: {result.run / 'log.jsonl'}")
    click.echo(f"Next: trar eval {result.checkpoint} --store {store} --split {config.eval_split}")


@click.command(name="eval")
@_checkpoint_argument
@store_option
@click.option("--split", default="val", show_default=True, help="The question split to score.")
@click.option(
    "--rules",
    type=click.Choice(["official", "legacy"]),
    default="official",
    show_default=True,
    help="VQA rules of 2021, or of 2016 as in the original repositories.",
)
@_device_option
@json_option
def evaluate(
    checkpoint: Path | None,
    store: Path,
    dataset: str | None,
    split: str,
    rules: Literal["official", "legacy"],
    device: str,
    as_json: bool,
) -> None:
    """Score a checkpoint by the official metric.

    CHECKPOINT is a file, or a run's folder (its last epoch); without it the newest run is taken.

    \b
    Example: trar eval runs/vqa-soft-avg --store ./features --split val
    """
    _share_cores()
    from trar.console import WorkProgress, table
    from trar.features import FeatureStore
    from trar.trainer import blind_baseline, load_checkpoint
    from trar.trainer import evaluate as run_evaluation

    loaded = load_checkpoint(checkpoint or _newest_run())
    opened = FeatureStore(store, dataset)
    remark = loaded.check_store(opened)
    if remark:
        click.echo(f"Note: {remark}", err=True)
    with WorkProgress("questions") as progress:
        score = run_evaluation(
            loaded,
            opened,
            split,
            rules=rules,
            device=device,
            progress=lambda done, total: progress("eval", done, total),
        )
    blind = blind_baseline(opened, loaded.config.split, split, rules=rules)
    if as_json:
        plain = {
            "checkpoint": str(loaded.path),
            "store": str(opened.path),
            "split": split,
            "rules": score.rules,
            "questions": len(score.per_question),
            "overall": score.overall,
            "per_answer_type": score.per_answer_type,
            "per_question_type": score.per_question_type,
            "without_the_image": {
                "overall": blind.overall,
                "per_answer_type": blind.per_answer_type,
            },
        }
        click.echo(json.dumps(plain, indent=1))
        return
    click.echo(f"{loaded.path} on {opened.path}, split {split}")
    click.echo(score.summary())
    types = list(score.per_answer_type)
    click.echo(
        table(
            [
                (name, *(f"{value:.2f}" for value in values))
                for name, values in (
                    ("this model", [score.overall, *score.per_answer_type.values()]),
                    (
                        "without the image (most frequent answer to the question)",
                        [blind.overall, *(blind.per_answer_type[one] for one in types)],
                    ),
                )
            ],
            header=("accuracy, percent", "overall", *types),
        )
    )
    for note in score.notes:
        click.echo(f"Note: {note}", err=True)


@click.command()
@_checkpoint_argument
@store_option
@click.option("--split", default="test", show_default=True, help="The question split to answer.")
@click.option(
    "--out",
    type=PATH,
    help="The file to write.  [default: <run>/result-<split>.json]",
)
@_device_option
def predict(
    checkpoint: Path | None,
    store: Path,
    dataset: str | None,
    split: str,
    out: Path | None,
    device: str,
) -> None:
    """Write the answers to a split as EvalAI takes them.

    EvalAI wants all questions of test2015, also in its test-dev phase: --split test.

    \b
    Example: trar predict runs/vqa-soft-avg --store ./features --split test
    """
    _share_cores()
    from trar.console import WorkProgress
    from trar.features import FeatureStore
    from trar.trainer import load_checkpoint
    from trar.trainer import predict as run_prediction
    from trar.trainer.submission import write_evalai

    loaded = load_checkpoint(checkpoint or _newest_run())
    opened = FeatureStore(store, dataset)
    with WorkProgress("questions") as progress:
        predictions = run_prediction(
            loaded,
            opened,
            split,
            device=device,
            progress=lambda done, total: progress("predict", done, total),
        )
    path = out or loaded.path.parent / f"result-{split}.json"
    write_evalai(path, predictions.question_ids.tolist(), predictions.answers)
    click.echo(f"{path}: {len(predictions.answers):,} answers")


def _share_cores() -> None:
    """Let torch's waiting threads sleep instead of spin; to be called before torch is imported.

    Spinning is 5 % faster on a quiet machine and many times slower beside another busy process.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _newest_run() -> Path:
    """The run in ./runs whose checkpoint was written last."""
    found = list(Path("runs").glob("*/checkpoint-*.safetensors"))
    if not found:
        raise click.UsageError("no checkpoint given and none in ./runs: name a file or a run")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent
