"""Settings of a trained model that may be others when it answers: none of them changes a weight.

Pruned layers, and how hard routing weighs the windows, can so be tried on one checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from trar.errors import ConfigError
from trar.trainer.checkpoint import Checkpoint
from trar.trainer.config import TrainConfig, apply_sets, config_from, setting_names

_SWITCHES = {
    *("model.language_kept", "model.object_kept", "model.cross_kept"),
    *("model.eval_alpha", "model.eval_tau", "model.binarize", "model.kernel"),
    *("model.pool_mask", "model.empty_window"),
}


def with_switches(checkpoint: Checkpoint, sets: Sequence[str]) -> Checkpoint:
    """``checkpoint`` with each ``name=value`` of ``sets`` in its config; the file stays as it is.

    Raises:
        ConfigError: what is no switch of its model, or a value that is none of its values.
    """
    system = checkpoint.config.model.system
    known = sorted(_SWITCHES & set(setting_names(system)))
    for one in sets:
        if one.partition("=")[0].strip() not in known:
            raise ConfigError(
                f"--set {one}: nothing that {system} can change after training; "
                + (f"there are {', '.join(known)}" if known else "it has no such settings")
            )
    values = apply_sets(checkpoint.config.model_dump(mode="json"), sets)
    return dataclasses.replace(checkpoint, config=config_from(TrainConfig, values))
