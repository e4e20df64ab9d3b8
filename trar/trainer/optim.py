"""The optimiser of a run, and its state as tensors by parameter name.

Adam as the TRAR family uses it; LAMB, within Lookahead or not, as the adaptive transformer does
(pytorch-optimizer's). Sources: You et al., Large Batch Optimization for Deep Learning, ICLR 2020;
Zhang et al., Lookahead Optimizer, NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trar.errors import ConfigError

if TYPE_CHECKING:
    from trar.trainer.run_settings import OptimSettings

_COUNTERS = ("step", "counter")  # of LAMB and of Lookahead, one for all parameters
_TOLD_ONLY = {"weight_norm", "adam_norm", "trust_ratio"}  # by LAMB, of its last step


def build_optimiser(parameters: Iterable[nn.Parameter], settings: OptimSettings) -> Optimizer:
    """The optimiser that a recipe names.

    Raises:
        ConfigError: pytorch-optimizer is needed and not installed.
    """
    if settings.kind == "adam" and not settings.lookahead_steps:
        return build_adam(parameters, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    try:
        from pytorch_optimizer import Lamb, Lookahead
    except ImportError:
        raise ConfigError(
            "LAMB and Lookahead need pytorch-optimizer: pip install 'trar[lxmert]', or train with "
            "--set optim.kind=adam --set optim.lookahead_steps=0"
        ) from None
    optimiser: Optimizer
    if settings.kind == "adam":
        optimiser = build_adam(parameters, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    else:
        optimiser = Lamb(
            parameters,
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            weight_decouple=False,  # part of the update whose length is compared
            adam_debias=True,  # else the rate is divided by 1 - beta1^t, which LAMB does not
        )
    if settings.lookahead_steps:
        share = settings.lookahead_share
        optimiser = Lookahead(optimiser, k=settings.lookahead_steps, alpha=share)
    return optimiser


def build_adam(
    parameters: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float], eps: float
) -> torch.optim.Adam:
    """Adam in one fused kernel per step, which torch offers on the CPU as on CUDA."""
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, fused=True)


def set_learning_rate(optimiser: Optimizer, lr: float) -> None:
    """Use ``lr`` from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def moments(model: nn.Module, optimiser: Optimizer) -> dict[str, Tensor]:
    """What ``optimiser`` remembers of each parameter, as ``<moment>.<parameter>``: views."""
    return {
        f"{moment}.{name}": value
        for name, parameter in model.named_parameters()
        for layer in _layers(optimiser)
        for moment, value in layer.state.get(parameter, {}).items()
        if isinstance(value, Tensor) and moment not in _TOLD_ONLY
    }


def counters(optimiser: Optimizer) -> dict[str, int]:
    """What it counts for all parameters together: steps, and those since it last looked ahead."""
    (group,) = optimiser.param_groups
    return {name: group[name] for name in _COUNTERS if name in group}


def restore(
    model: nn.Module,
    optimiser: Optimizer,
    saved: Mapping[str, Tensor],
    counted: Mapping[str, int],
) -> None:
    """Give ``optimiser``, made over ``model.parameters()``, saved ``moments`` and ``counters``."""
    base = _layers(optimiser)[0]
    state: dict[int, dict[str, Any]] = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        mine = {
            key.partition(".")[0]: value
            for key, value in saved.items()
            if key.partition(".")[2] == name
        }
        slow = mine.pop("slow_params", None)
        if slow is not None and base is not optimiser:
            optimiser.state[parameter]["slow_params"].copy_(slow)
        if mine:
            state[number] = mine
    base.load_state_dict({"state": state, "param_groups": base.state_dict()["param_groups"]})
    for group in base.param_groups:
        group.update(counted)


def _layers(optimiser: Optimizer) -> tuple[Optimizer, ...]:
    """The optimiser that steps, and the one around it where there is one."""
    inner = getattr(optimiser, "optimizer", None)
    return (optimiser,) if inner is None else (inner, optimiser)
