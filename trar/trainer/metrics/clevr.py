"""CLEVR by what the question asks for: the last function of its program, in groups.

Johnson et al., CLEVR (2017), files ``equal_integer`` with the comparisons of
numbers; openvqa and TRAR (clevr_eval.py) file it with the comparisons of attributes. Numbers of one
grouping do not compare with those of the other, so both are given.
"""

from __future__ import annotations

from trar.features.columns import CodedTexts
from trar.trainer.metrics.result import VqaScore

_ATTRIBUTES = ("color", "material", "shape", "size")
_SHARED = {
    "exist": "exist",
    "count": "count",
    **{f"query_{name}": "query attribute" for name in _ATTRIBUTES},
    **{f"equal_{name}": "compare attribute" for name in _ATTRIBUTES},
}
GROUPINGS = {
    "as in the paper": {
        **_SHARED,
        **dict.fromkeys(("equal_integer", "less_than", "greater_than"), "compare integer"),
    },
    "as in openvqa and TRAR": {
        **_SHARED,
        **dict.fromkeys(("less_than", "greater_than"), "compare numbers"),
        "equal_integer": "compare attribute",
    },
}


def by_function(score: VqaScore) -> dict[str, dict[str, float]]:
    """Percent of each group of questions, in both groupings; empty where the question types are not
    CLEVR's functions."""
    types = score.question_types.renumbered()
    if not set(types.known) <= set(GROUPINGS["as in the paper"]):
        return {}
    found = {}
    for name, group_of in GROUPINGS.items():
        groups = CodedTexts.of(group_of[one] for one in types.known)
        found[name] = score.by_type(groups.take(types.codes))
    return found
