"""Subsets hold the questions asked for, the same ones whenever a run goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from question_indexes import indexes, make_index

from trar.errors import ConfigError
from trar.trainer.orders import OrderSettings, make_order
from trar.trainer.question_index import LabelColumn, QuestionIndex
from trar.trainer.subsets import Selection, Subset, select

seeds = st.integers(0, 2**40)
fractions = st.floats(0.001, 1)
weights = st.floats(0.01, 100)
PARTS = [40, 200, 10]


def rows_of(index: QuestionIndex, selection: Selection, seed: int = 0, epoch: int = 0) -> list[int]:
    rows: list[int] = select(index, selection, seed=seed).of_epoch(epoch).tolist()
    return rows


def refusal(index: QuestionIndex, selection: Selection) -> str:
    with pytest.raises(ConfigError) as error:
        select(index, selection, seed=0)
    return str(error.value)


def parse_error(**given: object) -> str:
    with pytest.raises(ConfigError) as error:
        Selection.parse(**given)  # type: ignore[arg-type]
    return str(error.value)


def test_where_keeps_what_a_plain_loop_keeps() -> None:
    index = make_index([150, 90])
    chosen = Selection.parse(where="answer_type=number|other, answer=red|two|yes")
    expected = []
    for row in range(len(index)):
        kind, answer = (
            label.names[label.codes[row]] if label.codes[row] >= 0 else None
            for label in (index.labels["answer_type"], index.labels["answer"])
        )
        if kind in ("number", "other") and answer in ("red", "two", "yes"):
            expected.append(row)
    assert 0 < len(expected) < 240
    assert rows_of(index, chosen) == expected
    assert chosen.columns == ("answer_type", "answer")


def test_conditions_on_one_column_hold_together() -> None:
    both = Selection.parse(where="answer=red|two,answer=two|yes")
    index = make_index([100])
    assert rows_of(index, both) == rows_of(index, Selection.parse(where="answer=two"))


@given(indexes, seeds, fractions, fractions)
def test_a_smaller_fraction_is_a_part_of_a_larger_one(
    index: QuestionIndex, seed: int, one: float, other: float
) -> None:
    small, large = (
        rows_of(index, Selection(fraction=share), seed) for share in sorted((one, other))
    )
    assert set(small) <= set(large)
    assert small == sorted(set(small))
    assert abs(len(small) - min(one, other) * len(index)) <= 0.5 or len(small) == 1


def test_a_fraction_is_the_same_in_every_epoch_and_another_for_another_seed() -> None:
    index = make_index([500])
    tenth = Selection(fraction=0.1)
    assert rows_of(index, tenth, 1, epoch=0) == rows_of(index, tenth, 1, epoch=7)
    assert rows_of(index, tenth, 1) != rows_of(index, tenth, 2)


def test_a_fraction_draws_every_question_equally_often() -> None:
    """Chi-square over 3,000 seeds: 20 questions, of which 5 are drawn, 19 degrees of freedom."""
    index = make_index([20])
    drawn = Counter(
        row for seed in range(3000) for row in rows_of(index, Selection(fraction=0.25), seed)
    )
    assert sum((drawn[row] - 750) ** 2 / 750 for row in range(20)) / 0.75 < 45


def test_a_limit_takes_the_first_questions_of_those_chosen() -> None:
    index = make_index([100])
    number = rows_of(index, Selection.parse(where="answer_type=number"))
    assert rows_of(index, Selection(limit=7)) == list(range(7))
    assert rows_of(index, Selection(limit=1000)) == list(range(100))
    assert rows_of(index, Selection.parse(where="answer_type=number", limit=5)) == number[:5]
    drawn = rows_of(index, Selection(fraction=0.5))
    assert rows_of(index, Selection(fraction=0.5, limit=9)) == drawn[:9]


@given(
    st.lists(weights, min_size=3, max_size=3),
    st.none() | st.integers(3, 700),
    seeds,
    st.integers(0, 3),
)
def test_a_mixture_gives_each_split_its_share_of_the_epoch(
    shares: list[float], epoch_questions: int | None, seed: int, epoch: int
) -> None:
    index = make_index(PARTS)
    mix = tuple(zip(index.splits, shares, strict=True))
    rows = rows_of(index, Selection(mix=mix, epoch_questions=epoch_questions), seed, epoch)
    total = epoch_questions or sum(PARTS)
    assert len(rows) == total
    used = Counter(rows)
    for number, size in enumerate(PARTS):
        own = np.flatnonzero(index.source == number)
        times = [used[row] for row in own.tolist()]
        assert abs(sum(times) - total * shares[number] / sum(shares)) < 1
        assert max(times) - min(times) <= 1
        assert min(times) == sum(times) // size


def test_a_mixture_draws_anew_each_epoch_and_every_question_equally_often() -> None:
    """Chi-square over 3,000 epochs: 25 of 200 questions, 199 degrees of freedom."""
    index = make_index(PARTS)
    mixed = Selection.parse(mix="s0=1,s1=1,s2=2", epoch_questions=100)
    subset = select(index, mixed, seed=4)
    assert subset.of_epoch(0).tolist() != subset.of_epoch(1).tolist()
    used = Counter(row for epoch in range(3000) for row in subset.of_epoch(epoch).tolist())
    expected = 3000 * 25 / 200
    chi_square = sum((used[row] - expected) ** 2 / expected for row in range(40, 240))
    assert 130 < chi_square / (1 - 25 / 200) < 280
    assert all(used[row] == 3000 * 5 for row in range(240, 250))


@pytest.mark.parametrize("order", ["global", "block"])
def test_an_order_over_a_mixture_uses_what_the_mixture_says(order: str) -> None:
    index = make_index(PARTS)
    mixed = Selection.parse(where="answer_type=number|other", mix="s0=1,s1=2,s2=1")
    how = OrderSettings(order, 100_000, 4, length_pool=3, selection=mixed)
    made = make_order(how, seed=6, batch_size=8, questions=index)
    for epoch in (0, 5):
        rows = np.concatenate([made.rows(epoch, step) for step in range(made.steps)])
        assert sorted(rows.tolist()) == sorted(rows_of(index, mixed, 6, epoch))
        images = [window.images for window in made.windows(epoch)]
        if images:
            read = np.concatenate(images)
            assert len(read) == len(np.unique(index.image_key(rows)))


def test_subsets_are_the_same_in_every_version() -> None:
    index = make_index([6, 4])
    assert rows_of(index, Selection(fraction=0.4), 1) == [2, 6, 7, 8]
    assert rows_of(index, Selection.parse(mix="s0=3,s1=7"), 1, 2) == [0, 1, 5, 6, 6, 7, 8, 8, 9, 9]


def test_of_epoch_gives_an_array_of_its_own() -> None:
    for selection in (Selection(), Selection(limit=3), Selection.parse(mix="s0=1")):
        subset: Subset = select(make_index([9]), selection, seed=0)
        before = subset.of_epoch(0).tolist()
        subset.of_epoch(0)[:] = 0
        assert subset.of_epoch(0).tolist() == before


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    assert parse_error(where="answer_typ=number") == (
        "where: questions cannot be chosen by answer_typ (did you mean answer_type?); there are "
        "answer, answer_type, has_target, image_split, question_type"
    )


def test_an_unknown_value_is_refused_with_those_there_are() -> None:
    index = make_index([100])
    assert refusal(index, Selection.parse(where="answer_type=numbers")) == (
        "where: no question has answer_type=numbers (did you mean number?); values of "
        "answer_type: yes/no, number, other"
    )
    # a name that no question has
    assert refusal(index, Selection.parse(where="answer=yes|no")) == (
        "where: no question has answer=no; values of answer: red, two, yes"
    )


def test_many_values_are_not_all_listed() -> None:
    names = tuple(f"number {value}" for value in range(20))
    labels = {"answer": LabelColumn(np.arange(100) % 20, names)}
    many = replace(make_index([100]), labels=labels)
    message = refusal(many, Selection.parse(where="answer=blue"))
    assert message.endswith("number 10, number 11 and 8 more")


def test_a_selection_that_leaves_nothing_is_refused() -> None:
    assert refusal(make_index([100]), Selection.parse(where="answer=red,answer=two")) == (
        "no question of s0 has answer=red,answer=two; ask for less"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"where": "answer_type"},
            "where 'answer_type': 'answer_type' is not name=value; write "
            "answer_type=yes/no|number,image_split=val2014",
        ),
        (
            {"where": "answer_type=number,other"},
            "where 'answer_type=number,other': 'other' is not name=value; write "
            "answer_type=yes/no|number,image_split=val2014",
        ),
        ({"where": ""}, "where '': '' is not name=value; write answer_type"),
        ({"mix": "train"}, "mix 'train': 'train' is not name=value; write train=0.5,vg=0.5"),
        ({"mix": "train=much"}, "mix 'train=much': train=much is no weight, expected one number"),
        ({"mix": "train=0"}, "mix 'train=0': train=0 is no weight, expected one number above 0"),
        ({"mix": "train=inf"}, "mix 'train=inf': train=inf is no weight"),
        ({"mix": "a=1,a=2"}, "mix 'a=1,a=2': a=2 is no weight, expected one number above 0 for"),
        ({"fraction": 0.0}, "fraction is 0.0, expected more than 0 and at most 1, such as 0.1"),
        ({"fraction": 1.5}, "fraction is 1.5, expected more than 0 and at most 1"),
        ({"fraction": float("nan")}, "fraction is nan, expected more than 0 and at most 1"),
        ({"limit": 0}, "limit is 0, expected 1 question or more"),
        (
            {"mix": "a=1", "epoch_questions": -2},
            "epoch_questions is -2, expected 1 question or more",
        ),
        ({"epoch_questions": 5}, "epoch_questions goes with mix, which says where they come from"),
    ],
)
def test_what_is_no_selection_is_refused(given: dict[str, object], message: str) -> None:
    assert parse_error(**given).startswith(message)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (
            "s0=1,s1=1,s2=1,s9=1",
            "mix: s9 is not trained on (did you mean s2?); the splits are s0, s1, s2",
        ),
        (
            "s0=1,s2=1",
            "mix: no weight for s1; give every split one, or leave it out of the splits",
        ),
    ],
)
def test_a_mixture_names_the_splits_of_the_run(mix: str, message: str) -> None:
    assert refusal(make_index(PARTS), Selection.parse(mix=mix)) == message


def test_a_mixture_with_nothing_left_of_a_split_is_refused() -> None:
    assert refusal(make_index(PARTS), Selection.parse(limit=30, mix="s0=1,s1=1,s2=1")) == (
        "mix: no question of s1 is left to draw from; choose more"
    )
