"""Vectors of a vocabulary: spaCy's own numbers to the bit, from a pipeline or from text."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.training.initialize import convert_vectors

from trar.errors import RawDataError
from trar.features.text import Vocabulary
from trar.pipeline.vectors import cut_vectors

SAMPLE = Path(__file__).parents[1] / "data/glove/glove.6B.100d.sample.txt.gz"
KNOWN = [
    *["what", "is", "the", "do", "nt", "s", "dont", "number", "$", "can", "CLS", "PAD", "pm"],
    *["café", "they", "at"],
]
QUESTIONS = ["What's the number?", "Dont they wasn't", "is $125 at 5pm cannot café zebra"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vectors of ``KNOWN``, 6 numbers each, as GloVe's files have them."""
    table = np.random.default_rng(3).normal(scale=0.4, size=(len(KNOWN), 6))
    lines = [
        " ".join([word, *(f"{one:.5g}" for one in row)])
        for word, row in zip(KNOWN, table, strict=True)
    ]
    path = tmp_path_factory.mktemp("glove") / "glove.small.6d.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def pipeline(text: Path) -> Path:
    """The same as ``spacy init vectors`` makes of that file."""
    nlp = spacy.blank("en")
    convert_vectors(nlp, text, truncate=0, prune=-1)
    folder = text.parent / "init-vectors"
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.build({"train": QUESTIONS})


def rename(pipeline: Path, folder: Path, **meta: object) -> Path:
    shutil.copytree(pipeline, folder)
    told = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(told | meta))
    return folder


def row(cut: object, vocabulary: Vocabulary, token: str) -> np.ndarray:
    (number,) = vocabulary.encode([token])
    return cut.table[number]  # type: ignore[attr-defined]


def test_every_row_is_what_spacy_says_of_that_word(pipeline: Path, vocabulary: Vocabulary) -> None:
    cut = cut_vectors(str(pipeline), vocabulary)
    assert cut is not None
    assert (cut.table.dtype, cut.table.shape) == (np.float32, (len(vocabulary), 6))
    nlp = spacy.load(pipeline)
    for token, own in zip(vocabulary.tokens, cut.table, strict=True):
        np.testing.assert_array_equal(own, nlp(token).vector)


def test_words_that_spacy_splits_are_means(pipeline: Path, vocabulary: Vocabulary) -> None:
    """Even where the table has the whole word, as it has "dont"."""
    cut = cut_vectors(str(pipeline), vocabulary)
    vector = spacy.load(pipeline).vocab.get_vector
    for token, pieces in {
        "dont": ["do", "nt"],
        "whats": ["what", "s"],
        "$125": ["$", "125"],
        "5pm": ["5", "pm"],
        "wasnt": ["was", "nt"],
    }.items():
        expected = (vector(pieces[0]) + vector(pieces[1])) / 2
        np.testing.assert_array_equal(row(cut, vocabulary, token), expected)
    np.testing.assert_array_equal(row(cut, vocabulary, "$125"), vector("$") / 2)  # 125 is unknown


def test_specials_are_the_vectors_of_those_words(pipeline: Path, vocabulary: Vocabulary) -> None:
    cut = cut_vectors(str(pipeline), vocabulary)
    assert cut is not None
    assert cut.table[0].any()
    assert not cut.table[1].any()
    assert cut.table[2].any()


def test_text_gives_what_spacy_makes_of_it(
    text: Path, pipeline: Path, vocabulary: Vocabulary
) -> None:
    ours, spacys = (cut_vectors(str(source), vocabulary) for source in (text, pipeline))
    assert ours is not None
    assert spacys is not None
    np.testing.assert_array_equal(ours.table, spacys.table)
    assert ours.covered == spacys.covered
    assert (ours.name, ours.made_from) == ("glove.small.6d", "glove.small.6d.txt")


@given(words=st.lists(st.text(min_size=1, max_size=8), max_size=6))
def test_any_words_are_looked_up_as_spacy_does(
    text: Path, pipeline: Path, words: list[str]
) -> None:
    vocabulary = Vocabulary.build({"train": [*words, *QUESTIONS]})
    cut = cut_vectors(str(text), vocabulary)
    assert cut is not None
    nlp = _load(pipeline)
    for token, own in zip(vocabulary.tokens, cut.table, strict=True):
        np.testing.assert_array_equal(own, nlp(token).vector)


