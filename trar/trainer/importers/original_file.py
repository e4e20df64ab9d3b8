"""A checkpoint file of an original repository: read without running code from it, and told whose
weights it holds."""

from __future__ import annotations

import pickle
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trar.errors import CheckpointError
from trar.trainer.importers import lxmert, mcan, rwsan, trar
from trar.trainer.importers.name_check import some

# The names that each system's public code gives to its parameters.
NAMES: dict[str, Any] = {"trar": trar, "mcan": mcan, "rwsan": rwsan, "lxmert": lxmert}
_WRAPPER = "module."  # DataParallel's


@dataclass(frozen=True)
class Original:
    """A checkpoint file of an original repository: its weights by the names in the file, how many
    epochs it says were finished (0 where it does not say), and the names of what else it holds."""

    path: Path
    state: Mapping[str, Tensor]
    epoch: int
    others: tuple[str, ...]

    @property
    def system(self) -> str:
        """Whose weights these are, by their names. LSAT's public code trains MCAN."""
        names = without_wrapper(self.state)
        if any(name.startswith("RWSA_layer.") for name in names):
            return "rwsan"
        if any(name.startswith(lxmert.MARKS) for name in names):
            return "lxmert"
        routed = any(".routing_block." in name for name in names)
        decoder = "backbone.dec_list.0.mhatt1.linear_v.weight" in names
        return "mcan" if decoder and not routed else "trar"

    @property
    def notes(self) -> list[str]:
        """What to tell about these weights besides their names."""
        return lxmert.notes(without_wrapper(self.state)) if self.system == "lxmert" else []

    @property
    def on_clevr(self) -> bool:
        """Whether they were trained on CLEVR, which has an image adapter of its own.

        Raises:
            CheckpointError: they have no image adapter.
        """
        try:
            adapter: str = NAMES[self.system].adapter_of(without_wrapper(self.state))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        return adapter.endswith("grid_linear")


def read_original(path: Path | str) -> Original:
    """Read the weights of an original checkpoint, without running code from it.

    Raises:
        CheckpointError: unreadable, or no weights in it.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path}: the original code writes no safetensors files; a checkpoint of trar is used "
            "as it is"
        )
    content = _read(path)
    nested = content.get("state_dict")
    state = content if nested is None else nested
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{path}: holds no state_dict; give a checkpoint of the original code"
        )
    strange = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(f"{path}: no tensor under {some(strange)}, so this is no state_dict")
    epoch = content.get("epoch")
    others = [str(name) for name in content if content is not state and name != "state_dict"]
    return Original(path, state, epoch if isinstance(epoch, int) else 0, tuple(others))


def without_wrapper(state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by their names without what ``DataParallel`` puts before them."""
    return {name.removeprefix(_WRAPPER): value for name, value in state.items()}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch.save has not written
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; give a checkpoint of the original code, such as epoch13.pkl"
        ) from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # then torch says how to run code
        raise CheckpointError(
            f"{path}: not readable as plain weights ({reason}): it holds objects or code, which "
            "are never run, or it is damaged; save its state_dict alone with torch.save"
        ) from None
    except (EOFError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not readable as a torch file ({error}); download it again"
        ) from None
    except (LookupError, TypeError, AttributeError, AssertionError, struct.error):
        # what torch's reader of pickles makes of bytes that are none
        raise CheckpointError(
            f"{path}: no torch file, or a damaged one; download it again"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a state_dict")
    return content
