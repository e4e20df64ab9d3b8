"""What a run would be, before it is one: its settings and their origins, its cost on this machine.

Nothing is written. Two steps are taken on real batches, the second of which is timed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trar.fileio import free_bytes
from trar.trainer.checkpoint_room import checkpoint_room, need_room
from trar.trainer.config import TrainConfig, setting_names
from trar.trainer.distributed import Ranks
from trar.trainer.evaluator import pick_device
from trar.trainer.fit import check_fit
from trar.trainer.flops import sample_flops
from trar.trainer.memory_budget import need_memory, training_bytes, within_memory
from trar.trainer.new_model import new_model, whole_model_config
from trar.trainer.preset_files import load_preset
from trar.trainer.stages import check_stages, stage_configs
from trar.trainer.stepper import Stepper
from trar.trainer.training_data import open_store, scored_split, training_loader
from trar.trainer.word_vectors import choose_vectors


@dataclass(frozen=True)
class Setting:
    """One effective setting: its dotted ``name``, and where its ``value`` comes from."""

    name: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Stage:
    """A stage trains on ``split`` to the end of epoch ``to_epoch``; ``questions``, ``steps`` and
    ``epoch_s`` (as measured here) are those of one epoch."""

    split: str
    to_epoch: int
    questions: int
    steps: int
    epoch_s: float


@dataclass(frozen=True)
class DryRun:
    """``flops``: of the forward pass of one sample, multiplications and additions counted apart;
    ``activation_bytes``: what a step keeps for its backward pass; ``state_bytes``: weights,
    gradients and moments; ``loader_bytes``: the bound of the loader; ``step_s`` as measured here;
    ``checkpoint_bytes``: one of the ``checkpoints`` that are kept, of all ``stages`` together."""

    settings: tuple[Setting, ...]
    stages: tuple[Stage, ...]
    parameters: int
    flops: int
    activation_bytes: int
    state_bytes: int
    loader_bytes: int
    losses: tuple[float, float]
    step_s: float
    checkpoint_bytes: int
    checkpoints: int
    free_bytes: int

    @property
    def step_bytes(self) -> int:
        """Memory of a training step, beside what Python and torch take."""
        return self.activation_bytes + self.state_bytes + self.loader_bytes


def dry_run(config: TrainConfig, given: Sequence[str] = ()) -> DryRun:
    """Check everything that ``train(config)`` checks, and take two steps without a run folder.

    ``given`` are the dotted names of the settings that the user gave.

    Raises:
        TrarError: whatever ``train`` would refuse.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    store = open_store(config)
    check_fit(config, store)
    check_stages(config)
    scored_split(config, store)
    model_settings = whole_model_config(config, store)
    state_bytes = training_bytes(model_settings)
    asked = config
    config, memory = within_memory(config, store.meta, model_bytes=state_bytes)
    need_memory(memory, device)
    stages = stage_configs(config)
    loaders = [training_loader(one, store, device=device, ranks=Ranks()) for one in stages]
    model = new_model(config, store, choose_vectors(config, store), device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    need_room(config, store, None)
    rooms = [checkpoint_room(one, parameters) for one in stages]
    stepper = Stepper(model, config, answers=len(store.answers))
    stepper.set(learning_rate=config.optim.lr, temperature=config.temperature.max)
    model.train()
    torch.manual_seed(config.seed)
    losses, seconds, kept, flops = [], 0.0, 0, 0
    with loaders[-1].stream(0) as stream:
        for _, batch in zip(range(2), stream, strict=False):
            flops = flops or sample_flops(model, batch.part(0, 1))
            with _KeptBytes(model) as counter:
                begun = time.perf_counter()
                losses.append(float(stepper(batch)) / len(batch))
                seconds = time.perf_counter() - begun
            kept = max(kept, counter.bytes)
    parts = config.data.accumulation  # each keeps its own activations, one after the other
    return DryRun(
        settings=tuple(_origins(asked, set(given))),
        stages=tuple(
            Stage(
                one.split,
                one.schedule.epochs,
                loader.order.questions,
                loader.steps,
                seconds * loader.steps,
            )
            for one, loader in zip(stages, loaders, strict=True)
        ),
        parameters=parameters,
        flops=flops,
        activation_bytes=kept // parts,
        state_bytes=state_bytes,
        loader_bytes=memory.loader.total,
        losses=(losses[0], losses[-1]),
        step_s=seconds,
        checkpoint_bytes=rooms[-1].each,
        checkpoints=1 + sum(room.count - 1 for room in rooms),  # one is being written at a time
        free_bytes=free_bytes(config.runs),
    )


class _KeptBytes:
    """Counts the bytes that the forward pass keeps for the backward pass, weights left out."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {one.untyped_storage().data_ptr() for one in model.parameters()}
        self._storages: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept)

    @property
    def bytes(self) -> int:
        return sum(self._storages.values())

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __enter__(self) -> _KeptBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


def _origins(config: TrainConfig, given: set[str]) -> list[Setting]:
    plain = _flat(config.model_dump(mode="json"))
    preset = _flat(load_preset(config.preset))
    settings = []
    for name in setting_names(config.model.system):
        if name in given:
            origin = "given"
        elif name in preset:
            origin = f"preset {Path(config.preset).stem}"
        else:
            origin = "default"
        settings.append(Setting(name, plain.get(name), origin))
    return settings


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    return flat
