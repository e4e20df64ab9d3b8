"""Pipelines of spaCy 2 and 3 read as data: their tokenizer, their vectors, no code of theirs."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.strings import get_string_id
from spacy.vectors import Vectors

from trar.errors import RawDataError
from trar.pipeline.readers.spacy_tokenizer import Tokenizer, blank_tokenizer, saved_tokenizer
from trar.pipeline.readers.spacy_vectors import (
    Pipeline,
    find_pipeline,
    installed_folder,
    read_pipeline_vectors,
)

WORDS = ("what", "number", "root", "do", "nt", "is", "PAD", "café")
TABLE = np.random.default_rng(0).normal(size=(len(WORDS), 5)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline as spaCy 3 writes it."""
    nlp = spacy.blank("en")
    for word, vector in zip(WORDS, TABLE, strict=True):
        nlp.vocab.set_vector(word, vector)
    folder = tmp_path_factory.mktemp("spacy") / "my-vectors"
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "my-vectors"))


def write_spacy2(folder: Path, *, shift: int = 0, **meta: Any) -> Path:
    """The files of a spaCy 2 package. ``shift``: how much smaller its symbols' numbers are."""
    keys = {}
    for row, word in enumerate(WORDS):
        key = get_string_id(word)
        keys[key - shift if key < 1000 else key] = row
    (folder / "vocab").mkdir(parents=True)
    with (folder / "vocab/vectors").open("wb") as file:
        np.save(file, TABLE)
    (folder / "vocab/key2row").write_bytes(msgspec.msgpack.encode(keys))
    (folder / "vocab/strings.json").write_text(json.dumps(WORDS))
    told = {"lang": "en", "name": "vectors_web_lg", "version": "2.1.0", "pipeline": []}
    (folder / "meta.json").write_text(json.dumps({**told, "spacy_version": ">=2.1.0", **meta}))
    tokenizer = {
        "prefix_search": r"^\$",
        "suffix_search": "'$",
        "infix_finditer": "~",
        "token_match": None,
        # text, lemma and tag, by spaCy 2's numbers
        "exceptions": {"dont": [{65: "do", 73: "do"}, {65: "nt", 73: "not", 75: "RB"}]},
    }
    (folder / "tokenizer").write_bytes(msgspec.msgpack.encode(tokenizer))
    return folder


def pipeline_tokenizer(pipeline: Pipeline) -> Tokenizer:
    return saved_tokenizer(pipeline.folder, pipeline.lang)


def test_the_rows_are_those_that_spacy_finds(saved: Path) -> None:
    found = read_pipeline_vectors(find_pipeline(saved), [*WORDS, "zebra", "num"])
    assert (found.width, found.words, found.unsure) == (5, len(WORDS), ())
    nlp = spacy.load(saved)
    assert found.rows.keys() == set(WORDS)
    for word in WORDS:
        np.testing.assert_array_equal(found.rows[word], nlp.vocab.get_vector(word))


def test_what_a_pipeline_is_called(saved: Path, tmp_path: Path) -> None:
    assert find_pipeline(saved).name == "my-vectors"  # spaCy's own name of it is en_pipeline 0.0.0
    package = write_spacy2(tmp_path / "x")
    assert find_pipeline(package).name == "en_vectors_web_lg 2.1.0"


def test_an_unpacked_package_of_spacy_2(tmp_path: Path) -> None:
    outer = tmp_path / "en_vectors_web_lg-2.1.0"
    write_spacy2(outer / "en_vectors_web_lg/en_vectors_web_lg-2.1.0")
    for folder in (outer, outer / "en_vectors_web_lg"):
        pipeline = find_pipeline(folder)
        found = read_pipeline_vectors(pipeline, WORDS)
        np.testing.assert_array_equal([found.rows[word] for word in WORDS], TABLE)
        assert found.unsure == ()
        assert pipeline_tokenizer(pipeline)("dont") == ["do", "nt"]


def test_the_saved_tokenizer_is_used(tmp_path: Path) -> None:
    """It has one exception and splits at ~, unlike the one of the spaCy installed here."""
    pieces = pipeline_tokenizer(find_pipeline(write_spacy2(tmp_path / "x")))
    assert pieces("dont") == ["do", "nt"]
    assert pieces("wasnt") == ["wasnt"]
    assert pieces("a~b") == ["a", "~", "b"]
    assert blank_tokenizer()("wasnt") == ["was", "nt"]


WORDS_OF_QUESTIONS = [
    *["dont", "cant", "whats", "wasnt", "gonna", "cannot", "id", "ill", "5pm", "10am", "3rd"],
    *["$125", "%s", "&c", "a@b", "w/o", "x=y", "+1", "km2", "o'clock", "u.s.", "he's", "12:30"],
    *["é", "猫", ":)", "<3", "#1", "~5", "can't", "50%", "1,000", "--", "…", "number", "mark"],
]


