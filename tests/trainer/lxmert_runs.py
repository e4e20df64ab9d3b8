"""A run of LXMERT that takes a second: two small layers a stack, and all its options."""

from __future__ import annotations

from pathlib import Path

from trar.trainer.config import TrainConfig, build_config

SMALL = (
    "model.language_layers=2",
    "model.object_layers=2",
    "model.cross_layers=2",
    "model.width=16",
    "model.heads=2",
    "model.ff_width=32",
    "model.text_tokens=6",
    "model.objects=16",
    "data.batch_size=16",
    "data.eval_batch_size=32",
    "data.tokenizer=openvqa",
    "data.targets=openvqa",
    "schedule.epochs=2",
    "schedule.up_steps=5",
    "schedule.down_steps=3",
    "optim.lr=0.01",
    "log_steps=1",
)
ALL = ("model.adaptive_span=true", "model.entmax=true", "model.layer_drop=1")


def small_lxmert(store: Path, runs: Path, *sets: str, **settings: object) -> TrainConfig:
    """The lxmert-vqa preset cut down to ``SMALL``, then ``sets``."""
    return build_config(
        store,
        preset="lxmert-vqa",
        runs=str(runs),
        device="cpu",
        split="train",
        eval_split="val",
        sets=(*SMALL, *sets),
        **settings,
    )
