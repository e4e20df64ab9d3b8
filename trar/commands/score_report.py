"""How a score is shown: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.errors import DiskError

if TYPE_CHECKING:
    from trar.trainer.leakage import Leakage
    from trar.trainer.metrics import VqaScore
    from trar.trainer.metrics.bootstrap import Interval

_INTERVAL = "95 % interval over questions"


def report(
    score: VqaScore,
    leak: Leakage,
    others: Mapping[str, VqaScore],
    *,
    question_types: bool,
) -> None:
    """Print a score with its intervals beside those of ``others`` (name -> score)."""
    from trar.console import table
    from trar.trainer.metrics.bootstrap import intervals
    from trar.trainer.metrics.clevr import by_function

    spread = intervals(score)
    kinds = list(score.per_answer_type)
    rows = [
        ("this model", *_percents(score, kinds)),
        (_INTERVAL, _span(spread.overall), *(_span(spread.per_answer_type[k]) for k in kinds)),
        *((name, *_percents(other, kinds)) for name, other in others.items()),
    ]
    click.echo(f"{'training accuracy: ' if leak.trained_on else ''}{score.summary()}")
    click.echo(table(rows, header=("accuracy, percent", "overall", *kinds)))
    for name, groups in by_function(score).items():
        told = ", ".join(f"{group} {value:.2f}" for group, value in groups.items())
        click.echo(f"by function, {name}: {told}")
    if question_types:
        by_type = [
            (name, f"{value:.2f}", _span(spread.per_question_type[name]))
            for name, value in score.per_question_type.items()
        ]
        click.echo(table(by_type, header=("question type", "percent", _INTERVAL)))
    for note in (*leak.notes(), *score.notes):
        click.echo(f"Note: {note}", err=True)


def as_plain(score: VqaScore, leak: Leakage, others: Mapping[str, VqaScore]) -> dict[str, Any]:
    """The same for ``--json``."""
    from trar.trainer.metrics.bootstrap import intervals
    from trar.trainer.metrics.clevr import by_function

    spread = intervals(score)
    plain: dict[str, Any] = {
        "accuracy_of": "training questions" if leak.trained_on else "unseen questions",
        "rules": score.rules,
        "questions": len(score.question_ids),
        "overall": score.overall,
        "per_answer_type": score.per_answer_type,
        "per_question_type": score.per_question_type,
        "interval_percent": 95,
        "intervals": {
            "overall": spread.overall,
            "per_answer_type": spread.per_answer_type,
            "per_question_type": spread.per_question_type,
        },
        "notes": [*leak.notes(), *score.notes],
    }
    if groups := by_function(score):
        plain["by_function"] = groups
    for name, other in others.items():
        plain[name.partition(" (")[0].replace(" ", "_")] = {
            "overall": other.overall,
            "per_answer_type": other.per_answer_type,
        }
    return plain


def need_folder(path: Path | None) -> None:
    """Refuse, before the work is done, to write where there is a folder, or none to write into.

    Raises:
        DiskError: no such folder, or no file.
    """
    if path is not None and path.is_dir():
        raise DiskError(f"{path}: a folder; name the file to write")
    if path is not None and not path.parent.is_dir():
        raise DiskError(f"{path}: there is no folder {path.parent}; make it or name another file")


def _percents(score: VqaScore, kinds: Sequence[str]) -> list[str]:
    return [f"{score.overall:.2f}", *(f"{score.per_answer_type[kind]:.2f}" for kind in kinds)]


def _span(interval: Interval) -> str:
    return f"{interval[0]:.2f}-{interval[1]:.2f}"
