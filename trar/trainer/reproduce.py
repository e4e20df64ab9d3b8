"""How a run differs from the published one that its preset names, told before it is trained.

What nobody has published (seeds, digests of features) is told too: it is where two honest runs
differ. What is the same in every run of ours is in docs/fidelity.md.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import torch

from trar.features.reader import SCHEME, FeatureStore
from trar.trainer.config import TrainConfig, build_config
from trar.trainer.preset_files import Published, load_preset, published_row, read_preset
from trar.trainer.word_vectors import choose_vectors


class _AnswerFile(NamedTuple):
    name: str
    digest: str


# Answers of the published runs; CLEVR's are built from its questions. Of VQA's the file, by
# ``data.targets``, with our digest of its answers in their order.
_ANSWERS = {"vqa": 3129, "clevr": 28}
_VQA_ANSWERS = {
    "openvqa": _AnswerFile(
        "answer_dict.json", "82426aed6b0b3522ffa3471e9a480ea2c2d7beeae9da4e78127814f4d460246b"
    ),
    "lxmert": _AnswerFile(
        "trainval_label2ans.json",
        "4c72c5f0cdaa5da9edaa9506ed3c7c4367b97aa436a1b293e5f98395a46334d1",
    ),
}
# Vocabularies of the published runs, by dataset and ``data.tokenizer``.
_WORDS = {
    ("vqa", "openvqa"): (20573, "tokens of the train, val, test and VG question files"),
    ("vqa", "wordpiece"): (30522, "word pieces of bert-base-uncased"),
}
_WIDTHS = {"vqa": 2048, "clevr": 1024}
_VECTORS = ("en_vectors_web_lg", "glove.840B.300d")
_NOT_OF_A_RECIPE = {"store", "dataset", "preset", "run", "runs", "seed", "device", "log_steps"}
_UNKNOWN = "not published"


@dataclass(frozen=True)
class _Origin:
    """What the published runs of a system have in common: the ``regions`` of an image where it is
    no grid, their ``split`` where it is no preset's, and the ``weights`` that they start from."""

    versions: str = _UNKNOWN
    regions: str = "at most 100 regions"
    split: str | None = None
    weights: str | None = None


_ORIGINS = {
    "trar": _Origin("Python 3.7, PyTorch 1.7.1"),
    "mcan": _Origin("Python 3.5 and PyTorch 0.4.1, or later"),
    "lxmert": _Origin(
        regions="36 regions",
        split="train+nominival, scored on minival",
        weights="LXMERT's pre-training (model_LXRT.pth)",
    ),
}


@dataclass(frozen=True)
class SplitCount:
    """How many questions and images a published split has; None where nobody says."""

    questions: int | None
    images: int | None


@dataclass(frozen=True)
class Difference:
    """One point in which a run is not, or cannot be known to be, the published one."""

    what: str
    published: str
    here: str


def differences(
    config: TrainConfig, store: FeatureStore, counts: Mapping[str, SplitCount]
) -> list[Difference]:
    """Every way in which the run that ``config`` describes on ``store`` differs from the published
    run of its preset. ``counts`` are those of the splits of that run's dataset.

    Raises:
        ConfigError: the preset has no published result.
    """
    published = published_row(config.preset)
    return [
        *_dataset(published, store),
        *_settings(config),
        *_data(config, store, counts, published.dataset),
        *_words(config, store, published.dataset),
        *_answers(config, store, published.dataset),
        *_start(config, store),
        *_circumstances(config, store, published),
    ]


def _dataset(published: Published, store: FeatureStore) -> Iterator[Difference]:
    if store.dataset != published.dataset:
        yield Difference("dataset", published.dataset, store.dataset)


def _settings(config: TrainConfig) -> Iterator[Difference]:
    recipe = _flat(build_config(config.store, preset=config.preset).model_dump(mode="json"))
    here = _flat(config.model_dump(mode="json"))
    for name, value in recipe.items():
        if name not in _NOT_OF_A_RECIPE and here[name] != value:
            yield Difference(f"setting {name}", str(value), str(here[name]))


