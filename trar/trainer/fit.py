"""Whether a recipe fits a store: asked before any work starts."""

from __future__ import annotations

from trar.errors import ConfigError
from trar.features.reader import SCHEME, FeatureStore
from trar.trainer.config import TrainConfig
from trar.trainer.model_settings import system_of
from trar.trainer.model_sizes import check_readable
from trar.trainer.preset_files import load_preset, preset_names


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
        others = [name for name in preset_names() if _is_for(name, spec.grid, config)]
        choose = f"choose --preset {others[0]}, or " if others else ""
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


def _is_for(preset: str, grid: tuple[int, int], config: TrainConfig) -> bool:
    values = load_preset(preset)
    same = (system_of(values["model"]), values["loss"]) == (config.model.system, config.loss)
    return same and (values["data"]["grid"],) * 2 == grid
