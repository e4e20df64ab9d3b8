"""Weights of the original repositories, turned into our models.

Every name is accounted for: a tensor that is missing, left over or of another shape is an error.
Files are read without running code from them.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trar.errors import CheckpointError
from trar.trainer.importers import trar as trar_names
from trar.trainer.importers.trar import to_original
from trar.trainer.models import Trar

__all__ = ["ImportedTensor", "import_checkpoint", "import_state", "to_original"]

_WRAPPER = "module."  # DataParallel's
_VOCABULARY_SIZES = (
    "20,573 rows: the vocabulary of the train, val, test and VG question files together; "
    "18,405 and 14,613: builds with fewer of these files; 20,572: MCAN, which has no CLS token"
)


class Store(Protocol):
    """What is asked of a feature store: how many words and answers it has."""

    @property
    def vocabulary(self) -> Sized: ...
    @property
    def answers(self) -> Sized: ...


@dataclass(frozen=True)
class ImportedTensor:
    """One line of an import's report; ``ours`` is ``-`` for what is no weight, as the optimizer."""

    original: str
    ours: str
    shape: tuple[int, ...]


def import_state(system: str, state_dict: Mapping[str, Any], sizes: Mapping[str, Any]) -> nn.Module:
    """A model in evaluation mode with the weights ``state_dict`` of an original repository.

    Values are tensors or numpy arrays, and keep their float type; names may begin with
    ``module.``. ``sizes`` may say what the tensors do not: heads, grid, orders, routing, pooling,
    tau, binarize, and the sizes by their names in ``config_of``. All switches of the model stand
    where the original code has them.

    Raises:
        CheckpointError: an unknown system; names missing or left over, or wrong shapes.
        ConfigError: sizes that contradict each other.
    """
    if system != "trar":
        raise CheckpointError(f"system is {system!r}; only trar can be imported")
    state = {
        name.removeprefix(_WRAPPER): torch.as_tensor(value) for name, value in state_dict.items()
    }
    if len(state) < len(state_dict):
        raise CheckpointError("the weights hold the same names with and without module.; keep one")
    config = trar_names.config_of(state, sizes)
    table = trar_names.name_table(config, trar_names.adapter_of(state))
    with torch.device("meta"):  # shapes alone: every number comes from the state
        shapes = {name: value.shape for name, value in Trar(config).named_parameters()}
    expected = {
        original: (shapes[ours][0] // len(originals), *shapes[ours][1:])
        for ours, originals in table.items()
        for original in originals
    }
    _check_names(expected, state)

    model = Trar(config).to(state["embedding.weight"].dtype)
    model.load_state_dict(
        {
            **trar_names.from_original(state, table),
            "temperature": torch.tensor(sizes.get("tau", 1.0), dtype=torch.float64),
        }
    )
    return model.eval()


def import_checkpoint(
    path: Path | str,
    store: Store | None = None,
    *,
    vocabulary: Sized | None = None,
    answers: Sized | None = None,
    sizes: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, list[ImportedTensor]]:
    """A TRAR checkpoint of the original code (``epoch*.pkl``) as a model, and what became of every
    name in the file.

    ``store``, or ``vocabulary`` and ``answers``, are compared with the weights' row counts.
    ``sizes`` as in ``import_state``.

    Raises:
        CheckpointError: an unreadable file, weights of another model, vocabulary or answer list.
    """
    path = Path(path)
    content = _read(path)
    nested = content.get("state_dict")
    state = content if nested is None else nested
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{path}: holds no state_dict; give a checkpoint of the original code"
        )
    strange = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(f"{path}: no tensor under {_some(strange)}, so this is no state_dict")
    try:
        model = import_state("trar", state, sizes or {})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    assert isinstance(model, Trar)

    config = model.config
    if store is not None:
        vocabulary = store.vocabulary if vocabulary is None else vocabulary
        answers = store.answers if answers is None else answers
    if vocabulary is not None and len(vocabulary) != config.vocabulary_size:
        raise CheckpointError(
            f"{path}: the word embedding has {config.vocabulary_size:,} rows, the vocabulary "
            f"{len(vocabulary):,} words. Prepare the store from the question files that the "
            f"weights were trained with ({_VOCABULARY_SIZES})"
        )
    if answers is not None and len(answers) != config.answer_count:
        raise CheckpointError(
            f"{path}: the classifier has {config.answer_count:,} answers, the list "
            f"{len(answers):,}; prepare the store with the original answer list (--answers FILE)"
        )
    return model, _report(content, state, model)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not readable as plain weights ({reason}): it holds objects or code, which "
            "are never run, or it is damaged; save its state_dict alone with torch.save"
        ) from None
    except (EOFError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not readable as a torch file ({error}); download it again"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a state_dict")
    return content


def _check_names(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    problems = []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append(f"missing: {_some(missing)}")
    if left_over := sorted(state.keys() - expected.keys()):
        problems.append(f"left over: {_some(left_over)}")
    wrong = [
        f"{name} {list(state[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        problems.append(f"wrong shape: {_some(wrong)}")
    if problems:
        raise CheckpointError(
            f"these are not the weights of this TRAR; {'; '.join(problems)}. "
            "Nothing was imported; check layers, pooling and sizes"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _report(
    content: Mapping[str, Any], state: Mapping[str, Tensor], model: Trar
) -> list[ImportedTensor]:
    plain = {name.removeprefix(_WRAPPER): value for name, value in state.items()}
    table = trar_names.name_table(model.config, trar_names.adapter_of(plain))
    ours = {original: name for name, originals in table.items() for original in originals}
    rows = [
        ImportedTensor(name, ours[name.removeprefix(_WRAPPER)], tuple(value.shape))
        for name, value in state.items()
    ]
    others = [name for name in content if content is not state and name != "state_dict"]
    return rows + [ImportedTensor(str(name), "-", ()) for name in others]
