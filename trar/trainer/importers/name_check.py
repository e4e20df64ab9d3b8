"""Original weights held against the names and shapes that a model expects of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from trar.errors import CheckpointError

_LISTED = 5  # names in a message; ``UnmatchedNamesError.lines`` has all


class UnmatchedNamesError(CheckpointError):
    """Weights whose names or shapes are not those of the model: ``lines`` says of every such name
    what is wrong with it."""

    def __init__(self, message: str, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


def check_names(
    expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], system: str
) -> None:
    """Refuse weights that are not exactly the ``expected`` names with their shapes.

    Raises:
        UnmatchedNamesError: names missing or left over, or of another shape.
    """
    wrong = [
        f"{name} {list(state[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "left over": sorted(state.keys() - expected.keys()),
        "wrong shape": wrong,
    }
    said = [f"{what}: {some(names)}" for what, names in problems.items() if names]
    if said:
        raise UnmatchedNamesError(
            f"these are not the weights of this {system}; {'; '.join(said)}. "
            "Nothing was imported; check layers, pooling and sizes",
            [f"{what}: {name}" for what, names in problems.items() for name in names],
        )


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuse weights that a failed training has left.

    Raises:
        CheckpointError: the tensors that hold NaN or infinity.
    """
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"NaN or infinite numbers in {some(broken)}: the training that wrote this had failed; "
            "take the checkpoint of an earlier epoch"
        )


def some(names: Sequence[str]) -> str:
    """The first names of many, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
