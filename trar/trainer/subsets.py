"""Which questions a run uses: filters, shares, and mixtures of the splits, all by question number.

Steps, in this order: ``where`` keeps the questions with certain properties; ``fraction`` draws
uniformly among them; ``limit`` keeps the first ones in the order of the files; ``mix`` says which
share of an epoch each split gets. The first three are fixed for a run; what a mixture draws is a
function of (seed, epoch). Positions, resuming and ranks thus work as on the whole.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trar.errors import ConfigError
from trar.trainer.question_index import COLUMNS, LabelColumn, QuestionIndex
from trar.trainer.sampler import StoredRows, Stream, every_row, generator

_SHOWN_VALUES = 12


@dataclass(frozen=True)
class Selection:
    """``where``: (column, values) pairs, all of which hold; ``fraction`` of the questions, drawn by
    the seed; the first ``limit`` of them; ``mix``: (split, weight) pairs for every split of the
    run, an epoch then has ``epoch_questions``, None: as many as were selected."""

    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    fraction: float = 1.0
    limit: int | None = None
    mix: tuple[tuple[str, float], ...] = ()
    epoch_questions: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(
                f"fraction is {self.fraction}, expected more than 0 and at most 1, such as 0.1"
            )
        for name, count in (("limit", self.limit), ("epoch_questions", self.epoch_questions)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} is {count}, expected 1 question or more")
        if self.epoch_questions is not None and not self.mix:
            raise ConfigError(
                "epoch_questions goes with mix, which says where they come from; to use fewer "
                "questions give a fraction or a limit"
            )

    @classmethod
    def parse(
        cls,
        *,
        where: str | None = None,
        fraction: float = 1.0,
        limit: int | None = None,
        mix: str | None = None,
        epoch_questions: int | None = None,
    ) -> Selection:
        """From texts as they are typed: ``where`` "answer_type=number|other,image_split=val2014"
        (``,`` = and, ``|`` = or), ``mix`` "train=0.5,vg=0.5" (weights, in any unit).

        Raises:
            ConfigError: not of this form, an unknown column, a number out of its range.
        """
        return cls(_parse_where(where), fraction, limit, _parse_mix(mix), epoch_questions)

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns that ``where`` needs in a ``QuestionIndex``."""
        return tuple(dict.fromkeys(column for column, _ in self.where))


@dataclass(frozen=True, eq=False)
class Subset:
    """The questions of each epoch, ``questions`` of them: all of ``every`` rows, or ``rows``, or
    drawn from each of ``parts`` (its rows, ascending, and how many of an epoch are its own)."""

    questions: int
    seed: int
    rows: StoredRows | None = None
    parts: tuple[tuple[StoredRows, int], ...] = ()

    def of_epoch(self, epoch: int) -> StoredRows:
        """The rows of an epoch, ascending, an array that the caller may change.

        A part with fewer questions than its share of an epoch is used several times over, each of
        its questions equally often but for one; of a larger part each epoch draws anew.
        """
        if self.parts:
            drawn = [self._draw(part, epoch) for part in range(len(self.parts))]
            return np.concatenate(drawn)
        return every_row(self.questions) if self.rows is None else self.rows.copy()

    def _draw(self, part: int, epoch: int) -> StoredRows:
        rows, count = self.parts[part]
        passes, rest = divmod(count, len(rows))
        times = np.full(len(rows), passes)
        random = generator(Stream.MIXTURE, self.seed, epoch, part)
        times[random.permutation(len(rows))[:rest]] += 1
        return np.repeat(rows, times)


def select(questions: QuestionIndex, selection: Selection, *, seed: int) -> Subset:
    """The questions that ``selection`` leaves of ``questions``.

    Raises:
        ConfigError: an unknown value or split, or no question is left.
    """
    rows = np.flatnonzero(_where(questions, selection)).astype(every_row(len(questions)).dtype)
    if not len(rows):
        raise ConfigError(
            f"no question of {'+'.join(questions.splits)} "
            + (f"has {_written(selection)}; ask for less" if selection.where else "is there")
        )
    if selection.fraction < 1:
        rows = _drawn(rows, selection.fraction, seed)
    rows = rows[: selection.limit]
    if selection.mix:
        return _mixture(questions, selection, rows, seed)
    return Subset(len(rows), seed, None if len(rows) == len(questions) else rows)


