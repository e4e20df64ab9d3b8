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
from trar.trainer.importers import lxmert as lxmert_names
from trar.trainer.importers import mcan as mcan_names
from trar.trainer.importers import rwsan as rwsan_names
from trar.trainer.importers import trar as trar_names
from trar.trainer.importers.names import from_original, rename
from trar.trainer.models import MODELS, build_model

__all__ = [
    "ImportedTensor",
    "Original",
    "import_checkpoint",
    "import_state",
    "read_original",
    "to_original",
]

_WRAPPER = "module."  # DataParallel's
_NAMES: dict[str, Any] = {
    "trar": trar_names,
    "mcan": mcan_names,
    "rwsan": rwsan_names,
    "lxmert": lxmert_names,
}
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
        names = _plain(self.state)
        if any(name.startswith("RWSA_layer.") for name in names):
            return "rwsan"
        if any(name.startswith(lxmert_names.MARKS) for name in names):
            return "lxmert"
        routed = any(".routing_block." in name for name in names)
        decoder = "backbone.dec_list.0.mhatt1.linear_v.weight" in names
        return "mcan" if decoder and not routed else "trar"

    @property
    def notes(self) -> list[str]:
        """What to tell about these weights besides their names."""
        return lxmert_names.notes(_plain(self.state)) if self.system == "lxmert" else []

    @property
    def on_clevr(self) -> bool:
        """Whether they were trained on CLEVR, which has an image adapter of its own."""
        adapter: str = _NAMES[self.system].adapter_of(_plain(self.state))
        return adapter.endswith("grid_linear")


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
    if system not in _NAMES:
        raise CheckpointError(
            f"system is {system!r}; {', '.join(_NAMES)} can be imported, and weights of LSAT's "
            "public code as mcan, which they are"
        )
    state = {name: torch.as_tensor(value) for name, value in _plain(state_dict).items()}
    if len(state) < len(state_dict):
        raise CheckpointError("the weights hold the same names with and without module.; keep one")
    names = _NAMES[system]
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
    _check_names(expected, state, system)

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
    (names,) = (_NAMES[system] for system in _NAMES if MODELS[system][0] is type(config))
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


def read_original(path: Path | str) -> Original:
    """Read the weights of an original checkpoint, without running code from it.

    Raises:
        CheckpointError: unreadable, or no weights in it.
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
    epoch = content.get("epoch")
    others = [str(name) for name in content if content is not state and name != "state_dict"]
    return Original(path, state, epoch if isinstance(epoch, int) else 0, tuple(others))


def _read(path: Path) -> Mapping[str, Any]:
    try:
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
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a state_dict")
    return content


def _with_cls(original: Original, words: int) -> Mapping[str, Tensor]:
    """The weights with a row for CLS, where they have one row less than there are ``words`` because
    the code that they come from knows no CLS; its words stand in the same order."""
    name = next((one for one in original.state if one.endswith("embedding.weight")), None)
    if name is None or original.system == "trar" or len(original.state[name]) != words - 1:
        return original.state
    rows = original.state[name]
    whole = torch.cat([rows[:_CLS], rows.new_zeros(1, rows.shape[1]), rows[_CLS:]])
    return {**original.state, name: whole}


def _check_names(
    expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], system: str
) -> None:
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
            f"these are not the weights of this {system}; {'; '.join(problems)}. "
            "Nothing was imported; check layers, pooling and sizes"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _report(original: Original, model: nn.Module) -> list[ImportedTensor]:
    names, config = _NAMES[original.system], model.config
    table = names.name_table(config, names.adapter_of(_plain(original.state)))
    ours = {theirs: name for name, originals in table.items() for theirs in originals}
    plain = _plain(original.state)
    lxmert = original.system == "lxmert"
    why = lxmert_names.why_unused(plain) if lxmert else {}
    rows = []
    for name, value in plain.items():
        here = "-" if name in why else ours[lxmert_names.original_name(name) if lxmert else name]
        rows.append(ImportedTensor(name, here, tuple(value.shape), why.get(name, "")))
    return rows + [ImportedTensor(name, "-", ()) for name in original.others]


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(_WRAPPER): value for name, value in state.items()}
