"""Weights of the original repositories, turned into our models.

Every name is accounted for: a tensor that is missing, left over or of another shape is an error.
Files are read without running code from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trar.errors import CheckpointError
from trar.trainer.importers import lxmert as lxmert_names
from trar.trainer.importers.name_check import UnmatchedNamesError, check_finite, check_names
from trar.trainer.importers.names import from_original, rename
from trar.trainer.importers.original_file import NAMES, Original, read_original, without_wrapper
from trar.trainer.models import MODELS, build_model

__all__ = [
    "ImportedTensor",
    "Original",
    "UnmatchedNamesError",
    "import_checkpoint",
    "import_state",
    "read_original",
    "to_original",
]

_CLS = 2  # its row, which no question uses
_VOCABULARY_SIZES = (
    "20,573 rows: the vocabulary of the train, val, test and VG question files together; "
    "18,405 and 14,613: builds with fewer of these files; mcan-vqa and RWSAN have one row less, "
    "for they have no CLS, and are imported all the same"
)
_REMEDY = (
    "Prepare the store from the question files that the weights were trained with "
    f"({_VOCABULARY_SIZES})",
    "Add the word pieces they were trained with: trar-data prepare --tokenizer wordpiece "
    "--wordpiece-vocab vocab.txt (bert-base-uncased: 30,522)",
)


class Store(Protocol):
    """What is asked of a feature store: how many words and answers it has."""

    @property
    def vocabulary(self) -> Sized: ...
    @property
    def answers(self) -> Sized: ...


@dataclass(frozen=True)
class ImportedTensor:
    """One line of an import's report; ``ours`` is ``-`` for what is not taken: no weight, as the
    optimizer, or one that is not used, and then ``why`` says why."""

    original: str
    ours: str
    shape: tuple[int, ...]
    why: str = ""


def import_state(system: str, state_dict: Mapping[str, Any], sizes: Mapping[str, Any]) -> nn.Module:
    """A model in evaluation mode with the weights ``state_dict`` of an original repository.

    Values are tensors or numpy arrays, and keep their float type; names may begin with
    ``module.``. ``sizes`` may say what the tensors do not: heads, grid, orders, routing, pooling,
    tau, binarize, and the sizes by their names in ``config_of``. All switches of the model stand
    where the original code has them.

    Raises:
        CheckpointError: an unknown system; NaN; names missing or left over, or wrong shapes, all
            of them in ``UnmatchedNamesError.lines``.
        ConfigError: sizes that contradict each other.
    """
    if system not in NAMES:
        raise CheckpointError(
            f"system is {system!r}; {', '.join(NAMES)} can be imported, and weights of LSAT's "
            "public code as mcan, which they are"
        )
    state = {name: torch.as_tensor(value) for name, value in without_wrapper(state_dict).items()}
    if len(state) < len(state_dict):
        raise CheckpointError("the weights hold the same names with and without module.; keep one")
    check_finite(state)
    names = NAMES[system]
    if system == "lxmert":
        state, config = lxmert_names.prepared(state, sizes)
    else:
        config = names.config_of(state, sizes)
    table = names.name_table(config, names.adapter_of(state))
    with torch.device("meta"):  # shapes alone: every number comes from the state
        shapes = {name: value.shape for name, value in build_model(config).named_parameters()}
    expected = {
        original: (shapes[ours][0] // len(originals), *shapes[ours][1:])
        for ours, originals in table.items()
        for original in originals
    }
    check_names(expected, state, system)

    model = build_model(config).to(next(iter(state.values())).dtype)
    values = from_original(state, table)
    if system == "trar":
        values["temperature"] = torch.tensor(sizes.get("tau", 1.0), dtype=torch.float64)
    model.load_state_dict(values)
    return model.eval()


def to_original(
    named: Mapping[str, Tensor], config: Any, *, adapter: str | None = None
) -> dict[str, Tensor]:
    """Tensors under our parameter names, parameters or gradients, under the original names.

    Fused projections are split; what has no original name (buffers) is left out. ``adapter``: the
    layer that reads the image, one of ``ADAPTERS`` of the system's names; VQA's unless given.
    """
    (names,) = (NAMES[system] for system in NAMES if MODELS[system][0] is type(config))
    return rename(names.name_table(config, adapter or names.ADAPTERS[0]), named)


def import_checkpoint(
    path: Path | str | Original,
    store: Store | None = None,
    *,
    vocabulary: Sized | None = None,
    answers: Sized | None = None,
    sizes: Mapping[str, Any] | None = None,
    head_answers: Sequence[str] | None = None,
) -> tuple[nn.Module, list[ImportedTensor]]:
    """A checkpoint of the original code (``epoch*.pkl``) as a model, and what became of every name
    in the file.

    ``store``, or ``vocabulary`` and ``answers``, are compared with the weights' row counts.
    ``sizes`` as in ``import_state``. ``head_answers`` are those of LXMERT's pre-training, by row of
    its answer head: of these rows those of ``answers`` are taken, the others begin at zero.

    Raises:
        CheckpointError: an unreadable file, weights of another model, vocabulary or answer list.
    """
    original = path if isinstance(path, Original) else read_original(path)
    path = original.path
    if store is not None:
        vocabulary = store.vocabulary if vocabulary is None else vocabulary
        answers = store.answers if answers is None else answers
    state = original.state if vocabulary is None else _with_cls(original, len(vocabulary))
    try:
        if original.system == "lxmert":
            state = lxmert_names.with_answers(state, head_answers, answers)
        model = import_state(original.system, state, sizes or {})
    except UnmatchedNamesError as error:
        raise UnmatchedNamesError(f"{path}: {error}", error.lines) from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None

    config: Any = model.config
    if vocabulary is not None and len(vocabulary) != config.vocabulary_size:
        raise CheckpointError(
            f"{path}: the word embedding has {config.vocabulary_size:,} rows, the vocabulary "
            f"{len(vocabulary):,} words. {_REMEDY[original.system == 'lxmert']}"
        )
    if answers is not None and len(answers) != config.answer_count:
        raise CheckpointError(
            f"{path}: the classifier has {config.answer_count:,} answers, the list "
            f"{len(answers):,}; prepare the store with the original answer list (--answers FILE)"
        )
    return model, _report(original, model)


def _with_cls(original: Original, words: int) -> Mapping[str, Tensor]:
    """The weights with a row for CLS, where they have one row less than there are ``words`` because
    the code that they come from knows no CLS; its words stand in the same order."""
    name = next((one for one in original.state if one.endswith("embedding.weight")), None)
    if name is None or original.system == "trar" or len(original.state[name]) != words - 1:
        return original.state
    rows = original.state[name]
    whole = torch.cat([rows[:_CLS], rows.new_zeros(1, rows.shape[1]), rows[_CLS:]])
    return {**original.state, name: whole}


def _report(original: Original, model: nn.Module) -> list[ImportedTensor]:
    names, state = NAMES[original.system], without_wrapper(original.state)
    table = names.name_table(model.config, names.adapter_of(state))
    ours = {theirs: name for name, originals in table.items() for theirs in originals}
    lxmert = original.system == "lxmert"
    why = lxmert_names.why_unused(state) if lxmert else {}
    rows = []
    for name, value in state.items():
        here = "-" if name in why else ours[lxmert_names.original_name(name) if lxmert else name]
        rows.append(ImportedTensor(name, here, tuple(value.shape), why.get(name, "")))
    return rows + [ImportedTensor(name, "-", ()) for name in original.others]