_LOADED: dict[Path, spacy.language.Language] = {}


def _load(folder: Path) -> spacy.language.Language:
    if folder not in _LOADED:
        _LOADED[folder] = spacy.load(folder)
    return _LOADED[folder]


def test_the_plain_rule_takes_words_whole(
    text: Path, pipeline: Path, vocabulary: Vocabulary
) -> None:
    vector = spacy.load(pipeline).vocab.get_vector
    for source in (text, pipeline):
        cut = cut_vectors(str(source), vocabulary, lookup="plain")
        assert cut is not None
        for token, own in zip(vocabulary.tokens, cut.table, strict=True):
            np.testing.assert_array_equal(own, vector(token))
        assert not row(cut, vocabulary, "whats").any()
        assert cut.name == f"{'glove.small.6d' if source == text else 'init-vectors'}-plain"
        assert cut.made_from.endswith(", words looked up whole")


def test_coverage_is_counted_and_told(text: Path, vocabulary: Vocabulary) -> None:
    cut = cut_vectors(str(text), vocabulary)
    assert cut is not None
    assert cut.missing == ("UNK", "zebra")
    assert cut.covered == len(vocabulary) - 2 == int(cut.table.any(1).sum())
    assert cut.summary() == (
        f"glove.small.6d.txt: 6 numbers a token, {cut.covered} of {len(vocabulary)} tokens covered "
        f"({100 * cut.covered / len(vocabulary):.1f} %)"
    )


def test_low_coverage_is_a_warning(text: Path) -> None:
    enough = Vocabulary.build({"train": ["what is the do number can café"]})
    assert cut_vectors(str(text), enough).notes == ()  # type: ignore[union-attr]
    little = Vocabulary.build({"train": ["what is quux corge grault garply"]})
    (note,) = cut_vectors(str(text), little).notes  # type: ignore[union-attr]
    assert note.startswith(
        "only 44 % of the 9 tokens have a vector in glove.small.6d.txt (none for"
    )
    assert "UNK, quux, corge, grault, garply" in note


def test_real_glove_rows(vocabulary: Vocabulary) -> None:
    cut = cut_vectors(str(SAMPLE), vocabulary)
    assert cut is not None
    assert (cut.name, cut.table.shape[1]) == ("glove.6B.100d.sample", 100)
    assert (
        row(cut, vocabulary, "the")[:3].tolist()
        == np.float32([-0.038194, -0.24487, 0.72812]).tolist()
    )
    np.testing.assert_array_equal(row(cut, vocabulary, "wasnt")[:1], np.float32([0.13717]) / 2)


def test_a_member_of_a_zip(text: Path, tmp_path: Path, vocabulary: Vocabulary) -> None:
    path = tmp_path / "glove.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(text, "glove.small.6d.txt")
        archive.write(text, "other.txt")
    cut = cut_vectors(f"{path}/glove.small.6d.txt", vocabulary)
    assert cut is not None
    assert (cut.name, cut.made_from) == ("glove.small.6d", "glove.small.6d.txt")


def test_none_is_none(vocabulary: Vocabulary) -> None:
    assert cut_vectors("none", vocabulary) is None


def test_an_installed_pipeline(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vocabulary: Vocabulary
) -> None:
    package = tmp_path / "en_small_vectors"
    rename(pipeline, package / "en_small_vectors-1.2.3", name="small_vectors", version="1.2.3")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    cut = cut_vectors("en_small_vectors", vocabulary)
    assert cut is not None
    assert (cut.name, cut.made_from) == ("en_small_vectors", "en_small_vectors 1.2.3")
    assert cut.notes == ()


