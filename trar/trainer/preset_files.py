"""Presets: complete recipes as YAML, those that come with the package and files of the user's.

A preset holds settings by section. Beside them it may name a ``base`` whose settings it changes,
the result that was ``published`` for it, and a first stage that it goes on from
(``continue_from``). A file in the originals' spelling (``HIDDEN_SIZE: 512``) is translated.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from trar.errors import ConfigError
from trar.fileio import disk_errors
from trar.trainer.original_settings import is_original, translate

FALLBACK_PRESET = "vqa-soft-avg"
_PRESET_OF_DATASET = {"easy-vqa": "easy-vqa", "clevr": "clevr-hard-fc"}
SUFFIXES = (".yaml", ".yml")


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published result: ``overall`` percent on the split ``scored_on`` of ``dataset``, by
    ``parts``, and its ``source``."""

    overall: float
    scored_on: str
    source: str
    parts: dict[str, float] = {}
    dataset: str = "vqa"


class FirstStage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is trained before a preset: its own recipe on ``split`` for the first ``epochs``."""

    split: str
    epochs: int


class Preset(msgspec.Struct, frozen=True):
    """A preset with its base worked in. ``values`` are plain settings, unchecked; ``notes`` tell
    what a translated file says that has no meaning here."""

    name: str
    values: dict[str, Any]
    published: Published | None = None
    continue_from: FirstStage | None = None
    notes: tuple[str, ...] = ()


def default_preset(dataset: str) -> str:
    """The name of the preset that a dataset trains with unless told otherwise."""
    return _PRESET_OF_DATASET.get(dataset, FALLBACK_PRESET)


def preset_names() -> list[str]:
    """Every preset that comes with the package."""
    files = resources.files("trar.trainer").joinpath("presets").iterdir()
    return sorted(file.name[: -len(".yaml")] for file in files if file.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset as plain values; ``name`` as for ``read_preset``."""
    return read_preset(name).values


def read_preset(name: str) -> Preset:
    """The preset of that name, or in that file where ``name`` ends in .yaml or .yml.

    Raises:
        ConfigError: no such preset (the message lists them), not YAML, or a base that leads back
            to itself.
    """
    return _read(name, ())


def published_rows() -> dict[str, Published]:
    """The presets that have a published result, with it."""
    rows = ((name, read_preset(name).published) for name in preset_names())
    return {name: published for name, published in rows if published is not None}


def published_row(name: str) -> Published:
    """The published result of a preset.

    Raises:
        ConfigError: no such row; the message lists them.
    """
    rows = published_rows()
    if name not in rows:
        raise ConfigError(
            f"no published row {name!r}{suggest(name, list(rows))}; there are {', '.join(rows)}"
        )
    return rows[name]


def _read(name: str, derived: tuple[str, ...]) -> Preset:
    if name in derived:
        raise ConfigError(f"{name}: its base leads back to itself: {' -> '.join((*derived, name))}")
    said = _parse(name, _text_of(name))
    if is_original(said):
        translation = translate(said, where=name)
        base: str | None = translation.base
        own, notes = translation.values, translation.notes
    else:
        base, own, notes = said.pop("base", None), said, ()
    try:
        published = msgspec.convert(own.pop("published", None), Published | None)
        first = msgspec.convert(own.pop("continue_from", None), FirstStage | None)
    except msgspec.ValidationError as error:
        raise ConfigError(f"preset {name}: {error}") from None
    if base is not None:
        before = _read(str(base), (*derived, name))
        own, notes = _merged(before.values, own), (*before.notes, *notes)
        first = first or before.continue_from
    return Preset(name, own, published, first, notes)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, setting by setting inside sections; a model of another system
    takes nothing over."""
    merged = dict(base)
    for name, value in changes.items():
        before = merged.get(name)
        if isinstance(before, dict) and isinstance(value, Mapping):
            system = before.get("system", "trar")
            if value.get("system", system) != system:
                before = {}
            value = {**before, **value}
        merged[name] = value
    return merged


def _text_of(name: str) -> str:
    if name.endswith(SUFFIXES):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{path}: no such preset file")
        with disk_errors(path):
            return path.read_bytes().decode("utf-8", "replace")
    if name not in preset_names():
        raise ConfigError(
            f"no preset {name!r}{suggest(name, preset_names())}; there are "
            f"{', '.join(preset_names())}, or give a .yaml file"
        )
    folder = resources.files("trar.trainer").joinpath("presets")
    return folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise ConfigError(f"preset {name}: not YAML: {where}") from None
    if not isinstance(values, dict):
        held = "nothing" if values is None else f"a {type(values).__name__}"
        raise ConfigError(
            f"preset {name}: holds {held}, expected settings by section, for "
            "example `optim:` with `lr: 1.0e-4` under it"
        )
    return values


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