def _data(
    config: TrainConfig, store: FeatureStore, counts: Mapping[str, SplitCount], dataset: str
) -> Iterator[Difference]:
    meta = store.meta
    names = config.splits + ([config.eval_split] if config.eval_split else [])
    first = read_preset(config.preset).continue_from
    if first is not None and config.start_from is None:
        names += [name for name in first.split.split("+") if name not in names]
    for name in names:
        split, expected = meta.question_splits.get(name), counts.get(name, SplitCount(None, None))
        if split is None:
            yield Difference(f"split {name}", _number(expected.questions), "not in the store")
            continue
        if expected.questions != split.questions:
            yield Difference(
                f"questions of {name}", _number(expected.questions), f"{split.questions:,}"
            )
        images = sum(meta.image_splits[one].images for one in split.image_splits)
        if expected.images is not None and expected.images != images:
            yield Difference(f"images of {name}", _number(expected.images), f"{images:,}")
        left_out = sum(len(store.skipped(one)) for one in split.image_splits)
        if left_out:
            yield Difference(f"images of {name} left out", "none", f"{left_out:,}")
    origin = _origin(config)
    trained = f"{config.split}, scored on {config.eval_split or 'nothing'}"
    if origin.split not in (None, trained):
        yield Difference("split", origin.split, trained)
    side, width = load_preset(config.preset)["data"]["grid"], _WIDTHS.get(dataset)
    rows = f"{side}x{side} cells" if side else origin.regions
    here = meta.feature.describe()
    if width is not None and not here.startswith(f"{rows} x {width}, float32"):
        yield Difference("features", f"{rows} x {width}, float32", here)
    yield Difference("bytes of the features", _UNKNOWN, f"store {meta.fingerprint}")


def _words(config: TrainConfig, store: FeatureStore, dataset: str) -> Iterator[Difference]:
    tokenizer = config.data.tokenizer
    words = store.meta.vocabularies.get(tokenizer)
    count, what = _WORDS.get((dataset, tokenizer), (None, ""))
    if words is None:
        yield Difference("vocabulary", f"{_number(count)} {what}", f"no {tokenizer} in the store")
    elif count not in (None, words.tokens):
        made_from = ", ".join(f"{name} ({of:,})" for name, of in words.made_from.items())
        yield Difference(
            "vocabulary", f"{_number(count)} {what}", f"{words.tokens:,} tokens of {made_from}"
        )


def _answers(config: TrainConfig, store: FeatureStore, dataset: str) -> Iterator[Difference]:
    targets, count = config.data.targets, _ANSWERS.get(dataset)
    labels = store.meta.answer_schemes.get(targets)
    if labels is None:
        yield Difference("answers", f"{_number(count)} of {targets}", "none of them in the store")
    elif count not in (None, labels.answers):
        yield Difference("answers", _number(count), f"{labels.answers:,}")
    elif dataset == "vqa" and labels.digest != (file := _VQA_ANSWERS[targets]).digest:
        yield Difference(
            "answers", file.name, "as many, but others or in another order (--answers FILE)"
        )


def _start(config: TrainConfig, store: FeatureStore) -> Iterator[Difference]:
    """What the weights begin with."""
    weights = _origin(config).weights
    if weights is not None:
        if config.start_from is None:
            yield Difference(
                "weights start from", weights, "nothing (trar import, --set start_from=FILE)"
            )
        return
    start = choose_vectors(config, store)
    source = store.meta.vectors[start.name].made_from if start.name else start.note
    if not any(name in source for name in _VECTORS):
        yield Difference("word embeddings start from", _VECTORS[0], source)


def _circumstances(
    config: TrainConfig, store: FeatureStore, published: Published
) -> Iterator[Difference]:
    yield Difference("seed", f"{_UNKNOWN}, drawn at random", str(config.seed))
    yield Difference(
        "versions",
        _origin(config).versions,
        f"Python {platform.python_version()}, PyTorch {torch.__version__}",
    )
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    device = "GPU" if config.device != "cpu" and torch.cuda.is_available() else "CPU"
    if (processes, device) != (1, "GPU"):
        yield Difference("device", "1 GPU", f"{processes} {device}")
    yield Difference("last batch of an epoch", "left out where it is not full", "trained on")
    if published.scored_on != "val":
        yield Difference(
            "score", f"{published.scored_on}, by EvalAI", "none: `trar predict --split test`"
        )
    elif published.dataset == "vqa" and store.meta.answer_schemes[SCHEME].rule == "vqa":
        yield Difference(
            "rules of the score", "2016", "2021 (`trar eval --rules legacy` has those of 2016)"
        )


def report_json(
    config: TrainConfig, store: FeatureStore, found: list[Difference]
) -> dict[str, Any]:
    """What ``reproduce.json`` holds."""
    return {
        "row": config.preset,
        "published": msgspec.structs.asdict(published_row(config.preset)),
        "store": {"dataset": store.dataset, "fingerprint": store.meta.fingerprint},
        "seed": config.seed,
        "differences": [vars(one) for one in found],
    }


def _origin(config: TrainConfig) -> _Origin:
    return _ORIGINS.get(config.model.system, _Origin())


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _number(count: int | None) -> str:
    return _UNKNOWN if count is None else f"{count:,}"
