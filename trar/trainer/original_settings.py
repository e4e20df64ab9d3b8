"""Settings in the originals' spelling, as ours: TRAR-VQA ``configs/*/trar.yml``, MCAN's of openvqa
(``configs/*/mcan_*.yml``) and of mcan-vqa (``cfgs/*_model.yml``), and RWSAN's, which stand in its
``cfgs/base_cfgs.py``, as YAML.

Their files change the defaults of ``openvqa/core/base_cfgs.py``; what they leave open is taken from
there, and the rest from the preset of their system and dataset. Nothing in a file is evaluated:
``OPT_PARAMS`` holds Python literals as text, which are parsed.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trar.errors import ConfigError

_NAMES = {
    "LAYER": "model.layers",
    "HIDDEN_SIZE": "model.width",
    "FF_SIZE": "model.ff_width",
    "MULTI_HEAD": "model.heads",
    "DROPOUT_R": "model.dropout",
    "FLAT_MLP_SIZE": "model.flat_hidden",
    "FLAT_OUT_SIZE": "model.flat_width",
    "WORD_EMBED_SIZE": "model.word_width",
    "ORDERS": "model.orders",
    "ROUTING": "model.routing",
    "POOLING": "model.pooling",
    "ROUTING_MODE": "model.pooling",  # its name before the release
    "BINARIZE": "model.binarize",
    "SRWSA_LAYER": "model.question_repeats",
    "SGRWSA_LAYER": "model.image_repeats",
    "SRWSA_MIDSIZE": "model.question_rank",
    "SGRWSA_SA_MIDSIZE": "model.image_rank",
    "SGRWSA_GA_MIDSIZE": "model.guided_rank",
    "IMG_SCALE": "data.grid",
    "MAX_TOKEN": "data.max_tokens",
    "BATCH_SIZE": "data.batch_size",
    "GRAD_ACCU_STEPS": "data.accumulation",
    "EVAL_BATCH_SIZE": "data.eval_batch_size",
    "LR_BASE": "optim.lr",
    "OPT_BETAS": "optim.betas",
    "OPT_EPS": "optim.eps",
    "LR_DECAY_R": "schedule.decay_rate",
    "LR_DECAY_LIST": "schedule.decay_epochs",
    "WARMUP_EPOCH": "schedule.warmup_epochs",
    "MAX_EPOCH": "schedule.epochs",
    "TAU_POLICY": "temperature.policy",
    "TAU_MAX": "temperature.max",
    "TAU_MIN": "temperature.min",
    "TRAIN_SPLIT": "split",
    "SEED": "seed",
}
_DEFAULTS = {  # base_cfgs.py
    "BATCH_SIZE": 64,
    "GRAD_ACCU_STEPS": 1,
    "LR_BASE": 1e-4,
    "LR_DECAY_R": 0.2,
    "LR_DECAY_LIST": [10, 12],
    "WARMUP_EPOCH": 3,
    "MAX_EPOCH": 13,
    "WORD_EMBED_SIZE": 300,
    "USE_GLOVE": True,
}
_OWN_DEFAULTS = {"rwsan": {"LR_DECAY_LIST": [12, 14], "MAX_EPOCH": 16}}
# The preset of each system with the loss of VQA, and with that of CLEVR.
_BASES = {
    "trar": {"bce": "vqa-soft-avg", "ce": "clevr-hard-fc"},
    "mcan": {"bce": "mcan-small", "ce": "mcan-clevr"},
    "rwsan": {"bce": "rwsan-vqa"},
}
_ADAM_DEFAULTS = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
_LOSSES = {"bce": "bce-sum", "ce": "ce-sum"}
# One value alone is what we do; any other is a recipe that we do not have.
_ONLY = {
    "FLAT_GLIMPSES": 1,
    "USE_BBOX_FEAT": False,
    "BBOX_NORMALIZE": False,
    "FEATURES": "grid",
    "LOSS_REDUCTION": "sum",
    "OPT": "Adam",
}
_SPECIAL = {
    "MODEL_USE",
    "LOSS_FUNC",
    "OPT_PARAMS",
    "OPT_BETAS_0",
    "OPT_BETAS_1",
    "GRAD_NORM_CLIP",
    "USE_GLOVE",
    "EVAL_EVERY_EPOCH",
    "HIDDEN_SIZE_HEAD",
}
# Where and how to run, which are options of the commands here and not part of a recipe.
_IGNORED = {
    *("GPU", "N_GPU", "DEVICES", "VERSION", "RESUME", "CKPT_VERSION", "CKPT_EPOCH", "CKPT_PATH"),
    *("RUN_MODE", "MODEL", "DATASET", "VERBOSE", "NUM_WORKERS", "PIN_MEM", "TEST_SAVE_PRED"),
    *("SHUFFLE_MODE", "TASK", "PRELOAD", "IMG_FEAT_SIZE", "IMG_FEAT_PAD_SIZE"),
}
_WIDTH, _HEADS = 512, 8  # of every original that does not say them
_KNOWN = sorted({*_NAMES, *_ONLY, *_SPECIAL, *_IGNORED})


@dataclass(frozen=True)
class Translation:
    """``values`` to change in the preset ``base``, and ``notes`` on what has no meaning here."""

    base: str
    values: dict[str, Any]
    notes: tuple[str, ...]


def is_original(said: Mapping[Any, Any]) -> bool:
    """Whether settings are in the originals' spelling, which is capitals."""
    return any(isinstance(name, str) and name.isupper() for name in said)


