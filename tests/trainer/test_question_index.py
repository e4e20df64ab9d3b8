"""The index says of every question what the store's tables say."""

from __future__ import annotations

import numpy as np
import pytest

from trar.errors import StoreError
from trar.features.questions import ANSWER_TYPES, SparseTargets
from trar.features.reader import FeatureStore
from trar.trainer.orders import OrderSettings, make_order
from trar.trainer.question_index import COLUMNS, QuestionIndex, best_labels
from trar.trainer.subsets import Selection

SPLITS = ("val", "train", "test")


def test_the_index_of_a_store_is_that_of_a_plain_loop(shared_store: FeatureStore) -> None:
    store = shared_store
    index = QuestionIndex.from_store(store, SPLITS, columns=tuple(COLUMNS))
    assert index.image_bytes == store.read("train", [0]).features[0].nbytes
    row = 0
    for split in SPLITS:
        table, tokens = store.questions(split), store.tokens(split)
        names = store.meta.question_splits[split].image_splits
        for own in range(len(table)):
            image_split = names[table.image_split[own]]
            assert index.splits[index.source[row]] == split
            assert index.image_splits[index.image_split[row]] == image_split
            assert index.image_row[row] == table.image_row[own]
            assert index.token_length[row] == tokens.offsets[own + 1] - tokens.offsets[own]
            wanted = {
                "image_split": image_split,
                "question_type": table.type_names[table.type[own]],
                "answer_type": "",
                "has_target": "false",
                "answer": None,
            }
            if split != "test":
                targets = store.targets(split)
                labels = targets.label[targets.offsets[own] : targets.offsets[own + 1]]
                wanted["answer_type"] = ANSWER_TYPES[store.answers_of(split).type[own]]
                wanted["has_target"] = "true" if len(labels) else "false"
                wanted["answer"] = store.answers.answers[labels[0]] if len(labels) else None
            for name, value in wanted.items():
                column = index.labels[name]
                code = column.codes[row]
                assert (column.names[code] if code >= 0 else None) == value, name
            row += 1
    assert len(index) == row
    counts = dict(zip(index.image_splits, index.image_counts, strict=True))
    assert counts == {name: len(store.image_ids(name)) for name in SPLITS}


def test_the_best_answer_has_the_highest_score_and_is_the_first_of_equals() -> None:
    targets = SparseTargets(
        np.array([0, 2, 2, 5]),
        np.array([7, 3, 5, 9, 4], np.int32),
        np.array([0.3, 1.0, 0.3, 0.9, 0.9], np.float32),
    )
    assert best_labels(targets).tolist() == [3, -1, 9]


def test_only_the_columns_asked_for_are_made(shared_store: FeatureStore) -> None:
    chosen = Selection.parse(where="answer_type=yes/no")
    index = QuestionIndex.from_store(shared_store, ["train"], chosen.columns)
    assert list(index.labels) == ["answer_type"]
    order = make_order(OrderSettings(selection=chosen), seed=0, batch_size=4, questions=index)
    kinds = shared_store.answers_of("train").type
    assert order.questions == np.count_nonzero(kinds == ANSWER_TYPES.index("yes/no")) > 0


def test_an_unknown_split_is_refused(shared_store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="no question split 'vg'"):
        QuestionIndex.from_store(shared_store, ["vg"])
