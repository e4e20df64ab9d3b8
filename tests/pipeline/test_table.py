"""A user's own table, in four forms: the same rows, or one line that says which row is wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from trar.errors import RawDataError
from trar.pipeline.readers.table import TableRows, read_table

ROWS: list[dict[str, Any]] = [
    {"image": "cat.jpg", "question": 'What, "is" it?', "answer": "None", "split": "train"},
    {"image": "cat.jpg", "question": "Line one\nline two?", "answer": "", "split": "train"},
    {"image": "b/7.png", "question": "Was ist das für ein Tier?", "answer": "NA", "split": "val"},
]

Form = str
FORMS: list[Form] = ["csv", "tsv", "semicolon", "jsonl", "parquet"]


def write(path: Path, rows: list[dict[str, Any]], form: Form = "csv") -> Path:
    """``rows``, which all have the first row's columns, in one of the forms."""
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        delimiter = {"csv": ",", "tsv": "\t", "semicolon": ";"}[form]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def text_table(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, form: Form) -> None:
    found = read_table(write(tmp_path / "any name", ROWS, form))
    assert found == TableRows(
        images=["cat.jpg", "cat.jpg", "b/7.png"],
        texts=[row["question"] for row in ROWS],
        ids=[0, 1, 2],
        answers=[("None",), ("",), ("NA",)],
        splits=["train", "train", "val"],
        types=["", "", ""],
        answer_types=["", "", ""],
    )


@pytest.mark.parametrize("form", FORMS)
def test_names_of_columns(tmp_path: Path, form: Form) -> None:
    row = {"img_id": "9", " Sent ": "What?", "LABEL": "a|b", "question_id": "5", "extra": "x"}
    row |= {"question_type": "what", "answer_type": "other"}
    found = read_table(write(tmp_path / "t", [row], form))
    assert (found.images, found.texts, found.ids) == (["9"], ["What?"], [5])
    assert found.answers == [("a|b",)]  # only a column "answers" holds several
    assert (found.types, found.answer_types, found.splits) == (["what"], ["other"], None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("yes", ("yes",)),
        ("yes|no|yes", ("yes", "no", "yes")),
        ('["a|b", "c", 2]', ("a|b", "c", "2")),
        ("yes|", ("yes", "")),
    ],
)
def test_several_answers_in_a_text(
    tmp_path: Path, form: Form, text: str, answers: tuple[str, ...]
) -> None:
    path = write(tmp_path / "t", [{"image": "1", "question": "?", "answers": text}], form)
    assert read_table(path).answers == [answers]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_lists_and_numbers(tmp_path: Path, form: Form) -> None:
    rows = [
        {"image": 7, "question": "?", "answers": ["a|b", "None"], "question_id": 2**63 - 1},
        {"image": 8, "question": "?", "answers": ["1"], "question_id": -4},
    ]
    found = read_table(write(tmp_path / "t", rows, form))
    assert found.images == ["7", "8"]
    assert found.ids == [2**63 - 1, -4]
    assert found.answers == [("a|b", "None"), ("1",)]


def test_parquet_of_dictionaries_and_large_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image_name": pa.array(["a", "b", "a"]).dictionary_encode(),
            "question_text": pa.array(["1?", "2?", "3?"], pa.large_string()),
            "answer": pa.array([3, 4, 5], pa.int8()),
            "embedding": pa.array([[0.5], [0.25], []]),
        }
    )
    parquet.write_table(table, tmp_path / "t", row_group_size=1, compression="zstd")
    found = read_table(tmp_path / "t")
    assert found.images == ["a", "b", "a"]
    assert found.texts == ["1?", "2?", "3?"]
    assert found.answers == [("3",), ("4",), ("5",)]


@pytest.mark.parametrize("form", FORMS)
def test_a_split_without_answers(tmp_path: Path, form: Form) -> None:
    none = None if form in ("jsonl", "parquet") else ""
    rows = [
        {"image": "1", "question": "?", "answer": "", "split": "train"},
        {"image": "1", "question": "?", "answer": "a", "split": "train"},
        {"image": "1", "question": "?", "answer": none, "split": "test"},
        {"image": "2", "question": "?", "answer": none, "split": "test"},
    ]
    assert read_table(write(tmp_path / "t", rows, form)).answers == [("",), ("a",), None, None]


def test_no_column_of_answers(tmp_path: Path) -> None:
    path = text_table(tmp_path / "t", "image,question\n1,?\n")
    assert read_table(path).answers == [None]


def test_byte_order_mark_blank_lines_and_line_ends(tmp_path: Path) -> None:
    path = text_table(tmp_path / "t", "\ufeffimage,question\r\n\r\n1,What?\r\n\r\n2,Who?")
    assert read_table(path).texts == ["What?", "Who?"]
    path = text_table(tmp_path / "t", '\ufeff{"image": "1", "question": "a\u2028b"}\r\n\n')
    assert read_table(path).texts == ["a\u2028b"]


def test_blanks_around_ids_and_splits(tmp_path: Path) -> None:
    path = text_table(tmp_path / "t", "image,question,question_id,split\n1,?, 03\x1c, val \n")
    assert (read_table(path).ids, read_table(path).splits) == ([3], ["val"])


