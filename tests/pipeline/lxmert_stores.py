"""Small stores with word pieces and the labels of LXMERT beside what openvqa needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from trar.pipeline import PrepareConfig, PrepareResult, prepare

LXMERT_ORDER = Path(__file__).parents[1] / "data/lxmert/trainval_label2ans.json"


def run(raw: Path, store: Path, **settings: object) -> PrepareResult:
    """Prepare a few images."""
    config = {"limit": 30, "shard_images": 20, "workers": 0, **settings}
    return prepare(PrepareConfig(raw=raw, store=store, **config))  # type: ignore[arg-type]


def with_both(vocab: Path) -> dict[str, object]:
    """Settings that add both to a store."""
    return {
        "tokenizer": "wordpiece",
        "wordpiece_vocab": vocab,
        "targets": "lxmert",
        "answers": LXMERT_ORDER,
    }


def copied(store: Path, place: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(store, place / "s", copy_function=shutil.copy2)
    return place / "s"
