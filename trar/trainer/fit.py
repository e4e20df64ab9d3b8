"""Whether a recipe fits a store: asked before any work starts."""

from __future__ import annotations

from collections.abc import Iterator

from trar.errors import ConfigError
from trar.features.reader import SCHEME, FeatureStore
from trar.trainer.config import TrainConfig
from trar.trainer.model_settings import system_of
from trar.trainer.model_sizes import check_readable
from trar.trainer.preset_files import default_preset, load_preset, preset_names


def check_fit(config: TrainConfig, store: FeatureStore) -> None:
    """Refuse a store that the model cannot read, features of another grid than the recipe's, and a
    loss that the answers do not allow.

    Raises:
        StoreError: what the model reads and the store does not have.
        ConfigError: what the recipe is for, what the store has, and what to change.
    """
    check_readable(config.model.system, store)
    spec = store.meta.feature
    side = config.data.grid
    if side is not None and spec.grid is not None and spec.grid != (side, side):
        other = next(_presets_for(store, config), None)
        choose = f"choose --preset {other}, or " if other else ""
        raise ConfigError(
            f"preset {config.preset} is for {side}x{side} cells, {store.path} has "
            f"{spec.describe()}; {choose}take its recipe as it is with --set data.grid=null"
        )
    rule = store.meta.answer_schemes[SCHEME].rule
    if config.loss == "ce-sum" and rule != "exact":
        raise ConfigError(
            f"loss is ce-sum, which takes one right answer a question; {store.path} has soft "
            f"targets (rule {rule}); use --set loss=bce-sum"
        )


def _presets_for(store: FeatureStore, config: TrainConfig) -> Iterator[str]:
    """Presets of the same system and loss for the store's grid, the dataset's own first."""
    own = default_preset(store.dataset)
    for name in (own, *preset_names()):
        values = load_preset(name)
        same = (system_of(values["model"]), values["loss"]) == (config.model.system, config.loss)
        side = values["data"]["grid"]
        if same and ((side, side) == store.meta.feature.grid or (name == own and side is None)):
            yield name