def translate(said: Mapping[Any, Any], *, where: str) -> Translation:
    """The settings of an original file, named ``where`` in messages, as changes of a preset.

    Raises:
        ConfigError: an unknown key (with a suggestion), or a value for which we have no setting.
    """
    system = _system(said, where)
    unknown = [str(name) for name in said if name not in _KNOWN]
    if unknown:
        raise ConfigError(
            f"{where}: {', '.join(name + _suggestion(name) for name in unknown)}: not a key of the "
            "original configs of TRAR, MCAN or RWSAN; correct or remove it"
        )
    for name, only in _ONLY.items():
        if name in said and said[name] != only:
            raise ConfigError(f"{where}: {name} is {said[name]!r}; only {only!r} is to be had here")
    _check_head_width(said, where)
    loss = said.get("LOSS_FUNC", "bce")
    if not isinstance(loss, str) or loss not in _BASES[system]:
        expected = " or ".join(_BASES[system])
        raise ConfigError(f"{where}: LOSS_FUNC is {loss!r}, expected {expected}")
    complete = {**_DEFAULTS, **_OWN_DEFAULTS.get(system, {}), **said}
    changes = {_NAMES[name]: value for name, value in complete.items() if name in _NAMES}
    changes |= _special(said, where) | (_routing if system == "trar" else _sizes)(said)
    values: dict[str, Any] = {"loss": _LOSSES[loss]}
    for name, value in changes.items():
        _put(values, name, value)
    ignored = sorted(_IGNORED & said.keys())
    note = f"{where}: {', '.join(ignored)}: no setting of a recipe here, left out"
    return Translation(_BASES[system][loss], values, (note,) if ignored else ())


def _system(said: Mapping[Any, Any], where: str) -> str:
    """Whose config this is: by its ``MODEL_USE``, which older ones do not have, or by its keys.
    Every file of openvqa's form with ``LAYER`` and nothing of TRAR or RWSAN is one of MCAN."""
    named = said.get("MODEL_USE")
    if named is not None and str(named).lower() not in _BASES:
        raise ConfigError(
            f"{where}: MODEL_USE is {named!r}, a model that is not here; configs of "
            f"{', '.join(_BASES)} can be given as a preset"
        )
    if named is not None:
        system = str(named).lower()
    elif "ORDERS" in said or "ROUTING" in said:
        system = "trar"
    else:
        system = "rwsan" if any("RWSA_" in str(name) for name in said) else "mcan"
    needed = {"trar": "ORDERS", "mcan": "LAYER"}.get(system)
    if needed not in (None, *said):
        raise ConfigError(
            f"{where}: no {needed}, so this is no config of {system}; those of "
            f"{', '.join(_BASES)} can be given as a preset"
        )
    return system


