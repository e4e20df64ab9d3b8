"""Numbers that the original public code gave, once, with small sizes (``data/reference``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "data" / "reference"
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Reference:
    """One run of the original code: its ``sizes``, and arrays by the names in the file."""

    sizes: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def part(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays of ``state/`` or ``grad/``, by original parameter names."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.arrays.items()
            if name.startswith(prefix)
        }

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The weights, as their checkpoint would hold them."""
        return {name: torch.from_numpy(value) for name, value in self.part("state/").items()}

    def inputs(self, *names: str) -> list[torch.Tensor]:
        """``image``, ``question``, ``box`` or ``cotangent``."""
        return [torch.from_numpy(self.arrays[f"in/{name}"]) for name in names]

    def check_logits(self, logits: torch.Tensor) -> None:
        """Hold logits against those of the original code."""
        assert logits.dtype == torch.float64
        expected = self.arrays["out/logits"]
        np.testing.assert_allclose(logits.detach(), expected, rtol=0, atol=TOLERANCE)

    def check_gradients(self, found: Mapping[str, NDArray[Any]]) -> None:
        """Hold gradients by original names against those of the original code, relative to the
        largest: some are zero in theory. What the file does not have is zero."""
        expected = self.part("grad/")
        assert expected.keys() <= found.keys()
        largest = max(np.abs(value).max() for value in expected.values())
        for name, gradient in found.items():
            wanted = expected.get(name, np.zeros(gradient.shape))
            error = np.abs(gradient - wanted).max() / largest
            assert error < TOLERANCE, f"{name}: {error}"


def reference_names(beginning: str) -> list[str]:
    """The references whose names begin so, in order."""
    return sorted(path.stem for path in FOLDER.glob(f"{beginning}*.npz"))


def load_reference(name: str) -> Reference:
    """The reference of that name."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return Reference(json.loads(arrays["config"].tobytes()), arrays)
