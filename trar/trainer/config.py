"""Settings of a training run: strict, frozen, and complete.

A preset states every setting of a recipe, ``--set`` changes some by their dotted name, and what
comes out is a ``TrainConfig`` in which nothing is left to a hidden default. An unknown name is an
error with a suggestion, never ignored.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trar.errors import ConfigError
from trar.features.schema import find_dataset, read_meta

DEFAULT_SEED = 20211010
_PRESET_OF_DATASET = {"easy-vqa": "easy-vqa", "clevr": "clevr-hard-fc"}
_FALLBACK_PRESET = "vqa-soft-avg"
_PRESET_KEYS = {"model", "data", "loss", "optim", "schedule", "temperature"}

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Settings = TypeVar("Settings", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class ModelSettings(_Section):
    """The model's shape, without what the store decides (vocabulary, answers, feature sizes)."""

    orders: tuple[NotNegative, ...] = Field(min_length=1)
    layers: Positive
    width: Positive
    heads: Positive
    ff_width: Positive
    word_width: Positive
    flat_hidden: Positive
    flat_width: Positive
    dropout: Share
    routing: Literal["soft", "hard"]
    pooling: Literal["avg", "attention", "fc"]
    binarize: bool
    pool_mask: bool
    empty_window: Literal["uniform", "zero"]
    attn_dropout: Literal["shared", "per_order"]
    layer_norm: Literal["exact", "fast"]

    @model_validator(mode="after")
    def _fits(self) -> ModelSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class DataSettings(_Section):
    """How questions become batches. ``batch_size`` is one optimiser step; with ``accumulation``
    > 1 it goes through the model in that many parts, which changes memory and not the sum.
    Questions are cut to ``max_tokens`` words; None: to the longest of the store, so never.
    ``vectors``: what word embeddings start from, a name in the store, ``auto`` or ``none``."""

    max_tokens: Positive | None
    batch_size: Positive
    accumulation: Positive
    prefetch: Positive
    eval_batch_size: Positive
    vectors: str = Field(min_length=1)


class OptimSettings(_Section):
    """Adam."""

    lr: float = Field(gt=0)
    betas: tuple[Share, Share]
    eps: float = Field(gt=0)


class ScheduleSettings(_Section):
    """Epochs count from 0 in ``decay_epochs``; the learning rate drops at the start of each."""

    epochs: Positive
    warmup_epochs: NotNegative
    decay_epochs: tuple[NotNegative, ...]
    decay_rate: float = Field(gt=0, le=1)


class TemperatureSettings(_Section):
    """The temperature of hard routing over the epochs; soft routing does not use it."""

    policy: int = Field(ge=0, le=2)
    max: float = Field(gt=0)
    min: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureSettings:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}")
        return self