def test_a_tokenizer_survives_its_file(saved: Path) -> None:
    pieces, nlp = pipeline_tokenizer(find_pipeline(saved)), spacy.load(saved)
    blank = blank_tokenizer()
    for word in WORDS_OF_QUESTIONS:
        expected = [one.text for one in nlp.make_doc(word)]
        assert pieces(word) == blank(word) == expected


def test_a_word_of_signs_takes_no_time() -> None:
    assert blank_tokenizer()("$" * 10**6) == ["$" * 10**6]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"\xc1"),
        lambda file: file.write_bytes(msgspec.msgpack.encode([1])),
        lambda file: file.write_bytes(msgspec.msgpack.encode({"segmenter": "char"})),
        lambda file: file.write_bytes(
            msgspec.msgpack.encode({"exceptions": {}, "prefix_search": r"\p{L}("})
        ),
    ],
    ids=["none", "damaged", "a list", "another kind", "of the regex module"],
)
def test_without_a_usable_tokenizer_its_languages_is_taken(copied: Path, change: Any) -> None:
    change(copied / "tokenizer")
    assert pipeline_tokenizer(find_pipeline(copied))("wasnt") == ["was", "nt"]


def test_exceptions_that_do_not_add_up_are_left_out(copied: Path) -> None:
    rules: dict[Any, Any] = {
        "abcd": [{65: "ab"}, {65: "cd"}],
        "efgh": [{65: "ef"}],
        "ijkl": [],
        "mnop": "mnop",
        "qrst": [{65: 7}],
        "uvwx": [{65: ""}, {"ORTH": "uvwx"}],
        "": [],
        7: [{65: "7"}],
    }
    (copied / "tokenizer").write_bytes(msgspec.msgpack.encode({"exceptions": rules}))
    pieces = pipeline_tokenizer(find_pipeline(copied))
    assert pieces("abcd") == ["ab", "cd"]
    for word in ("efgh", "ijkl", "mnop", "qrst", "uvwx"):
        assert pieces(word) == [word]


def test_a_bare_folder_of_vectors(tmp_path: Path) -> None:
    keys = [get_string_id(word) for word in WORDS]
    Vectors(data=TABLE, keys=keys).to_disk(tmp_path)
    pipeline = find_pipeline(tmp_path)
    found = read_pipeline_vectors(pipeline, WORDS)
    np.testing.assert_array_equal([found.rows[word] for word in WORDS], TABLE)
    assert pipeline.name == tmp_path.name
    assert pipeline_tokenizer(pipeline)("dont") == ["do", "nt"]


def test_symbols_of_an_old_spacy_get_no_vector_of_another_word(tmp_path: Path) -> None:
    """spaCy keeps some words by a small number: "number" is 432 now and was 429 in spaCy 2.0."""
    pipeline = find_pipeline(write_spacy2(tmp_path, shift=3, spacy_version=">=2.0.0"))
    found = read_pipeline_vectors(pipeline, [*WORDS, "neg", "num"])
    assert found.unsure == ("neg", "num", "number", "root")
    assert found.rows.keys() == set(WORDS) - {"number", "root"}
    assert read_pipeline_vectors(pipeline, ["what"]).unsure == ()


