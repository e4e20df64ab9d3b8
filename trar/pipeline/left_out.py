"""Images that cannot be read or are not there, and the questions that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from trar.errors import RawDataError
from trar.features.shard_writer import Receipt
from trar.pipeline.changes import Changes
from trar.pipeline.image_plan import ImagePlan
from trar.pipeline.plan import Plan
from trar.pipeline.question_plan import QuestionPlan

Skipped: TypeAlias = dict[str, dict[int, str]]
"""By image split: image id -> why it was left out."""

StoredSkipped: TypeAlias = Mapping[str, Mapping[str, str]]
"""The same as ``store.json`` has it: ids are text."""

_SHOWN = 5


def skipped_ids(plan: Plan, images: ImagePlan, receipts: Sequence[Receipt]) -> dict[int, str]:
    """The images of a split that its shards were written without: id -> why.

    Raises:
        RawDataError: not one image of the split is there.
    """
    left_out = {}
    for part, receipt in zip(images.parts(plan.spec), receipts, strict=True):
        own = part.images.ids[1 if part.skip_rows else 0 :]
        left_out.update({int(own[row]): why for row, why in receipt.skipped.items()})
    if len(left_out) == len(images.images):
        raise RawDataError(
            f"none of the {len(left_out)} images of {images.split} can be read; the first: "
            f"{next(iter(left_out.values()))}"
        )
    return left_out


def without_images(
    plan: Plan, questions: QuestionPlan, before: StoredSkipped, skipped: Skipped
) -> QuestionPlan:
    """The questions about images that are there.

    Raises:
        RawDataError: none is left.
    """
    keep = np.ones(len(questions.questions), np.bool_)
    for number, name in enumerate(questions.image_splits):
        left_out = [*skipped.get(name, ()), *map(int, before.get(name, ()))]
        if left_out:
            bad = np.flatnonzero(np.isin(plan.images[name].images.ids, left_out))
            keep &= ~((questions.image_split == number) & np.isin(questions.image_row, bad))
    if keep.all():
        return questions
    if not keep.any():
        raise RawDataError(f"split {questions.split!r}: all its images were left out")
    return questions.take(np.flatnonzero(keep))


def skipped_before(plan: Plan, changes: Changes) -> StoredSkipped:
    """What earlier prepares left out of image splits that stay as they are."""
    every = plan.existing.provenance.get("skipped", {}) if plan.existing else {}
    return {name: one for name, one in every.items() if name not in changes.remade_images}


def skip_warnings(plan: Plan, skipped: Skipped) -> list[str]:
    """What is said of the images left out: how many, and the first few."""
    warnings = []
    for name, images in skipped.items():
        shown = [f"{image_id}: {why}" for image_id, why in images.items()][:_SHOWN]
        more = f"; and {len(images) - len(shown)} more" if len(images) > len(shown) else ""
        warnings.append(
            f"{name}: {len(images)} images left out, with the questions about them: "
            f"{'; '.join(shown)}{more} (all are listed in {plan.folder}/store.json)"
        )
    return warnings


def all_skipped(before: StoredSkipped, now: Skipped) -> dict[str, dict[str, str]]:
    """What an earlier prepare left out and what this one did, as ``store.json`` keeps it."""
    every = {name: dict(images) for name, images in before.items()}
    for name, images in now.items():
        every.setdefault(name, {}).update({str(image_id): why for image_id, why in images.items()})
    return every