class TrainConfig(_Section):
    """One training run. What is not given comes from the preset, which is the store's own unless
    named: ``TrainConfig(store="features")`` is complete.

    ``split`` is a sum of question splits (``train+val+vg``); ``eval_split`` is scored after each
    epoch; ``threads`` None leaves torch's own choice; ``log_steps`` is how often a line of
    ``log.jsonl`` is written.
    """

    store: Path
    dataset: str | None = None
    split: str = "train"
    eval_split: str | None = "val"
    preset: str = _FALLBACK_PRESET
    run: str | None = Field(default=None, pattern=r"^[\w][\w.+-]*$")
    runs: Path = Path("runs")
    seed: int = Field(default=DEFAULT_SEED, ge=0, lt=1 << 63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive | None = None
    log_steps: Positive = 50
    model: ModelSettings
    data: DataSettings
    loss: Literal["bce-sum", "ce-sum"]
    optim: OptimSettings
    schedule: ScheduleSettings
    temperature: TemperatureSettings

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Fill in the preset around what is given, section by section."""
        if not isinstance(given, Mapping) or "store" not in given:
            return given
        values = dict(given)
        if not values.keys() >= _PRESET_KEYS:
            preset = given.get("preset") or _preset_for(Path(given["store"]), given.get("dataset"))
            values = {**load_preset(preset), "preset": preset}
            for name, value in given.items():
                before = values.get(name)
                if isinstance(before, dict) and isinstance(value, Mapping):
                    values[name] = before | dict(value)
                else:
                    values[name] = value
        return _as_python(values)

    @property
    def splits(self) -> list[str]:
        """The question splits that ``split`` adds up."""
        return split_names(self.split)


def build_config(
    store: Path | str,
    *,
    dataset: str | None = None,
    preset: str | None = None,
    sets: Sequence[str] = (),
    **settings: Any,
) -> TrainConfig:
    """A complete config: the preset (by dataset unless named), then ``settings`` (top-level fields
    by name, None = the default), then ``sets`` (``"optim.lr=1e-3"``).

    Raises:
        ConfigError: an unknown name, or a value of the wrong type or range.
        StoreError: no preset was named and there is no store to choose one for.
    """
    preset = preset or _preset_for(Path(store), dataset)
    values = load_preset(preset)
    run = {"store": str(store), "dataset": dataset, "preset": preset, **settings}
    values |= {name: value for name, value in run.items() if value is not None}
    config = config_from(TrainConfig, apply_sets(values, sets))
    split_names(config.split)
    return config


def _preset_for(store: Path, dataset: str | None) -> str:
    return default_preset(read_meta(find_dataset(store, dataset)).dataset)


def _as_python(values: dict[str, Any]) -> dict[str, Any]:
    """YAML's lists and texts as the tuples and paths that strict validation wants."""
    paths = {name: Path(values[name]) for name in ("store", "runs") if name in values}
    return {name: _tuples(value) for name, value in values.items()} | paths


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def default_preset(dataset: str) -> str:
    """The name of the preset that a dataset trains with unless told otherwise."""
    return _PRESET_OF_DATASET.get(dataset, _FALLBACK_PRESET)


def preset_names() -> list[str]:
    """Every preset that comes with the package."""
    files = resources.files("trar.trainer").joinpath("presets").iterdir()
    return sorted(file.name[: -len(".yaml")] for file in files if file.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset as plain values.

    Raises:
        ConfigError: no such preset; the message lists them.
    """
    if name not in preset_names():
        raise ConfigError(
            f"no preset {name!r}{suggest(name, preset_names())}; there are "
            f"{', '.join(preset_names())}"
        )
    text = resources.files("trar.trainer").joinpath("presets", f"{name}.yaml").read_text()
    values = parse_yaml(text)
    assert isinstance(values, dict)
    return values


def apply_sets(values: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """``values`` with each ``name=value`` of ``sets`` put in; ``values`` is left as it was.

    Names are dotted (``optim.lr``), values are YAML (``[10, 12]``, ``null``, ``1e-3``).

    Raises:
        ConfigError: no ``=``, an unknown name, a section where a setting is wanted, or bad YAML.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    for one in sets:
        name, equals, text = one.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set {one}: expected name=value, for example optim.lr=1e-3")
        if name not in setting_names():
            inside = [known for known in setting_names() if known.startswith(f"{name}.")]
            if inside:
                raise ConfigError(
                    f"--set {one}: {name} is a section, set one of {', '.join(inside)}"
                )
            raise ConfigError(f"--set {one}: {_unknown(name)}")
        *sections, last = name.split(".")
        target = changed
        for section in sections:
            target = target.setdefault(section, {})
        try:
            target[last] = parse_yaml(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {one}: {text!r} is not a YAML value") from None
    return changed


def config_from(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """``values`` as a frozen config of ``kind``; numbers, booleans and texts are not mixed up.

    Raises:
        ConfigError: every problem in one message, each with its dotted name.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(dict(one)) for one in error.errors())) from None


def setting_names() -> list[str]:
    """The dotted name of every setting."""
    names = []
    for name, field in TrainConfig.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Section):
            names += [f"{name}.{inner}" for inner in kind.model_fields]
        else:
            names.append(name)
    return names


def split_names(split: str) -> list[str]:
    """``"train+val"`` as names.

    Raises:
        ConfigError: an empty name, or one named twice.
    """
    names = [name.strip() for name in split.split("+")]
    if not all(names) or len(set(names)) != len(names):
        raise ConfigError(f"split is {split!r}, expected names once each, such as train+val")
    return names


def parse_yaml(text: str) -> Any:
    """YAML in which ``1e-3`` is a number, as everywhere but in YAML 1.1."""
    return yaml.load(text, _Loader)


def suggest(name: str, known: Sequence[str]) -> str:
    """`` (did you mean …?)`` for a name that is close to a known one, else nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _unknown(name: str) -> str:
    by_last = {known.rpartition(".")[2]: known for known in setting_names()}
    close = difflib.get_close_matches(name, setting_names(), n=1, cutoff=0.6)
    last = difflib.get_close_matches(name.rpartition(".")[2], list(by_last), n=1, cutoff=0.6)
    found = close or [by_last[one] for one in last]
    return f"{name} is no setting" + (f" (did you mean {found[0]}?)" if found else "")


def _explain(error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return _unknown(name)
    if error["type"] == "missing":
        return f"{name} is missing"
    found = error["input"]
    if isinstance(found, dict):  # a rule over a whole section
        return f"{name}: {error['msg'].removeprefix('Value error, ')}"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name} is {found!r}, expected {expected}"
