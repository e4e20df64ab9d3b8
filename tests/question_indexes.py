"""Generated question indexes: a few questions about each of a few images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from trar.trainer.question_index import LabelColumn, QuestionIndex

IMAGE_BYTES = 1000
ANSWER_TYPES = ("", "yes/no", "number", "other")


def make_index(
    questions: Sequence[int], images: Sequence[int] = (30, 20), seed: int = 0
) -> QuestionIndex:
    """Question splits s0, s1, … of so many questions, about images of the splits i0, i1, …; the
    first questions are about one image each, in no order."""
    random = np.random.default_rng(seed)
    total = sum(questions)
    image = random.permutation(sum(images))[np.arange(total) % sum(images)]
    split = np.repeat(np.arange(len(images)), images)[image]
    source = np.repeat(np.arange(len(questions)), questions)
    return QuestionIndex(
        splits=tuple(f"s{number}" for number in range(len(questions))),
        source=source.astype(np.uint8),
        image_splits=tuple(f"i{number}" for number in range(len(images))),
        image_counts=tuple(images),
        image_split=split.astype(np.uint8),
        image_row=(image - np.cumsum([0, *images])[split]).astype(np.int32),
        token_length=random.integers(1, 20, total).astype(np.uint16),
        image_bytes=IMAGE_BYTES,
        labels={
            "answer_type": LabelColumn(random.integers(0, 4, total), ANSWER_TYPES),
            "answer": LabelColumn(random.integers(-1, 3, total), ("red", "two", "yes", "no")),
        },
    )


indexes = st.builds(
    make_index,
    st.lists(st.integers(1, 120), min_size=1, max_size=3),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(0, 99),
)
