"""Word vectors in text: the wanted rows whatever the container, or one line that says where."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import DiskError, RawDataError
from trar.pipeline.readers import packed_text
from trar.pipeline.readers.glove_text import TextVectors, read_text_vectors
from trar.pipeline.readers.packed_text import TextFile, find_text

SAMPLE = Path(__file__).parents[1] / "data/glove/glove.6B.100d.sample.txt.gz"
TEXT = b"the 1 2 3\n, -0.5 0 1e-3\nof 7 8 9\n"


def read(path: Path, *wanted: str, member: str | None = None) -> TextVectors:
    return read_text_vectors(TextFile(path, member), wanted)


def written(tmp_path: Path, data: bytes, name: str = "v.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def zipped(tmp_path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = tmp_path / "v.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_real_rows_of_glove_6b() -> None:
    lines = gzip.decompress(SAMPLE.read_bytes()).decode().splitlines()
    truth = {line.split(" ")[0]: line.split(" ")[1:] for line in lines}
    found = read(SAMPLE, *truth, "zebra")
    assert (found.width, found.words, found.undecodable) == (100, 50, 0)
    assert found.file == "glove.6B.100d.sample.txt.gz"
    assert found.rows.keys() == truth.keys()
    for word, numbers in truth.items():
        assert found.rows[word].dtype == np.float32
        np.testing.assert_array_equal(found.rows[word], np.array(numbers, np.float32))


def test_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    found = read(written(tmp_path, TEXT), "of", "zebra")
    assert {word: row.tolist() for word, row in found.rows.items()} == {"of": [7, 8, 9]}


@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        TEXT[:-1],
        b"\xef\xbb\xbf" + TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"\n", b" \n") + b"\n\n",
        b"3 3\n" + TEXT,
        b"3 3 \r\n" + TEXT.replace(b"\n", b" \r\n"),
    ],
    ids=["plain", "no line end", "BOM", "Windows", "blank ends", "word2vec", "word2vec Windows"],
)
@pytest.mark.parametrize("form", ["txt", "gz", "zip", "stored", "chosen"])
def test_every_form_gives_the_same(tmp_path: Path, data: bytes, form: str) -> None:
    if form in ("txt", "gz"):
        path = written(tmp_path, data if form == "txt" else gzip.compress(data))
        found = read(path, "the", ",", "of")
    elif form == "chosen":
        path = zipped(tmp_path, {"a/v.txt": data, "a/w.txt": b"the 5\n"})
        text = find_text(f"{path}/a/v.txt")
        assert text is not None
        found = read_text_vectors(text, ["the", ",", "of"])
    else:
        method = zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED
        path = zipped(tmp_path, {"__MACOSX/._v.txt": b"", "v.txt": data, "LICENSE": b"x"}, method)
        found = read(path, "the", ",", "of")
    assert found.file == "v.txt"
    assert (found.width, found.words) == (3, 3)
    table = np.stack([found.rows[word] for word in ("the", ",", "of")])
    np.testing.assert_array_equal(table, np.float32([[1, 2, 3], [-0.5, 0, 1e-3], [7, 8, 9]]))


def test_numbers_are_counted_from_the_right(tmp_path: Path) -> None:
    """glove.840B has words with blanks in them; what they begin with is another word."""
    lines = b". . . 1 2\nat name@domain.com 3 4\n2 5 6\nat 7 8\n"
    found = read(written(tmp_path, lines), ".", "at", "2", "...")
    assert found.width == 2
    assert {word: row.tolist() for word, row in found.rows.items()} == {"2": [5, 6], "at": [7, 8]}


def test_a_first_word_that_is_a_number_is_still_a_word(tmp_path: Path) -> None:
    found = read(written(tmp_path, b"1990 0.5 0.25\nyear 1 2\n"), "1990", "year")
    assert found.rows["1990"].tolist() == [0.5, 0.25]


def test_the_first_of_equal_words_counts(tmp_path: Path) -> None:
    found = read(written(tmp_path, b"a 1 2\na 3 4\n"), "a")
    assert found.rows["a"].tolist() == [1, 2]
    assert found.words == 2


def test_words_that_are_not_utf8_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = "caf\xe9 1 2\n".encode("latin-1") + "café 3 4\nnaïve 5 6\n".encode() + b"\xff\xfe 7 8\n"
    found = read(written(tmp_path, lines), "café", "naïve")
    assert {word: row.tolist() for word, row in found.rows.items()} == {
        "café": [3, 4],
        "naïve": [5, 6],
    }
    assert found.undecodable == 2


@given(
    table=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1),
            st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda line: line[0],
    ).filter(lambda table: not table[0][0].startswith("\ufeff")),
    block=st.integers(1, 50),
)
def test_what_was_written_is_read_whatever_the_blocks(
    table: list[tuple[str, list[float]]], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [" ".join([word, *map(repr, numbers)]) for word, numbers in table]
    path = written(tmp_path_factory.mktemp("v"), ("\n".join(lines) + "\n").encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_text, "_BLOCK_BYTES", block)
        found = read(path, *(word for word, _ in table))
    assert found.width == 3
    for word, numbers in table:
        np.testing.assert_array_equal(found.rows[word], np.array(numbers, np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "v.txt: an empty file; download it again"),
        (b"\n\n", "v.txt: an empty file"),
        (b"3 3\n", "promises 3 words, it has 0: cut short"),
        (b"<!DOCTYPE html>\n<html>\n", "first line is not a word and its numbers: b'<!DOCTYPE"),
        (b"the\t1\t2\n", r"first line is not a word and its numbers: b'the\\t1"),
        (TEXT + b"and 1 2\n", r"v.txt, line 4: 3 columns, expected a word and 3 numbers"),
        (b"9 3\n" + TEXT + b"and 1\n", r"line 5: 2 columns, expected a word and 3 numbers"),
        (b"9 3\n" + TEXT, "promises 9 words, it has 3: cut short; download it again"),
        (b"a 1 2\nwanted 1 x1\n", r"line 2: b'x1' is not a number; expected 2 numbers"),
        (b"2 2\nwanted \x00\x01 \x02\n", r"line 2: b'\\x00\\x01' is not a number"),
        (b"a 1 2\nwanted nan inf\n", "line 2: 2 of its numbers are NaN or infinite"),
        (b"a 1 2\nwanted 1 1e39\n", "line 2: 1 of its numbers are NaN or infinite"),
        (b"5 99999\nwanted 1\n", "99999 numbers a word, at most 4096 are read"),
        (b"a" * 3_000_000, "a line of more than 1.0 MiB; expected a word and its numbers"),
        (
            gzip.compress(TEXT, mtime=0)[:-9],
            r"v.txt: cannot be unpacked \(.*: cut short or damaged",
        ),
        (b"\x1f\x8b nothing", "v.txt: cannot be unpacked"),
        (b"PK\x03\x04 and no more", r"cannot be unpacked \(File is not a zip file\): cut short"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(RawDataError, match=message) as caught:
        read(written(tmp_path, data), "wanted")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "v.txt") in str(caught.value)


def test_a_number_that_is_wrong_in_a_line_nobody_wants_is_not_read(tmp_path: Path) -> None:
    assert read(written(tmp_path, b"a 1 2\nb nan x\n"), "a").words == 2


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "expected a .txt file in it once; it holds nothing"),
        ({"data.pkl": b"x", "version": b"3"}, "expected a .txt file in it once; it holds data.pkl"),
        ({"g.50d.txt": TEXT, "g.300d.txt": TEXT}, r"2 text files in it .*choose one: .*300d\.txt"),
        ({"../v.txt": TEXT}, r"a member named '\.\./v\.txt' is refused"),
        ({"/etc/v.txt": TEXT}, "a member named '/etc/v.txt' is refused"),
        ({"new\nline.txt": b""}, r"v.zip, member 'new\\nline.txt': an empty file"),
        ({"v.txt": b"a 1 2\nb 1\n"}, "v.zip, member v.txt, line 2: 2 columns"),
    ],
)
def test_zips_with_other_things_in_them(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    path = zipped(tmp_path, members)
    with pytest.raises(RawDataError, match=message) as caught:
        read(path, "the")
    assert "\n" not in str(caught.value)


def test_a_member_that_is_not_there(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"v.txt": TEXT})
    with pytest.raises(RawDataError, match=r"expected w\.txt in it once; it holds v\.txt"):
        read(path, "the", member="w.txt")
    with pytest.raises(RawDataError, match=r"no zip file, so there is no w\.txt in it"):
        read(written(tmp_path, TEXT), "the", member="w.txt")


def test_a_zip_that_is_packed_otherwise_or_encrypted(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"v.txt": TEXT}, zipfile.ZIP_LZMA)
    with pytest.raises(RawDataError, match=r"v\.txt is encrypted or packed in another way"):
        read(path, "the")
    data = bytearray(zipped(tmp_path, {"v.txt": TEXT}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(RawDataError, match=r"v\.txt is encrypted or packed in another way"):
        read(written(tmp_path, bytes(data), "v.zip"), "the")


def test_damage_inside_a_zip_is_noticed(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path, {"v.txt": TEXT}, zipfile.ZIP_STORED).read_bytes())
    place = data.index(b"7 8 9")
    data[place] = ord("6")
    with pytest.raises(RawDataError, match=r"member v\.txt: cannot be unpacked \(Bad CRC-32"):
        read(written(tmp_path, bytes(data), "v.zip"), "the")
    with pytest.raises(RawDataError, match=r"cannot be unpacked \(File is not a zip file"):
        read(written(tmp_path, bytes(data[:-30]), "v.zip"), "the")


@pytest.mark.parametrize("form", ["gz", "zip"])
def test_what_unpacks_to_far_too_much_is_refused(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_text, "_ALWAYS_ALLOWED_BYTES", 1 << 20)
    bomb = b"a 1 2\n" * 2_000_000
    if form == "gz":
        path = written(tmp_path, gzip.compress(bomb), "v.txt.gz")
    else:
        path = zipped(tmp_path, {"v.txt": bomb})
    with pytest.raises(RawDataError, match=r"unpacks to more than .*over 100 times its size"):
        read(path, "the")


def test_what_a_source_names(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"v.txt": TEXT})
    assert find_text(str(path)) == TextFile(path)
    assert find_text(f"{path}/a/v.txt") == TextFile(path, "a/v.txt")
    for nothing in (str(tmp_path), str(tmp_path / "w.txt"), "en_core_web_lg", "x" * 5000, "a\0b"):
        assert find_text(nothing) is None


def test_a_file_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"v\.txt: no such file"):
        read(tmp_path / "v.txt", "the")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, TEXT)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DiskError, match="Permission denied"):
        read(path, "the")


@given(
    form=st.sampled_from(["txt", "gz", "zip"]),
    places=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 8000),
)
def test_mutated_files_give_vectors_or_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    places: list[tuple[int, int]],
    cut: int,
) -> None:
    text = b"\n".join(gzip.decompress(SAMPLE.read_bytes()).splitlines()[:4]) + b"\n"
    if form == "gz":
        data = bytearray(gzip.compress(text, mtime=0))
    elif form == "zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("v.txt", text)
        data = bytearray(stream.getvalue())
    else:
        data = bytearray(text)
    for place, value in places:
        data[place % len(data)] = value
    path = written(tmp_path_factory.mktemp("fuzz"), bytes(data[:cut]))
    message = ""
    try:
        found = read(path, "the", ",", ".")
        assert all(row.shape == (found.width,) for row in found.rows.values())
    except RawDataError as error:
        message = str(error)
    assert not message or (str(path) in message and "\n" not in message)
