"""Settings of a training run: strict, frozen, and complete.

A preset states every setting of a recipe, ``--set`` changes some by their dotted name, and what
comes out is a ``TrainConfig`` in which nothing is left to a hidden default. An unknown name is an
error with a suggestion, never ignored.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from trar.errors import ConfigError
from trar.features.place import open_place
from trar.features.schema import find_dataset, read_meta
from trar.trainer.model_settings import (
    DEFAULT_SYSTEM,
    AnyModelSettings,
    of_system,
    settings_class,
    system_of,
)
from trar.trainer.preset_files import (
    FALLBACK_PRESET,
    SUFFIXES,
    default_preset,
    load_preset,
    parse_yaml,
)
from trar.trainer.run_settings import (
    DataSettings,
    LoopSettings,
    OptimSettings,
    ScheduleSettings,
    TemperatureSettings,
)
from trar.trainer.settings_section import Positive, Section

DEFAULT_SEED = 20211010
DEFAULT_EVAL_SPLIT = "val"
_NAMED = 3  # of the settings that are missing
_PRESET_KEYS = {"model", "data", "loss", "optim", "schedule", "temperature"}

StorePath = Annotated[Path, PlainValidator(open_place), PlainSerializer(str, when_used="json")]
Settings = TypeVar("Settings", bound=BaseModel)


class TrainConfig(Section):
    """One training run. What is not given comes from the preset, which is the store's own unless
    named: ``TrainConfig(store="features")`` is complete.

    ``split`` is a sum of question splits (``train+val+vg``); ``eval_split`` is scored after each
    epoch; ``threads`` None leaves torch's own choice; ``log_steps`` is how often a line of
    ``log.jsonl`` is written; ``start_from`` is a checkpoint of another run of this recipe, on the
    same or other splits, whose finished epochs count as done.
    """

    store: StorePath
    dataset: str | None = None
    split: str = "train"
    eval_split: str | None = DEFAULT_EVAL_SPLIT
    preset: str = FALLBACK_PRESET
    run: str | None = Field(default=None, pattern=r"^[\w][\w.+-]*$")
    runs: Path = Path("runs")
    seed: int = Field(default=DEFAULT_SEED, ge=0, lt=1 << 63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive | None = None
    log_steps: Positive = 50
    start_from: Path | None = None
    model: AnyModelSettings
    data: DataSettings
    loss: Literal["bce-sum", "ce-sum", "bce-mean-answers"]
    optim: OptimSettings
    schedule: ScheduleSettings
    temperature: TemperatureSettings
    loop: LoopSettings = LoopSettings()

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Fill in the preset around what is given, section by section."""
        if not isinstance(given, Mapping) or "store" not in given:
            return given
        values = dict(given)
        if not values.keys() >= _PRESET_KEYS:
            preset, values = _recipe(
                given.get("preset"), open_place(given["store"]), given.get("dataset")
            )
            values["preset"] = preset
            for name, value in given.items():
                before = values.get(name)
                if isinstance(before, dict) and isinstance(value, Mapping):
                    if name == "model" and "system" in value:
                        before = of_system(value["system"], before)
                    values[name] = before | dict(value)
                else:
                    values[name] = value
        return _as_python(values)

    @property
    def run_name(self) -> str:
        """What the run's folder is called unless that is taken."""
        return self.run or Path(self.preset).stem

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
    preset, values = _recipe(preset, open_place(store), dataset)
    run = {"store": str(store), "dataset": dataset, "preset": preset, **settings}
    values |= {name: value for name, value in run.items() if value is not None}
    own_file = preset.endswith(SUFFIXES)
    way_out = f"; let {preset} say `base: NAME`, the preset whose settings it changes, or state all"
    config = config_from(TrainConfig, apply_sets(values, sets), way_out if own_file else "")
    split_names(config.split)
    return config


def _recipe(preset: str | None, store: Path, dataset: str | None) -> tuple[str, dict[str, Any]]:
    """A preset's name and settings: the one named, or the dataset's own for any grid."""
    if preset is not None:
        return preset, load_preset(preset)
    preset = default_preset(read_meta(find_dataset(store, dataset)).dataset)
    values = load_preset(preset)
    return preset, values | {"data": {**values["data"], "grid": None}}