@pytest.mark.parametrize(
    ("meta", "own"),
    [
        ({"name": "core_web_lg", "version": "3.8.0"}, True),
        ({"name": "core_web_md", "version": "3.4.1"}, True),
        ({"name": "core_web_lg", "version": "3.2.0"}, False),
        ({"name": "vectors_web_lg", "version": "2.1.0"}, False),
        (
            {"name": "x", "version": "9", "sources": [{"name": "Explosion Vectors (OSCAR 2109)"}]},
            True,
        ),
        ({"name": "x", "version": "9", "sources": ["OSCAR 21.09", 3]}, True),
        ({"name": "x", "version": "9", "sources": [{"name": "GloVe Common Crawl"}]}, False),
    ],
)
def test_vectors_that_are_not_glove_are_said_to_be_others(
    pipeline: Path, tmp_path: Path, vocabulary: Vocabulary, meta: dict[str, object], own: bool
) -> None:
    cut = cut_vectors(str(rename(pipeline, tmp_path / "x", **meta)), vocabulary)
    assert cut is not None
    assert cut.made_from == f"en_{meta['name']} {meta['version']}"
    assert len(cut.notes) == own
    if own:
        assert "has Explosion's own word vectors, not GloVe's; the published" in cut.notes[0]


def test_shared_vectors_are_said(tmp_path: Path, text: Path, vocabulary: Vocabulary) -> None:
    nlp = spacy.blank("en")
    convert_vectors(nlp, text, truncate=0, prune=9)
    nlp.to_disk(tmp_path / "pruned")
    cut = cut_vectors(str(tmp_path / "pruned"), vocabulary)
    assert cut is not None
    assert "pruned: 16 words share 9 vectors, so rare words" in cut.notes[0]


def test_symbols_of_an_old_spacy_are_said(
    pipeline: Path, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    folder = rename(pipeline, tmp_path / "x", name="old", spacy_version=">=2.0.0")
    cut = cut_vectors(str(folder), vocabulary)
    assert cut is not None
    assert cut.notes[0].startswith("en_old was made for spaCy >=2.0.0, which numbers some words")
    assert cut.notes[0].endswith(": number")


def test_words_that_are_not_utf8_are_said(tmp_path: Path, vocabulary: Vocabulary) -> None:
    (tmp_path / "v.txt").write_bytes(b"the 1 2\nis 1 2\n\xff 1 2\n")
    cut = cut_vectors(str(tmp_path / "v.txt"), vocabulary)
    assert cut is not None
    assert "v.txt: 1 of its 3 words are not UTF-8 and were left out" in cut.notes


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my vectors (new).txt", "my-vectors--new-"),
        ("none.vec", "none-vectors"),
        ("auto.txt", "auto-vectors"),
        (".txt", "vectors"),
        ("..vec", "vectors"),
        ("glove", "glove"),
    ],
)
def test_names_are_file_names_and_no_words_of_the_setting(
    tmp_path: Path, vocabulary: Vocabulary, file: str, name: str
) -> None:
    (tmp_path / file).write_bytes(b"the 1 2\n")
    cut = cut_vectors(str(tmp_path / file), vocabulary)
    assert cut is not None
    assert cut.name == name


def test_a_source_that_is_nothing(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for source in ("en_vectors_nowhere", str(tmp_path / "glove.txt"), "a" * 5000, "a\0b", ""):
        with pytest.raises(RawDataError, match="no such file or folder, and no installed spaCy"):
            cut_vectors(source, vocabulary)
    with pytest.raises(RawDataError, match=r"no spaCy pipeline .*take glove\.840B\.300d\.zip"):
        cut_vectors(str(tmp_path), vocabulary)


def test_a_pipeline_without_vectors(tmp_path: Path, vocabulary: Vocabulary) -> None:
    spacy.blank("en").to_disk(tmp_path / "en_core_web_sm")
    with pytest.raises(RawDataError, match=r"has no word vectors .* take glove\.840B\.300d\.zip"):
        cut_vectors(str(tmp_path / "en_core_web_sm"), vocabulary)


def test_not_one_word_is_an_error(tmp_path: Path, vocabulary: Vocabulary) -> None:
    (tmp_path / "v.txt").write_text("ki 1 2\nkicsoda 1 2\n")
    with pytest.raises(RawDataError, match=r"not one of the \d+ tokens .* \(PAD, UNK, CLS, whats"):
        cut_vectors(str(tmp_path / "v.txt"), vocabulary)
