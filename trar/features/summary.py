"""A store in a few lines, for ``trar-data info``."""

from __future__ import annotations

from typing import Any

import msgspec

from trar.features.reader import FeatureStore
from trar.fileio import human_bytes

_RULES = {
    "vqa": "ten annotators: soft targets, official VQA accuracy",
    "exact": "one answer: target 1.0, exact match",
}


def summary_rows(store: FeatureStore) -> list[tuple[str, str]]:
    """Label and text of each fact, in reading order."""
    meta, spec = store.meta, store.meta.feature
    size_bytes = sum(entry.bytes for entry in meta.files.values())
    rows = [
        ("store", f"{store.path}, {len(meta.files)} files, {human_bytes(size_bytes)}"),
        ("features", f"{spec.grid[0]}x{spec.grid[1]} cells x {spec.width}, {spec.dtype}"),
    ]
    for name, images in meta.image_splits.items():
        masked = 100 * images.masked_cells / (images.images * spec.rows)
        rows.append(
            (
                f"images {name}",
                f"{images.images:,} in {images.shards} shards, {masked:.1f} % of cells padding, "
                f"largest value {images.largest_value:.4g}, "
                f"largest cast error {images.largest_cast_error:.2g}",
            )
        )
    for name, questions in meta.question_splits.items():
        answers = questions.answers_per_question
        unknown = 100 * questions.unknown_tokens / max(1, questions.tokens)
        rows.append(
            (
                f"questions {name}",
                f"{questions.questions:,}, {answers or 'no'} answers each, longest "
                f"{questions.longest_question} words, {unknown:.2f} % unknown words, "
                f"{questions.without_target:,} without target",
            )
        )
    for tokenizer, words in meta.vocabularies.items():
        made = ", ".join(f"{name} {count:,}" for name, count in words.made_from.items())
        rows.append(
            (
                f"words {tokenizer}",
                f"{words.tokens:,} tokens from the questions of {made}; {words.digest[:12]}",
            )
        )
    for scheme, entry in meta.answer_schemes.items():
        rows.append(
            (
                f"answers {scheme}",
                f"{entry.answers:,} from {', '.join(entry.made_from)} (at least "
                f"{entry.min_count} times); {entry.digest[:12]}; {_RULES[entry.rule]}",
            )
        )
    rows.append(("fingerprint", meta.fingerprint))
    rows.append(("made by", str(meta.provenance.get("made_by", "?"))))
    return rows


def summary_json(store: FeatureStore) -> dict[str, Any]:
    """The store's description without its list of files."""
    plain: dict[str, Any] = msgspec.to_builtins(store.meta)
    size_bytes = sum(entry["bytes"] for entry in plain["files"].values())
    return {**plain, "files": len(plain["files"]), "bytes": size_bytes}