def _as_python(values: dict[str, Any]) -> dict[str, Any]:
    """YAML's lists and texts as the tuples and paths that strict validation wants."""
    names = ("runs", "start_from")
    paths = {name: Path(values[name]) for name in names if values.get(name)}
    return {name: _tuples(value) for name, value in values.items()} | paths


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def apply_sets(values: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """``values`` with each ``name=value`` of ``sets`` put in; ``values`` is left as it was.

    Names are dotted (``optim.lr``), values are YAML (``[10, 12]``, ``null``, ``1e-3``). Where
    ``model.system`` is set to another system, of the model's settings those stay that it has too.

    Raises:
        ConfigError: no ``=``, an unknown name, a section where a setting is wanted, or bad YAML.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    for one in sorted(sets, key=lambda one: not one.startswith("model.system")):
        name, equals, text = one.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set {one}: expected name=value, for example optim.lr=1e-3")
        system = system_of(changed.get("model"))
        if name not in setting_names(system):
            inside = [known for known in setting_names(system) if known.startswith(f"{name}.")]
            if inside:
                raise ConfigError(
                    f"--set {one}: {name} is a section, set one of {', '.join(inside)}"
                )
            raise ConfigError(f"--set {one}: {_unknown(name, system)}")
        *sections, last = name.split(".")
        target = changed
        for section in sections:
            target = target.setdefault(section, {})
        try:
            target[last] = parse_yaml(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {one}: {text!r} is not a YAML value") from None
        if name == "model.system" and target[last] != system:
            changed["model"] = of_system(target[last], target)
    return changed


def config_from(kind: type[Settings], values: Mapping[str, Any], if_missing: str = "") -> Settings:
    """``values`` as a frozen config of ``kind``; numbers, booleans and texts are not mixed up.
    ``if_missing``: what the message ends with where a setting is missing.

    Raises:
        ConfigError: every problem in one message, each with its dotted name.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        system = system_of(values.get("model"))
        errors = _all_errors(error)
        said = [_explain(one, system) for one in errors if one["type"] != "missing"]
        if missing := [_name(one) for one in errors if one["type"] == "missing"]:
            said.append(_missing(missing) + if_missing)
        raise ConfigError("; ".join(said)) from None


def setting_names(system: str = DEFAULT_SYSTEM) -> list[str]:
    """The dotted name of every setting of a run that trains a model of ``system``.

    Raises:
        ConfigError: no such system.
    """
    names = []
    for name, field in TrainConfig.model_fields.items():
        kind = settings_class(system) if name == "model" else field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
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


def _all_errors(error: ValidationError, inside: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """Every single problem; those of a model's settings are found by a validation of their own."""
    found: list[dict[str, Any]] = []
    for one in error.errors():
        inner, place = one.get("ctx", {}).get("error"), (*inside, *one["loc"])
        if isinstance(inner, ValidationError):
            found += _all_errors(inner, place)
        else:
            found.append({**one, "loc": place})
    return found


def _unknown(name: str, system: str) -> str:
    known = setting_names(system)
    by_last = {one.rpartition(".")[2]: one for one in known}
    names = sorted({*known, *(one.partition(".")[0] for one in known)})
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    last = difflib.get_close_matches(name.rpartition(".")[2], list(by_last), n=1, cutoff=0.6)
    found = close or [by_last[one] for one in last]
    of = f" of {system}" if name.startswith("model.") and system != DEFAULT_SYSTEM else ""
    return f"{name} is no setting{of}" + (f" (did you mean {found[0]}?)" if found else "")


def _name(error: dict[str, Any]) -> str:
    return ".".join(str(part) for part in error["loc"])


def _missing(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} {'is' if len(names) == 1 else 'are'} missing"


def _explain(error: dict[str, Any], system: str) -> str:
    name = _name(error)
    if error["type"] == "extra_forbidden":
        return _unknown(name, system)
    found = error["input"]
    if isinstance(found, dict):  # a rule over a whole section
        return f"{name}: {error['msg'].removeprefix('Value error, ')}"
    if error["type"] == "string_pattern_mismatch":  # of ``run`` alone
        return f"{name} is {found!r}, expected a folder's name of letters, digits, _ . + and -"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name} is {found!r}, expected {expected}"
