"""How a run differs from the published one that its preset names, told before it is trained.

What nobody has published (seeds, digests of features) is told too: it is where two honest runs
differ. What is the same in every run of ours is in docs/fidelity.md.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from trar.features.reader import SCHEME, TOKENIZER, FeatureStore
from trar.trainer.config import TrainConfig, build_config
from trar.trainer.preset_files import Published, load_preset, published_row, read_preset
from trar.trainer.word_vectors import choose_vectors

# Answer dictionaries and vocabularies of the published runs. VQA: openvqa's answer_dict.json, and
# the train, val, test and VG questions; CLEVR's are built from its questions.
_ANSWERS = {"vqa": 3129, "clevr": 28}
_VQA_ANSWERS_DIGEST = "82426aed6b0b3522ffa3471e9a480ea2c2d7beeae9da4e78127814f4d460246b"
_WORDS = {"vqa": 20573}
_WIDTHS = {"vqa": 2048, "clevr": 1024}
_VECTORS = ("en_vectors_web_lg", "glove.840B.300d")
_NOT_OF_A_RECIPE = {"store", "dataset", "preset", "run", "runs", "seed", "device", "log_steps"}
_UNKNOWN = "not published"


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
    run of its preset. ``counts`` are those of the published splits.

    Raises:
        ConfigError: the preset has no published result.
    """
    published = published_row(config.preset)
    return [
        *_settings(config),
        *_data(config, store, counts),
        *_words_and_answers(config, store),
        *_circumstances(config, store, published),
    ]


def _settings(config: TrainConfig) -> Iterator[Difference]:
    recipe = _flat(build_config(config.store, preset=config.preset).model_dump(mode="json"))
    here = _flat(config.model_dump(mode="json"))
    for name, value in recipe.items():
        if name not in _NOT_OF_A_RECIPE and here[name] != value:
            yield Difference(f"setting {name}", str(value), str(here[name]))


def _data(
    config: TrainConfig, store: FeatureStore, counts: Mapping[str, SplitCount]
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
    side, width = load_preset(config.preset)["data"]["grid"], _WIDTHS.get(meta.dataset)
    expected_features = f"{side}x{side} cells x {width}, float32"
    if width is not None and meta.feature.describe() != expected_features:
        yield Difference("features", expected_features, meta.feature.describe())
    yield Difference("bytes of the features", _UNKNOWN, f"store {meta.fingerprint}")


def _words_and_answers(config: TrainConfig, store: FeatureStore) -> Iterator[Difference]:
    meta = store.meta
    words, labels = meta.vocabularies[TOKENIZER], meta.answer_schemes[SCHEME]
    expected = _WORDS.get(meta.dataset)
    if expected not in (None, words.tokens):
        made_from = ", ".join(f"{name} ({count:,})" for name, count in words.made_from.items())
        yield Difference(
            "vocabulary",
            f"{expected:,} tokens of the train, val, test and VG question files",
            f"{words.tokens:,} tokens of {made_from}",
        )
    if labels.answers != _ANSWERS.get(meta.dataset, labels.answers):
        yield Difference("answers", f"{_ANSWERS[meta.dataset]:,}", f"{labels.answers:,}")
    elif meta.dataset == "vqa" and labels.digest != _VQA_ANSWERS_DIGEST:
        yield Difference(
            "answers",
            "answer_dict.json",
            "as many, but others or in another order (--answers FILE)",
        )
    start = choose_vectors(config, store)
    source = meta.vectors[start.name].made_from if start.name else start.note
    if not any(name in source for name in _VECTORS):
        yield Difference("word embeddings start from", _VECTORS[0], source)


def _circumstances(
    config: TrainConfig, store: FeatureStore, published: Published
) -> Iterator[Difference]:
    yield Difference("seed", f"{_UNKNOWN}, drawn at random", str(config.seed))
    yield Difference(
        "versions",
        "Python 3.7, PyTorch 1.7.1",
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
    elif store.meta.answer_schemes[SCHEME].rule == "vqa":
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
