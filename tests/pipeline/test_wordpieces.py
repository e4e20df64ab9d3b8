"""Word pieces are those of the published BERT tokenizer, with and without the library."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from piece_table import SPECIALS, pieces, sample_texts, write_vocab
from tokenizers import BertWordPieceTokenizer

from trar.errors import ConfigError, RawDataError, StoreError
from trar.features.word_pieces import WordPieces, vocabulary_from_json
from trar.pipeline.wordpieces import PieceCutter, read_word_pieces


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocab(tmp_path_factory.mktemp("vocab"))


@pytest.fixture(scope="module")
def table(vocab: Path) -> WordPieces:
    return read_word_pieces(vocab)


@pytest.fixture(scope="module")
def cutter(table: WordPieces) -> PieceCutter:
    return PieceCutter(table)


def cut(cutter: PieceCutter, text: str) -> list[int]:
    ids, offsets, _ = cutter.encode([text])
    assert offsets.tolist() == [0, len(ids)]
    return ids.tolist()


def test_questions_are_cut_as_the_published_tokenizer_cuts_them(
    vocab: Path, cutter: PieceCutter
) -> None:
    texts = [*sample_texts(), "Café 中中 naïve\u00a0?", "", " ", "\tTAB\x07 bell", "z", "a" * 101]
    published = BertWordPieceTokenizer(str(vocab))
    ids, offsets, unknown = cutter.encode(texts)
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)
    for row, text in enumerate(texts):
        assert ids[offsets[row] : offsets[row + 1]].tolist() == published.encode(text).ids
    assert unknown == int((ids == SPECIALS.index("[UNK]")).sum()) > 0


def test_a_question_is_cut_into_the_longest_pieces(table: WordPieces, cutter: PieceCutter) -> None:
    assert table.decode(cut(cutter, "What's theball?")) == [
        *("[CLS]", "what", "'", "s", "the", "##ball", "?", "[SEP]")
    ]


def test_specials_that_a_question_spells_are_text(table: WordPieces, cutter: PieceCutter) -> None:
    assert table.decode(cut(cutter, "is [SEP] it")) == [
        *("[CLS]", "is", "[", "s", "##e", "##p", "]", "it", "[SEP]")
    ]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_texts_are_cut_the_same_without_the_library(
    table: WordPieces, cutter: PieceCutter, text: str
) -> None:
    assert table.cut_ascii(text) == cut(cutter, text)


def test_other_texts_are_not_cut_without_the_library(table: WordPieces) -> None:
    assert table.cut_ascii("café") is None


def test_a_cased_table_keeps_capitals(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, "What", "what"]) + "\n")
    table = read_word_pieces(path)
    assert not table.rule.lowercase
    assert table.decode(cut(PieceCutter(table), "What what")) == [
        *("[CLS]", "What", "what", "[SEP]")
    ]
    assert table.cut_ascii("What what") == cut(PieceCutter(table), "What what")


def test_a_tokenizer_json_gives_the_same_pieces(
    vocab: Path, table: WordPieces, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    BertWordPieceTokenizer(str(vocab)).save(str(path))
    same = read_word_pieces(path)
    assert (same.tokens, same.rule) == (table.tokens, table.rule)
    assert same.digest == table.digest
    assert same.sources == {"tokenizer.json": len(table)}


def test_a_stored_table_cuts_as_the_one_it_was(table: WordPieces, cutter: PieceCutter) -> None:
    stored = vocabulary_from_json(json.loads(json.dumps(table.to_json())))
    assert stored == table
    assert isinstance(stored, WordPieces)
    again, _, _ = PieceCutter(stored).encode(sample_texts())
    assert np.array_equal(again, cutter.encode(sample_texts())[0])
    table.cut_ascii("what")
    assert pickle.loads(pickle.dumps(table)) == table
    assert table.encode(["what", "no piece"]) == [table.tokens.index("what"), 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda said: said["tokens"].append("##qq"), "do not match their digest"),
        (lambda said: said["rule"].update(lowercase=False), "do not match their digest"),
        (lambda said: said.update(tokens=7), "no table of word pieces"),
        (lambda said: said["tokens"].insert(0, "first"), "but it is 1"),
    ],
)
def test_a_stored_table_that_was_changed_is_refused(
    table: WordPieces, change: object, says: str
) -> None:
    said = json.loads(json.dumps(table.to_json()))
    change(said)  # type: ignore[operator]
    with pytest.raises(StoreError, match=says):
        vocabulary_from_json(said, where="vocabulary-wordpiece.json")


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (pieces()[1:], r"expected \[PAD\] to be 0.*but there is none"),
        (["a", *pieces()], r"expected \[PAD\] to be 0.*but it is 1"),
        ([one for one in pieces() if one != "[SEP]"], r"no \[SEP\] among its"),
        ([*pieces(), "what"], "'what' stands twice"),
    ],
)
def test_a_table_that_models_cannot_read_is_refused(
    tmp_path: Path, tokens: list[str], says: str
) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokens))
    with pytest.raises(RawDataError, match=f"{says}.*give the vocab.txt or tokenizer.json of"):
        read_word_pieces(path)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("normalizer", None, "its normalizer is none, expected BertNormalizer"),
        ("normalizer", {"type": "NFC"}, "its normalizer is NFC"),
        ("pre_tokenizer", {"type": "ByteLevel"}, "its pre-tokenizer is ByteLevel"),
        ("model", {"type": "BPE", "vocab": {}}, "its model is BPE, expected WordPiece"),
        ("model", {"type": "Unigram", "vocab": [["a", 0.5]]}, "its model is Unigram"),
        ("model", {"type": "WordPiece", "vocab": {"[PAD]": 0, "a": 2}}, "ids are not 0 to 1"),
        ("model", 7, "no tokenizer.json of BERT"),
    ],
)
def test_another_kind_of_tokenizer_is_refused(
    vocab: Path, tmp_path: Path, part: str, value: object, says: str
) -> None:
    path = tmp_path / "tokenizer.json"
    BertWordPieceTokenizer(str(vocab)).save(str(path))
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    with pytest.raises(RawDataError, match=says):
        read_word_pieces(path)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"--wordpiece-vocab .*v\.txt: no such file"):
        read_word_pieces(tmp_path / "v.txt")
    (tmp_path / "v.bin").write_bytes(b"\xff\xfe")
    with pytest.raises(RawDataError, match="not UTF-8 text"):
        read_word_pieces(tmp_path / "v.bin")


def test_a_missing_library_is_named(table: WordPieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'trar\[lxmert\]'"):
        PieceCutter(table)