def test_a_small_table_of_spacy_3_is_trusted_with_its_symbols(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.vocab.set_vector("number", TABLE[0])
    nlp.to_disk(tmp_path)
    found = read_pipeline_vectors(find_pipeline(tmp_path), ["number", "num"])
    assert (found.rows.keys(), found.unsure) == ({"number"}, ())


def test_words_that_share_vectors(copied: Path) -> None:
    keys = {get_string_id(word): 0 for word in WORDS}
    (copied / "vocab/key2row").write_bytes(msgspec.msgpack.encode(keys))
    np.save(copied / "vocab/vectors.npy", TABLE[:1])
    (copied / "vocab/vectors.npy").rename(copied / "vocab/vectors")
    found = read_pipeline_vectors(find_pipeline(copied), ["what", "is"])
    assert (found.words, found.vectors) == (len(WORDS), 1)
    np.testing.assert_array_equal(found.rows["is"], found.rows["what"])


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
def test_other_floats_become_float32(copied: Path, dtype: str) -> None:
    with (copied / "vocab/vectors").open("wb") as file:
        np.save(file, np.asfortranarray(TABLE.astype(dtype)))
    row = read_pipeline_vectors(find_pipeline(copied), ["do"]).rows["do"]
    assert row.dtype == np.float32
    np.testing.assert_array_equal(row, TABLE[3].astype(dtype).astype(np.float32))


def test_an_installed_package_is_found_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "en_some_vectors"
    write_spacy2(package / "en_some_vectors-2.1.0", name="some_vectors")
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = installed_folder("en_some_vectors")
    assert folder == package
    assert find_pipeline(folder).name == "en_some_vectors 2.1.0"
    for nothing in ("en_other_vectors", "json.decoder", "sys", "../x", ""):
        assert installed_folder(nothing) is None


def hostile_npy() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 300), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("vectors", npy(np.zeros((0, 0), "f")), r"my-vectors has no word vectors .*_sm and _trf"),
        ("vectors", None, r"my-vectors has no word vectors .* take glove\.840B"),
        ("vectors", b"", r"vectors: not readable as an array \(.*\); 0 bytes: cut short"),
        ("vectors", npy(TABLE)[:200], "vectors: not readable as an array .*; 200 bytes: cut short"),
        ("vectors", hostile_npy(), "vectors: not readable as an array"),
        ("vectors", b"version https://git-lfs.github.com/spec/v1\n", "vectors: a Git LFS pointer"),
        ("vectors", npy(np.zeros((8, 5), int)), r"vectors: int64 \(8, 5\), expected a table"),
        ("vectors", npy(np.zeros(8, "f")), r"vectors: float32 \(8,\), expected a table"),
        ("vectors", npy(np.array([[{}]], object)), r"vectors: object \(1, 1\), expected a table"),
        ("vectors", npy(TABLE[:3]), r"key2row: names rows 0\.\.7, the vectors have 3"),
        ("vectors", npy(TABLE * np.nan), "vectors, row 3: NaN or infinite numbers for 'do'"),
        ("vectors", npy(TABLE.astype("f8") * 1e300), "vectors, row 3: NaN or infinite"),
        ("key2row", None, "key2row: missing; install or unpack the pipeline again"),
        ("key2row", b"\x82\x01", r"key2row: not a table from words to rows \(.*truncated"),
        ("key2row", msgspec.msgpack.encode({"a": 1}), "key2row: not a table from words to rows"),
        ("key2row", b"\xff", "key2row: not a table from words to rows"),
        ("key2row", msgspec.msgpack.encode({}), r"key2row: no words in it .*floret"),
        ("key2row", msgspec.msgpack.encode({5: -1}), r"key2row: names rows -1\.\.-1"),
        ("key2row", msgspec.msgpack.encode({5: 2**63}), r"key2row: names rows 9223372036854775808"),
    ],
)
def test_what_is_wrong_with_vectors_is_said(
    copied: Path, file: str, data: bytes | None, message: str
) -> None:
    path = copied / "vocab" / file
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RawDataError, match=message) as caught:
        read_pipeline_vectors(find_pipeline(copied), ["do"])
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"no spaCy pipeline .* and no vectors"):
        find_pipeline(tmp_path)
    write_spacy2(tmp_path / "a/b")
    write_spacy2(tmp_path / "a/c")
    with pytest.raises(RawDataError, match=r"several pipelines in it; choose one, such as .*/a/b"):
        find_pipeline(tmp_path)
    (tmp_path / "a/b/meta.json").write_bytes(b'{"lang": \xff')
    with pytest.raises(RawDataError, match=r"meta\.json: not valid JSON"):
        find_pipeline(tmp_path / "a/b")
    (tmp_path / "a/b/meta.json").write_text("[]")
    assert find_pipeline(tmp_path / "a/b").lang == "en"


@pytest.mark.parametrize("lang", ["zz", "../../x", "en.lex_attrs"])
def test_a_language_that_spacy_does_not_have(tmp_path: Path, lang: str) -> None:
    pipeline = find_pipeline(write_spacy2(tmp_path, lang=lang))
    with pytest.raises(
        RawDataError, match="no tokenizer for the language " + re.escape(repr(lang))
    ):
        pipeline_tokenizer(pipeline)


@settings(max_examples=50)
@given(
    file=st.sampled_from(["vocab/vectors", "vocab/key2row", "tokenizer", "meta.json"]),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 1000)),
)
def test_mutated_pipelines_give_vectors_or_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    file: str,
    places: list[tuple[int, int]],
    cut: int | None,
) -> None:
    folder = write_spacy2(tmp_path_factory.mktemp("fuzz") / "x")
    data = bytearray((folder / file).read_bytes())
    for place, value in places:
        data[place % len(data)] = value
    (folder / file).write_bytes(data[:cut])
    message = ""
    try:
        pipeline = find_pipeline(folder)
        found = read_pipeline_vectors(pipeline, WORDS)
        assert all(row.shape == (found.width,) for row in found.rows.values())
        assert "".join(pipeline_tokenizer(pipeline)("dont")) == "dont"
    except RawDataError as error:
        message = str(error)
    assert "\n" not in message
