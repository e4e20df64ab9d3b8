"""CLEVR by function, in both groupings."""

from __future__ import annotations

from trar.trainer.metrics import VqaScore, exact
from trar.trainer.metrics.clevr import GROUPINGS, by_function


def score(functions: list[str], right: list[bool]) -> VqaScore:
    count = len(functions)
    answers = [["yes"]] * count
    given = ["yes" if one else "no" for one in right]
    return exact.score_columns(range(count), given, answers, functions, [""] * count)


def test_equal_integer_moves_from_group_to_group() -> None:
    functions = ["count", "equal_integer", "equal_integer", "equal_size", "less_than", "exist"]
    found = by_function(score(functions, [True, True, False, False, True, False]))
    assert found["as in the paper"] == {
        "count": 100.0,
        "compare integer": 66.67,
        "compare attribute": 0.0,
        "exist": 0.0,
    }
    assert found["as in openvqa and TRAR"] == {
        "count": 100.0,
        "compare attribute": 33.33,
        "compare numbers": 100.0,
        "exist": 0.0,
    }


def test_the_groups_are_those_of_all_last_functions() -> None:
    attributes = ("color", "material", "shape", "size")
    functions = {"exist", "count", "equal_integer", "less_than", "greater_than"}
    functions |= {f"{kind}_{one}" for kind in ("query", "equal") for one in attributes}
    for grouping in GROUPINGS.values():
        assert set(grouping) == functions


def test_other_data_sets_have_no_functions() -> None:
    assert by_function(score(["what is", "count"], [True, True])) == {}
