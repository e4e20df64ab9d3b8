"""The word rule and the vocabulary."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import StoreError
from trar.features.text import CLS, PAD, SPECIALS, UNK, Vocabulary, encode_questions, tokenize

SAMPLE = Path(__file__).parents[1] / "data" / "vqa-sample"
WORDS = st.text(st.sampled_from("abAB Σİ'.-/?!\t\n$%&9"), max_size=30)


def questions(split: str) -> list[str]:
    path = SAMPLE / f"v2_OpenEnded_mscoco_{split}_questions.json"
    return [entry["question"] for entry in json.loads(path.read_text())["questions"]]


def plain_tokens(question: str) -> list[str]:
    """The rule as data-formats section 8 writes it."""
    kept = re.sub(r"([.,'!?\"()*#:;])", "", question.lower())
    return kept.replace("-", " ").replace("/", " ").split()


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        ("What's in the Man's hand?", ["whats", "in", "the", "mans", "hand"]),
        ("black-and/white: T.V. (#1)", ["black", "and", "white", "tv", "1"]),
        ("Is it $125, 5% or R&B*?", ["is", "it", "$125", "5%", "or", "r&b"]),
        ("PAD unk", ["pad", "unk"]),
        ("?!", []),
        ("", []),
    ],
)
def test_tokens_of_known_questions(question: str, tokens: list[str]) -> None:
    assert tokenize(question) == tokens


def test_tokens_of_real_questions_follow_the_plain_rule() -> None:
    for question in questions("train2014") + questions("val2014"):
        assert tokenize(question) == plain_tokens(question)


@given(WORDS | st.text(max_size=30))
def test_tokens_of_any_text_follow_the_plain_rule(text: str) -> None:
    assert tokenize(text) == plain_tokens(text)


def test_ids_follow_first_appearance_over_the_files_in_the_order_given() -> None:
    files = {"train": ["What is this?", "Is this red?"], "test": ["What colour is it?"]}
    vocabulary = Vocabulary.build(files)
    assert vocabulary.tokens == (*SPECIALS, "what", "is", "this", "red", "colour", "it")
    assert vocabulary.sources == {"train": 2, "test": 1}
    turned = Vocabulary.build(dict(reversed(files.items())))
    assert turned.tokens == (*SPECIALS, "what", "colour", "is", "it", "this", "red")
    assert turned.digest != vocabulary.digest


def test_real_vocabulary_is_the_plain_loop() -> None:
    files = {split: questions(split) for split in ("train2014", "val2014")}
    seen = list(SPECIALS)
    for texts in files.values():
        for text in texts:
            seen += [token for token in dict.fromkeys(plain_tokens(text)) if token not in seen]
    vocabulary = Vocabulary.build(files)
    assert list(vocabulary.tokens) == seen
    assert vocabulary.sources == {"train2014": 402, "val2014": 200}


def test_a_question_that_spells_a_special_gets_another_id() -> None:
    vocabulary = Vocabulary.build({"train": ["Is PAD the UNK of CLS?"]})
    assert (PAD, UNK, CLS) == (0, 1, 2)
    assert vocabulary.encode(SPECIALS) == [0, 1, 2]
    assert min(vocabulary.encode(tokenize("PAD UNK CLS"))) > CLS


def test_unknown_words_are_unk_and_counted() -> None:
    vocabulary = Vocabulary.build({"train": ["Is this red?"]})
    ids, offsets, unknown = encode_questions(vocabulary, ["Is this blue?", "?", "Blue-red"])
    assert ids.tolist() == [3, 4, UNK, UNK, 5]
    assert offsets.tolist() == [0, 3, 3, 5]
    assert unknown == 2
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)


def test_no_questions_encode_to_empty_columns() -> None:
    ids, offsets, unknown = encode_questions(Vocabulary(SPECIALS), [])
    assert (ids.shape, offsets.tolist(), unknown) == ((0,), [0], 0)
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)


@given(st.lists(WORDS, max_size=8))
def test_encoding_the_own_questions_decodes_to_their_tokens(texts: list[str]) -> None:
    vocabulary = Vocabulary.build({"train": texts})
    ids, offsets, unknown = encode_questions(vocabulary, texts)
    assert unknown == 0
    for i, text in enumerate(texts):
        row = ids[offsets[i] : offsets[i + 1]].tolist()
        assert row == vocabulary.encode(tokenize(text))
        assert vocabulary.decode(row) == tokenize(text)


def test_vocabulary_survives_json_and_pickle() -> None:
    vocabulary = Vocabulary.build({"b.json": ["Is café red?"], "a.json": []})
    back = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert back == vocabulary
    assert list(back.sources) == ["b.json", "a.json"]
    assert back.digest == vocabulary.digest
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
    assert len(back) == 6


def test_digest_is_that_of_the_canonical_token_list() -> None:
    expected = hashlib.sha256(b'["PAD","UNK","CLS"]').hexdigest()
    assert Vocabulary(SPECIALS).digest == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": ["UNK", "PAD", "CLS"]}, "first tokens must be PAD, UNK, CLS, found 'UNK'"),
        ({"tokens": []}, "found none"),
        ({"tokens": [*SPECIALS, "red", "is", "red"]}, "token 'red' stands twice, as 3 and 5"),
        ({"tokens": [*SPECIALS, 7]}, "token 3 is 7, expected text"),
        ({"tokens": [*SPECIALS, "blue"]}, "does not match its digest"),
        ({"digest": None}, "does not match its digest"),
        ({"tokens": "red"}, 'expected an object with a list "tokens"'),
        ({"sources": ["train"]}, '"sources" must map'),
    ],
)
def test_damaged_vocabulary_is_refused_with_the_reason(change: object, message: str) -> None:
    good = Vocabulary.build({"train": ["red"]}).to_json()
    with pytest.raises(StoreError) as caught:
        Vocabulary.from_json(good | change, where="v.json")  # type: ignore[operator]
    assert message in str(caught.value)
    assert str(caught.value).startswith("v.json: ")
    assert "prepare the store again" in str(caught.value)


def test_a_list_is_no_vocabulary() -> None:
    with pytest.raises(StoreError, match="found a list"):
        Vocabulary.from_json(["PAD"])
