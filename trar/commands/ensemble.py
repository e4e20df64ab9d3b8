"""``trar ensemble``: several models as one, from their saved logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from trar.commands.evaluate import score_options
from trar.commands.options import PATH, PLACE, json_option
from trar.commands.score_report import as_plain, need_folder, report


@click.command(short_help="Answer with several models together, by their logits.")
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("--weights", metavar="W,W,…", help="A weight for each file.  [default: equal]")
@click.option("--store", type=PLACE, help="Score the answers on this store.")
@click.option("--dataset", metavar="NAME", help="Which dataset, if the store holds several.")
@click.option("--out", type=PATH, help="Write the answers as `trar predict` does.")
@score_options
@json_option
def ensemble(
    files: tuple[Path, ...],
    weights: str | None,
    store: Path | None,
    dataset: str | None,
    out: Path | None,
    rules: Literal["official", "legacy"],
    allow_trained_on: bool,
    question_types: bool,
    as_json: bool,
) -> None:
    """Answer with the mean of the logits that --save-logits wrote, for several models.

    Give --store to score the answers, --out to write them, or both.

    \b
    Example: trar ensemble first.npz second.npz --store ./features
             trar ensemble first.npz second.npz --weights 2,1 --out result-test.json
    """
    from trar.console import WorkProgress
    from trar.features import FeatureStore
    from trar.trainer.ensemble import check_questions, ensemble, trained_on
    from trar.trainer.leakage import leakage, refuse_trained_on
    from trar.trainer.logits_file import LogitsFile
    from trar.trainer.scoring import score_answers
    from trar.trainer.submission import need_order, write_submission

    if store is None and out is None:
        raise click.UsageError("nothing to do with the answers: give --store, --out or both")
    need_folder(out)
    with LogitsFile(files[0]) as first:
        about, question_ids = first.about, first.question_ids
    if out is not None:
        need_order(out, about.dataset, question_ids)
    opened = leak = None
    if store is not None:
        opened = FeatureStore(store, dataset or about.dataset)
        check_questions(files[0], question_ids, opened, about.split)
        opened.answers_of(about.split)
        leak = leakage(opened, trained_on(files), about.split)
        if not allow_trained_on:
            refuse_trained_on(leak, " + ".join(map(str, files)))
    with WorkProgress("questions") as progress:
        predictions = ensemble(
            files, _numbers(weights), progress=lambda done, total: progress("mean", done, total)
        )
    if out is not None:
        write_submission(out, about.dataset, predictions)
        click.echo(f"{out}: {len(predictions.answers):,} answers", err=as_json)
    if opened is None or leak is None:
        return
    score = score_answers(opened, about.split, predictions.answers, rules=rules)
    if as_json:
        origin = {"files": list(map(str, files)), "store": str(opened.path), "split": about.split}
        click.echo(json.dumps(origin | as_plain(score, leak, {}), indent=1))
        return
    click.echo(f"Mean of {len(files)} on {opened.path}, split {about.split}")
    report(score, leak, {}, question_types=question_types)


def _numbers(weights: str | None) -> list[float] | None:
    if weights is None:
        return None
    try:
        return [float(one) for one in weights.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{weights}: expected numbers with commas between, for example 2,1",
            param_hint="--weights",
        ) from None
