"""Every system of the package, small, for tests that hold all of them to the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from training import SMALL

from trar.trainer.config import TrainConfig, build_config, setting_names
from trar.trainer.models import MODELS, build_model

SYSTEMS = ("trar", "mcan", "rwsan", "lsat")
ON_REGIONS = ("mcan", "rwsan")
SHAPE = {"vocabulary_size": 20, "answer_count": 7, "feature_dim": 6}
SIZES: dict[str, dict[str, Any]] = {
    "trar": {"layers": 2, "grid_side": 4, "orders": (0, 1)},
    "mcan": {"layers": 2},
    "rwsan": {"question_repeats": 2, "image_repeats": 2, "question_rank": 2, "image_rank": 3},
    "lsat": {"layers": 2, "grid_side": 4, "window": 6, "look_forward": 0},
}
_SHARED = {
    "width": 16,
    "heads": 2,
    "ff_width": 32,
    "word_width": 8,
    "flat_hidden": 16,
    "flat_width": 16,
}


def small_model(system: str, **changes: Any) -> torch.nn.Module:
    """In evaluation mode and float64, the same weights every time."""
    kind, _ = MODELS[system]
    torch.manual_seed(0)
    config = kind(**{**SHAPE, **_SHARED, **SIZES[system], **changes})
    return build_model(config).double().eval()


def batch_for(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (b, 16, f), questions (b, 9) and cells (b, 16): of every second image the last rows,
    and of every question other numbers of last words, are padding."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batch, 16, 6, generator=generator, dtype=torch.float64)
    question = torch.randint(1, 20, (batch, 9), generator=generator)
    words = torch.randint(1, 10, (batch,), generator=generator)
    question[torch.arange(9) >= words[:, None]] = 0
    rows = torch.randint(2, 17, (batch,), generator=generator)
    rows[::2] = 16
    cells = torch.arange(16) < rows[:, None]
    return features * cells[..., None], question, cells


def small_run(system: str, store: Path, runs: Path, *sets: str, **more: object) -> TrainConfig:
    """The easy-VQA preset of a system cut down, then ``sets``."""
    preset = "easy-vqa" if system == "trar" else f"easy-vqa-{system}"
    known = setting_names(system)
    small = [one for one in SMALL if one.partition("=")[0] in known]
    return build_config(
        store, preset=preset, runs=str(runs), device="cpu", sets=(*small, *sets), **more
    )