def test_keys_of_jsonl_may_differ_between_records(tmp_path: Path) -> None:
    lines = ['{"image": "1", "question": "?"}', '{"sent": "!", "x": [], "image_id": 2}']
    found = read_table(text_table(tmp_path / "t", "\n".join(lines)))
    assert (found.images, found.texts) == (["1", "2"], ["?", "!"])


BAD_TEXT = {
    "empty": ("", "an empty file"),
    "header alone": ("image,question\n", "no row in it"),
    "web page": ("<html>", "a web page, expected CSV, JSONL or Parquet"),
    "JSON list": ('[{"image": 1}]', "one JSON list, .*one record a line"),
    "missing columns": (
        "picture,text,answer\n1,2,3\n",
        r"no column image \(or image_id, img_id, image_name, file_name\) and question \(or "
        r"question_text, sent\); its columns are picture, text, answer",
    ),
    "missing key": ('{"image": 1, "text": "?"}', r"t: line 1: no column question .* image, text;"),
    "two images": (
        "image,file_name,question\n1,2,3\n",
        "columns image and file_name both are for the image",
    ),
    "two of a name": ("image,question,Question\n1,2,3\n", "columns question and question both"),
    "row too short": (
        'image,question,answer\n1,"a\nb",c\n\n1,2\n',
        "t: line 5: 2 fields, its header has 3; put fields that hold a delimiter",
    ),
    "row too long": ("image,question\n1,What, then?\n", "t: line 2: 3 fields, its header has 2"),
    "quote not closed": ('image,question\n1,"?\n2,?\n', "t: line 3: unexpected end of data; a fi"),
    "quote inside": ('image,question\n1,"a" b\n', "t: line 2: .* a field with a double quote"),
    "long field": ("image,question\n1," + "a" * 140_000, "t: line 2: field larger than"),
    "NUL": ("image,question\n1,\0\n", "a NUL character at 17"),
    "empty image": ("image,question\n ,?\n", "t: line 2: its image is empty"),
    "empty question": ("image,question\n1,?\n1,\n", "t: line 3: its question is empty"),
    "null question": ('{"image": 1, "question": null}', "t: line 1: its question is empty"),
    "question is a number": ('{"image": 1, "question": 3}', "line 1: question is 3, expected text"),
    "image is a list": ('{"image": [], "question": "?"}', "image is a list, expected text"),
    "image is an object": ('{"image": {}, "question": "?"}', "image is an object, expected text"),
    "image is true": ('{"image": true, "question": "?"}', "image is True, expected text"),
    "image far too large": (f'{{"image": {10**300}, "question": "?"}}', "image is a number beyond"),
    "answer is a fraction": (
        '{"image": 1, "question": "?", "answer": 1.5}',
        "an answer is 1.5, expected text",
    ),
    "no answer in the list": (
        '{"image": 1, "question": "?", "answers": []}',
        "an empty list of answers",
    ),
    "list of answers cut": (
        'image,question,answers\n1,?,"[""a"", "\n',
        r"t: line 2: answers begin with \"\[\" but are no JSON list .*: \[\"a\",$",
    ),
    "nested answers": (
        "image,question,answers\n1,?," + "[" * 100_000,
        "t: line 2: answers begin .* recursion",
    ),
    "id is no number": ("image,question,question_id\n1,?,1.5\n", "question_id is '1.5', expected"),
    "id beyond int64": (
        f'{{"image": 1, "question": "?", "question_id": {2**63}}}',
        "question_id is a number beyond int64",
    ),
    "id empty": ("image,question,question_id\n1,?,\n", "question_id is '', expected"),
    "id twice": (
        "image,question,question_id,split\n1,?,3,a\n1,?,3,b\n1,?,03,a\n",
        "t: line 4: question id 3 occurs twice in split a",
    ),
    "id in some rows": (
        '{"image": 1, "question": "?", "question_id": 1}\n{"image": 1, "question": "?"}',
        "t: line 2: question_id is given in some rows only",
    ),
    "split in some rows": (
        '{"image": 1, "question": "?"}\n{"image": 1, "question": "?", "split": "a"}',
        "t: line 2: split is given in some rows only",
    ),
    "split empty": ("image,question,split\n1,?,\n", "split '', expected a name"),
    "split of two": ("image,question,split\n1,?,a+b\n", r"split 'a\+b', expected a name"),
    "split is a path": ("image,question,split\n1,?,../a\n", "split '../a', expected a name"),
    "answer in some rows": (
        '{"image": 1, "question": "?", "answer": "a"}\n{"image": 1, "question": "?"}',
        "t: line 2: no answer, where other questions of its split have one",
    ),
    "record over lines": ('{\n"image": 1}', "t: line 1: not a JSON object .*one record a line: {$"),
    "record is a list": ('{"image": 1, "question": "?"}\n[1]', "t: line 2: not a JSON object"),
    "nested record": ('{"image": 1, "x": ' + "[" * 100_000, "t: line 1: not a JSON .*recursion"),
    "types without end": (
        "image,question,question_type\n" + "".join(f"1,?,{n}\n" for n in range(65_537)),
        "65537 different question types, at most 65536",
    ),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_row_is_named(tmp_path: Path, case: str) -> None:
    text, message = BAD_TEXT[case]
    with pytest.raises(RawDataError, match=message) as error:
        read_table(text_table(tmp_path / "t", text))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600 + len(str(tmp_path))


def test_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes("image,question\n1,für?\n".encode("latin-1"))
    with pytest.raises(RawDataError, match=r"not UTF-8: byte 18 is 0xfc .*save it as UTF-8"):
        read_table(path)
    path.write_text("image,question\n1,?\n", encoding="utf-16")
    with pytest.raises(RawDataError, match=r"text in UTF-16 \(byte 0 is 0xff\), expected UTF-8"):
        read_table(path)
    path.write_bytes("image,question\n1,?\n".encode("utf-16-le"))
    with pytest.raises(RawDataError, match="a NUL character at 1: UTF-16, or a damaged file"):
        read_table(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"t.csv: no such file"):
        read_table(tmp_path / "t.csv")


def test_parquet_of_other_types(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for column, kind in (("image", "double"), ("question", "binary"), ("split", "bool")):
        values = {"double": [1.5], "binary": [b"?"], "bool": [True]}[kind]
        columns = {"image": ["1"], "question": ["?"]} | {column: values}
        parquet.write_table(pa.table(columns), path)
        with pytest.raises(RawDataError, match=rf"column {column} is of type {kind}, expected"):
            read_table(path)
    parquet.write_table(pa.table({"image": [["1"]], "question": ["?"]}), path)
    with pytest.raises(RawDataError, match="row 0: image is a list, expected text"):
        read_table(path)
    parquet.write_table(pa.table({"image": ["1", None], "question": ["?", "?"]}), path)
    with pytest.raises(RawDataError, match="row 1: its image is empty"):
        read_table(path)
    parquet.write_table(pa.table({"image": ["1"], "text": ["?"]}), path)
    with pytest.raises(RawDataError, match=r"no column question .*its columns are image, text"):
        read_table(path)


def test_parquet_that_claims_more_than_it_can_hold(tmp_path: Path) -> None:
    rows = 4_000_000  # all alike: run lengths make each page of them a few bytes
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int8()), pa.array(["?"]))
    columns = pa.table({"image": same, "question": same})
    with parquet.ParquetWriter(tmp_path / "t", columns.schema) as writer:
        writer.write_table(pa.concat_tables([columns] * (rows // 1000)), row_group_size=rows)
    with pytest.raises(RawDataError, match="claim to hold 4000000 rows or answers"):
        read_table(tmp_path / "t")


def test_parquet_of_answers_without_end(tmp_path: Path) -> None:
    lists = pa.array([[7] * 500_000, [7] * 500_000])
    table = pa.table({"image": ["1", "2"], "question": ["?", "?"], "answers": lists})
    parquet.write_table(table, tmp_path / "t")
    with pytest.raises(RawDataError, match="claim to hold 1000000 rows or answers"):
        read_table(tmp_path / "t")


def test_long_text_in_many_rows_of_a_parquet_is_made_once(tmp_path: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array([0, None] * 5000), pa.array(["?" * 100_000]))
    names = pa.array([str(one) for one in range(10_000)])
    table = pa.table({"image": names, "question": names, "question_type": text})
    parquet.write_table(table, tmp_path / "t")
    types = read_table(tmp_path / "t").types
    assert types == ["?" * 100_000, ""] * 5000
    assert len({id(one) for one in types}) == 2


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "t", [{"image": "1", "question": "UNMISTAKABLE"}], "parquet")
    path.write_bytes(path.read_bytes().replace(b"UNMISTAKABLE", b"UNMISTAK\xff\xfe\xfd\xfc"))
    with pytest.raises(RawDataError, match="not readable as Parquet"):
        read_table(path)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(
    st.lists(
        st.tuples(TEXT.filter(str.strip), TEXT.filter(str.strip), TEXT), min_size=1, max_size=8
    )
)
def test_any_text_comes_back_from_every_form(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("text")
    table = [dict(zip(("image", "question", "answer"), row, strict=True)) for row in rows]
    for form in FORMS:
        found = read_table(write(folder / form, table, form))
        assert found.images == [row[0] for row in rows]
        assert found.texts == [row[1] for row in rows]
        answered = any(row[2] for row in rows)
        assert found.answers == [(row[2],) if answered else None for row in rows]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@given(position=st.integers(0, 4000), value=st.binary(max_size=3), cut=st.integers(0, 4000))
def test_mutated_files_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, form: Form, position: int, value: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t"
    data = write(path, ROWS, form).read_bytes()
    position %= len(data)
    path.write_bytes((data[:position] + value + data[position + 1 :])[: cut or None])
    message = ""
    try:
        read_table(path)
    except RawDataError as error:
        message = str(error)
    assert not message or (message.isprintable() and message.startswith(str(path)))


def test_quotes_and_delimiters_survive_csv() -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow(['a"b', "c,d"])
    assert stream.getvalue() == '"a""b","c,d"\r\n'  # what read_table's message asks for
