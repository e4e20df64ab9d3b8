"""Every system of the package, small, for tests that hold all of them to the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from training import SMALL

from trar.trainer.config import TrainConfig, build_config, setting_names
from trar.trainer.models import MODELS, build_model

SYSTEMS = tuple(MODELS)
ON_REGIONS = ("mcan", "rwsan", "lxmert")
FINDS_PADDING = ("trar", "mcan", "rwsan", "lsat")  # in features of nothing; others want ``cells``
SHAPE = {"vocabulary_size": 20, "answer_count": 7, "feature_dim": 6}
_SHARED = {"width": 16, "heads": 2, "ff_width": 32}
_FRAME = {**_SHARED, "word_width": 8, "flat_hidden": 16, "flat_width": 16}
SIZES: dict[str, dict[str, Any]] = {
    "trar": {**_FRAME, "layers": 2, "grid_side": 4, "orders": (0, 1)},
    "mcan": {**_FRAME, "layers": 2},
    "rwsan": {
        **_FRAME,
        "question_repeats": 2,
        "image_repeats": 2,
        "question_rank": 2,
        "image_rank": 3,
    },
    "lsat": {**_FRAME, "layers": 2, "grid_side": 4, "window": 6, "look_forward": 0},
    "lxmert": {
        **_SHARED,
        "language_layers": 2,
        "object_layers": 2,
        "cross_layers": 2,
        "positions": 16,
        "text_tokens": 9,
        "objects": 16,
        "adaptive_span": True,
        "entmax": True,
    },
}
# Settings of a run on the tiny store, besides ``SMALL``.
_OWN: dict[str, tuple[str, ...]] = {
    "lsat": ("model.window=6",),
    "lxmert": (
        *("model.language_layers=2", "model.object_layers=2", "model.cross_layers=2"),
        *("model.text_tokens=6", "model.objects=16", "data.tokenizer=openvqa"),
    ),
}
# All that a system has to offer at once, where that is not its preset.
EVERYTHING: dict[str, tuple[str, ...]] = {
    "trar": ("model.routing=hard",),
    "lxmert": (
        *("model.adaptive_span=true", "model.entmax=true", "model.layer_drop=1"),
        *("optim.kind=lamb", "optim.lookahead_steps=5", "optim.lookahead_share=0.8"),
        *("schedule.warmup_epochs=0", "schedule.decay_epochs=[]", "schedule.kind=cyclic"),
        *("schedule.up_steps=5", "schedule.down_steps=3", "loop.clip_norm=5.0"),
    ),
}


def small_model(system: str, **changes: Any) -> torch.nn.Module:
    """In evaluation mode and float64, the same weights every time."""
    kind, _ = MODELS[system]
    torch.manual_seed(0)
    return build_model(kind(**{**SHAPE, **SIZES[system], **changes})).double().eval()


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


def inputs_for(system: str, batch: int) -> list[torch.Tensor]:
    """``batch_for``, with boxes (b, 16, 4) and sizes (b, 2) for a system that takes them."""
    inputs = list(batch_for(batch))
    if getattr(MODELS[system][1], "takes_boxes", False):
        generator = torch.Generator().manual_seed(2)
        boxes = 200 * torch.rand(batch, 16, 4, generator=generator, dtype=torch.float64)
        inputs += [boxes, torch.full((batch, 2), 200)]
    return inputs


def part_of(inputs: list[torch.Tensor], own: slice, rows: int, words: int) -> list[torch.Tensor]:
    """Some samples of ``inputs_for``, cut to so many rows and words."""
    features, question, cells, *where = inputs
    cut = [features[own, :rows], question[own, :words], cells[own, :rows]]
    return [*cut, where[0][own, :rows], where[1][own]] if where else cut


def small_run(system: str, store: Path, runs: Path, *sets: str, **more: object) -> TrainConfig:
    """The easy-VQA preset of a system cut down, then ``sets``."""
    preset = "easy-vqa" if system == "trar" else f"easy-vqa-{system}"
    known = setting_names(system)
    small = [one for one in SMALL if one.partition("=")[0] in known]
    sets = (*small, *_OWN.get(system, ()), *sets)
    return build_config(store, preset=preset, runs=str(runs), device="cpu", sets=sets, **more)