def _check_head_width(said: Mapping[str, Any], where: str) -> None:
    """``HIDDEN_SIZE_HEAD``, which older files say too, can only be the width over the heads."""
    width, heads = said.get("HIDDEN_SIZE", _WIDTH), said.get("MULTI_HEAD", _HEADS)
    found = said.get("HIDDEN_SIZE_HEAD")
    whole = isinstance(width, int) and isinstance(heads, int) and heads > 0
    if found is not None and whole and found != width / heads:
        raise ConfigError(
            f"{where}: HIDDEN_SIZE_HEAD is {found!r}, but HIDDEN_SIZE / MULTI_HEAD is {width} / "
            f"{heads}; correct one of the three, or remove HIDDEN_SIZE_HEAD"
        )


def _routing(said: Mapping[str, Any]) -> dict[str, Any]:
    """What TRAR's evaluation does, and its files do not say."""
    hard = said.get("ROUTING") == "hard"  # then scored with noise at the largest temperature
    found: dict[str, Any] = {
        "model.eval_alpha": "gumbel" if hard else "softmax",
        "model.eval_tau": said.get("TAU_MAX", 10.0) if hard else None,
    }
    if not hard:
        found["model.binarize"] = False  # theirs is without effect then
    return found


def _sizes(said: Mapping[str, Any]) -> dict[str, Any]:
    """The width inside the feed-forward, which mcan-vqa and RWSAN do not say."""
    width = said.get("HIDDEN_SIZE", _WIDTH)
    implied = "FF_SIZE" not in said and "MODEL_USE" not in said and isinstance(width, int)
    return {"model.ff_width": 4 * width} if implied else {}


def _special(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is not one setting under another name."""
    found: dict[str, Any] = {}
    if "OPT" in said or "OPT_PARAMS" in said:
        adam = _adam(said.get("OPT_PARAMS") or {}, where)
        found |= {"optim.betas": adam["betas"], "optim.eps": adam["eps"]}
    betas = said.get("OPT_BETAS_0"), said.get("OPT_BETAS_1")
    if None not in betas:
        found["optim.betas"] = list(betas)
    clip = said.get("GRAD_NORM_CLIP", -1)
    found["loop.clip_norm"] = None if isinstance(clip, int | float) and clip <= 0 else clip
    found["data.vectors"] = "auto" if said.get("USE_GLOVE", True) else "none"
    if said.get("EVAL_EVERY_EPOCH") is False:
        found["eval_split"] = None
    return found


def _adam(params: Any, where: str) -> dict[str, Any]:
    """``OPT_PARAMS``, whose values are Python literals as text, over torch's defaults of Adam."""
    adam = dict(_ADAM_DEFAULTS)
    if not isinstance(params, Mapping):
        raise ConfigError(f"{where}: OPT_PARAMS is {params!r}, expected names with values")
    for name, text in params.items():
        if name not in adam:
            raise ConfigError(
                f"{where}: OPT_PARAMS has {name}{_suggestion(name, list(adam))}, expected "
                f"{', '.join(adam)}"
            )
        try:
            adam[name] = ast.literal_eval(text) if isinstance(text, str) else text
        except (ValueError, SyntaxError):
            raise ConfigError(
                f"{where}: OPT_PARAMS {name} is {text!r}, expected numbers such as '(0.9, 0.98)'"
            ) from None
    for name in ("weight_decay", "amsgrad"):
        if adam[name]:
            raise ConfigError(f"{where}: OPT_PARAMS {name} is {adam[name]!r}; only 0 is to be had")
    return adam


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    section, _, key = name.rpartition(".")
    (values.setdefault(section, {}) if section else values)[key] = value


def _suggestion(name: str, known: list[str] = _KNOWN) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