def _where(questions: QuestionIndex, selection: Selection) -> NDArray[np.bool_]:
    keep = np.ones(len(questions), np.bool_)
    for name, values in selection.where:
        column = questions.labels[name]
        wanted = [_code(name, column, value) for value in values]
        keep &= np.isin(column.codes, wanted)
    return keep


def _code(name: str, column: LabelColumn, value: str) -> int:
    # a name that no question has is a mistake as well: it would silently choose nothing
    used = {column.names[code]: int(code) for code in np.unique(column.codes) if code >= 0}
    if value in used:
        return used[value]
    known = [text for text in used if text]
    more = len(known) - _SHOWN_VALUES
    raise ConfigError(
        f"where: no question has {name}={value}{_suggest(value, known)}; values of {name}: "
        f"{', '.join(known[:_SHOWN_VALUES]) or 'none'}" + (f" and {more:,} more" * (more > 0))
    )


def _drawn(rows: StoredRows, fraction: float, seed: int) -> StoredRows:
    """The first part of one permutation, so that a smaller fraction is a part of a larger one."""
    count = max(1, round(fraction * len(rows)))
    mixed = rows.copy()
    generator(Stream.FRACTION, seed).shuffle(mixed)
    return np.sort(mixed[:count])


def _mixture(questions: QuestionIndex, selection: Selection, rows: StoredRows, seed: int) -> Subset:
    weights = dict(selection.mix)
    for name in weights:
        if name not in questions.splits:
            raise ConfigError(
                f"mix: {name} is not trained on{_suggest(name, questions.splits)}; the splits are "
                f"{', '.join(questions.splits)}"
            )
    if missing := [name for name in questions.splits if name not in weights]:
        raise ConfigError(
            f"mix: no weight for {', '.join(missing)}; give every split one, or leave it out of "
            "the splits"
        )
    total = selection.epoch_questions or len(rows)
    shares = _apportion(total, [weights[name] for name in questions.splits])
    source = questions.source[rows]
    parts = []
    for number, (name, share) in enumerate(zip(questions.splits, shares, strict=True)):
        own = rows[source == number]
        if not len(own):
            raise ConfigError(f"mix: no question of {name} is left to draw from; choose more")
        parts.append((own, share))
    return Subset(total, seed, parts=tuple(parts))


def _apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in the ratio of ``weights`` that add up to ``total``: each is the exact share
    rounded down, and the largest remainders get one more."""
    exact = [total * weight / math.fsum(weights) for weight in weights]
    counts = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda part: counts[part] - exact[part])
    for part in by_remainder[: total - sum(counts)]:
        counts[part] += 1
    return counts


def _parse_where(text: str | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (_known_column(name), tuple(one.strip() for one in values.split("|")))
        for name, values in _pairs("where", text, "answer_type=yes/no|number,image_split=val2014")
    )


def _known_column(name: str) -> str:
    if name in COLUMNS:
        return name
    raise ConfigError(
        f"where: questions cannot be chosen by {name}{_suggest(name, COLUMNS)}; there are "
        f"{', '.join(COLUMNS)}"
    )


def _parse_mix(text: str | None) -> tuple[tuple[str, float], ...]:
    weights: dict[str, float] = {}
    for name, value in _pairs("mix", text, "train=0.5,vg=0.5"):
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf or name in weights:
            raise ConfigError(
                f"mix {text!r}: {name}={value} is no weight, expected one number above 0 for each "
                "split, such as train=0.5,vg=0.5"
            )
        weights[name] = weight
    return tuple(weights.items())


def _pairs(what: str, text: str | None, example: str) -> list[tuple[str, str]]:
    pairs = []
    for one in text.split(",") if text is not None else ():
        name, equals, value = (part.strip() for part in one.partition("="))
        if not (name and equals and value):
            raise ConfigError(f"{what} {text!r}: {one!r} is not name=value; write {example}")
        pairs.append((name, value))
    return pairs


def _suggest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _written(selection: Selection) -> str:
    return ",".join(f"{column}={'|'.join(values)}" for column, values in selection.where)
