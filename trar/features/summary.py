"""A store in a few lines, for ``trar-data info``."""

from __future__ import annotations

from typing import Any

import msgspec

from trar.features.reader import WORD_PIECES, FeatureStore
from trar.features.schema import StoreMeta
from trar.features.vectors import VectorsEntry
from trar.fileio import human_bytes

_RULES = {
    "vqa": "ten annotators: soft targets, official VQA accuracy",
    "raw": "ten annotators, answers counted as they stand: soft targets of LXMERT",
    "exact": "one answer: target 1.0, exact match",
    "labels": "scores as the raw file states them (LXMERT): score of the answer given",
}


def summary_rows(store: FeatureStore) -> list[tuple[str, str]]:
    """Label and text of each fact, in reading order."""
    meta, spec = store.meta, store.meta.feature
    size_bytes = sum(entry.bytes for entry in meta.files.values())
    rows = [
        (
            "store",
            f"{store.path}, {meta.container}, {len(meta.files)} files, {human_bytes(size_bytes)}",
        ),
        ("features", spec.describe()),
    ]
    for name, images in meta.image_splits.items():
        if spec.ragged:
            padding = f"{images.flat_rows:,} regions"
        else:
            share = 100 * images.masked_cells / (images.images * spec.rows)
            padding = f"{share:.1f} % of cells padding"
        left_out = len(store.skipped(name))
        rows.append(
            (
                f"images {name}",
                f"{images.images:,} in {images.shards(spec)} shards, {padding}, "
                f"largest value {images.largest_value:.4g}, "
                f"largest cast error {images.largest_cast_error:.2g}"
                + (f", {left_out:,} left out" if left_out else ""),
            )
        )
    for name, questions in meta.question_splits.items():
        answers = "labelled" if questions.labelled else questions.answers_per_question
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
        what = f"tokens from the questions of {made}"
        if tokenizer == WORD_PIECES:
            what = f"word pieces of {', '.join(words.made_from)}"
        rows.append((f"words {tokenizer}", f"{words.tokens:,} {what}; {words.digest[:12]}"))
    for scheme, entry in meta.answer_schemes.items():
        rows.append(
            (
                f"answers {scheme}",
                f"{entry.answers:,} from {', '.join(entry.made_from)} (at least "
                f"{entry.min_count} times); {entry.digest[:12]}; {_RULES[entry.rule]}",
            )
        )
    rows += [_vectors_row(vectors) for vectors in meta.vectors.values()]
    rows += _provenance(meta)
    rows.append(("fingerprint", meta.fingerprint))
    rows.append(("made by", str(meta.provenance.get("made_by", "?"))))
    return rows


def _vectors_row(vectors: VectorsEntry) -> tuple[str, str]:
    share = 100 * vectors.covered / vectors.tokens
    return (
        f"vectors {vectors.name}",
        f"{vectors.width} wide, {vectors.covered:,} of {vectors.tokens:,} tokens ({share:.1f} %), "
        f"from {vectors.made_from}; {vectors.digest[:12]}",
    )


def _provenance(meta: StoreMeta) -> list[tuple[str, str]]:
    """The raw files of each question split, with the beginning of their digests."""
    rows = []
    for split, made in meta.provenance.get("splits", {}).items():
        files = [f"{name} {entry['sha256'][:12]}" for name, entry in made["files"].items()]
        limit = f"; the first {made['limit']} images" if made.get("limit") else ""
        weight = "; answers weigh 1" if meta.weight_one(split) else ""
        rows.append((f"made from {split}", ", ".join(files) + limit + weight))
    return rows


def summary_json(store: FeatureStore) -> dict[str, Any]:
    """The store's description without its list of files."""
    return meta_json(store.meta)


def meta_json(meta: StoreMeta) -> dict[str, Any]:
    """What ``store.json`` says, the list of files replaced by their number and bytes."""
    plain: dict[str, Any] = msgspec.to_builtins(meta)
    size_bytes = sum(entry["bytes"] for entry in plain["files"].values())
    return {**plain, "files": len(plain["files"]), "bytes": size_bytes}
