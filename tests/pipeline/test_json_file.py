"""JSON out of files and zips: the value, or one line that says what is wrong with them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.pipeline.readers.json_file import json_members, read_json_bytes
from trar.pipeline.readers.json_records import Id, check_rows, decode_json, iterate_rows


class Row(msgspec.Struct):
    question_id: Id


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


OTHER_KINDS = {
    "empty": (b" \n", "an empty file"),
    "web page": (b"\n<!DOCTYPE html>\n<html>", "a web page, .*begins with <!DOCTYPE html>"),
    "gzip": (b"\x1f\x8b\x08\0\0", "a gzip file, expected JSON text: unpack it$"),
    "zip": (zipped({"a.json": b"{}"}), "a zip archive, .*unpack it or give it a name .* .zip$"),
    "UTF-16": ("{}".encode("utf-16"), "UTF-16 .*save it as UTF-8"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_of_files_are_named(tmp_path: Path, kind: str) -> None:
    data, message = OTHER_KINDS[kind]
    with pytest.raises(RawDataError, match=message):
        read_json_bytes(write(tmp_path / "q.json", data))


def test_missing_file_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"q.json: no such file"):
        read_json_bytes(tmp_path / "q.json")
    with pytest.raises(RawDataError, match=r"no such file"):
        read_json_bytes(tmp_path)  # a folder


def test_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", b"\xef\xbb\xbf[1]")
    assert read_json_bytes(path) == b"[1]"
    packed = write(tmp_path / "q.zip", zipped({"q.json": b"\xef\xbb\xbf[1]"}))
    assert read_json_bytes(packed) == b"[1]"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_member_of_a_zip_is_chosen_by_name(tmp_path: Path, method: int) -> None:
    members = {
        "v2_OpenEnded_mscoco_test2015_questions.json": b"[1]",
        "v2_OpenEnded_mscoco_test-dev2015_questions.json": b"[2]",
        "__MACOSX/._v2_OpenEnded_mscoco_test2015_questions.json": b"\0\0",
        "readme.txt": b"-",
    }
    path = write(tmp_path / "v2_Questions_Test_mscoco.zip", zipped(members, method))
    assert read_json_bytes(path, "test2015_questions") == b"[1]"
    assert read_json_bytes(path, "test-dev2015_questions") == b"[2]"
    assert read_json_bytes(path, next(iter(members))) == b"[1]"
    assert json_members(path) == list(members)[:2]
    with pytest.raises(RawDataError, match=r"2 of its 2 .json members fit '_questions'.*dev2015"):
        read_json_bytes(path, "_questions")


def test_only_member_is_taken_whatever_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", zipped({"folder/": b"", "folder/x.JSON": b"[7]"}))
    assert read_json_bytes(path, "train2014_questions") == b"[7]"


def test_zip_without_json_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", zipped({"x.txt": b"[7]"}))
    with pytest.raises(RawDataError, match=r"0 of its 0 .json members.*no .json member"):
        read_json_bytes(path, "x")


@pytest.mark.parametrize("name", ["../q.json", "/q.json", "a\\..\\q.json"])
def test_member_that_leads_out_of_the_zip_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.zip", zipped({name: b"[7]"}))
    with pytest.raises(RawDataError, match="leads out of the archive"):
        read_json_bytes(path)


def test_zip_that_inflates_without_bound_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"q.json": b" " * 100_000}))
    position = data.index(b"PK\x01\x02") + 24
    data[position : position + 4] = (3 << 30).to_bytes(4, "little")
    with pytest.raises(RawDataError, match=r"claims to unpack \d+ bytes to 3221225472; at most"):
        read_json_bytes(write(tmp_path / "a.zip", bytes(data)))


def test_zip_member_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"q.json": b" " * 100_000}))
    position = data.index(b"PK\x01\x02") + 20
    data[position : position + 4] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(RawDataError, match="claims 1073741824 bytes in an archive of"):
        read_json_bytes(write(tmp_path / "a.zip", bytes(data)))


def test_zip_that_lies_about_the_size_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"q.json": b"[1, 2, 3]" * 50}))
    position = data.index(b"PK\x01\x02") + 24
    for claim in (460, 100):  # 450 are there
        data[position : position + 4] = claim.to_bytes(4, "little")
        with pytest.raises(RawDataError, match=r"a.zip: .*damaged"):
            read_json_bytes(write(tmp_path / "a.zip", bytes(data)))


def test_zip_of_another_method_or_encrypted_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", zipped({"q.json": b"[1]"}, zipfile.ZIP_LZMA))
    with pytest.raises(RawDataError, match="packed by method 14, expected deflate"):
        read_json_bytes(path)
    data = bytearray(zipped({"q.json": b"[1]"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(RawDataError, match=r"not readable as a zip archive \(.*encrypted"):
        read_json_bytes(write(path, bytes(data)))


def test_not_a_zip_at_all(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match="not readable as a zip archive"):
        read_json_bytes(write(tmp_path / "a.zip", b"<html>"))


@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 800))
def test_mutated_zips_give_the_bytes_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int
) -> None:
    data = bytearray(zipped({"q.json": b'[{"question_id": 1}, {"question_id": 2}]'}))
    data[position % len(data)] = value
    path = write(tmp_path_factory.mktemp("fuzz") / "a.zip", bytes(data[:cut] or data))
    message = ""
    try:
        found = read_json_bytes(path)
    except RawDataError as error:
        message = str(error)
    else:
        assert found == b'[{"question_id": 1}, {"question_id": 2}]'
    assert not message or (message.startswith(str(path)) and message.isprintable())


BAD_VALUES = {
    "cut": (b'[{"a": 1}, {"b"', "not valid JSON .*15 bytes: cut short"),
    "NUL": (b"[1]\0\0\0", r"not valid JSON .* a NUL byte at 3 \(an interrupted copy"),
    "object": (b'{"b": 1, "a\\n": 2}', "not a file of things .*; its keys are a, b. Is it"),
    "empty object": (b"{}", "its keys are none"),
    "text": (b'"hello"', 'it begins with "hello"'),
    "nested": (b"[" * 100_000, "nested too deeply"),
    "nested inside": (b"[" + b'{"a":' * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("kind", BAD_VALUES)
def test_values_of_another_shape_are_described(tmp_path: Path, kind: str) -> None:
    data, message = BAD_VALUES[kind]
    with pytest.raises(RawDataError, match=message) as error:
        decode_json(tmp_path / "q.json", data, list[msgspec.Raw], "things")
    assert "\n" not in str(error.value)


def test_list_where_an_object_is_expected_is_described(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match="it holds a list of 3"):
        decode_json(tmp_path / "q.json", b"[1, 2, 3]", dict[str, msgspec.Raw], "things")


BAD_IDS = {
    "float": ("1.0e3", "Expected `int`, got `float`"),
    "text": ('"x"', "Expected `int`, got `str`"),
    "signed digits": ('"-1"', "Expected `int`, got `str`"),
    "Arabic digits": ('"١"', "Expected `int`, got `str`"),
    "beyond int64": ("9223372036854775808", "Expected `int` <= 9223372036854775807"),
    "far beyond": ("-1" + "0" * 30, "Expected `int` >= -9223372036854775808"),
    "true": ("true", "Expected `int`, got `bool`"),
    "null": ("null", "Expected `int`, got `null`"),
}


@pytest.mark.parametrize("kind", BAD_IDS)
def test_ids_that_are_none_name_the_record(tmp_path: Path, kind: str) -> None:
    text, message = BAD_IDS[kind]
    rows = [
        msgspec.Raw(b'{"question_id": 1}'),
        msgspec.Raw(b'{"question_id":\n %s}' % text.encode()),
    ]
    with pytest.raises(RawDataError, match=rf"q.json: record 1: {message}.*: {{\"question_id\": "):
        list(iterate_rows(tmp_path / "q.json", rows, Row))


def test_ids_of_int64_and_digits_are_accepted(tmp_path: Path) -> None:
    texts = ["-9223372036854775808", "9223372036854775807", '"000000458752"']
    rows = [msgspec.Raw(f'{{"question_id": {text}}}'.encode()) for text in texts]
    found = [int(row.question_id) for row in iterate_rows(tmp_path / "q.json", rows, Row)]
    assert found == [-(2**63), 2**63 - 1, 458752]


BAD_ROWS = {
    "not an object": (b"[1]", "Expected `object`, got `array`: \\[1\\]"),
    "not UTF-8": (b'{"question_id": "\xff"}', "not UTF-8 .*0xff"),
    "nested": (b'{"x":' + b"[" * 100_000, "maximum recursion depth"),
    "half a surrogate pair": (rb'{"question_id": "\ud800"}', "q.json: record 5"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_records_are_named_and_shown_in_one_line(tmp_path: Path, kind: str) -> None:
    data, message = BAD_ROWS[kind]
    with pytest.raises(RawDataError, match=message) as error:
        list(iterate_rows(tmp_path / "q.json", [msgspec.Raw(data)], Row, start=5))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_rows_must_be_there_and_unique(tmp_path: Path) -> None:
    check_rows(tmp_path, [3, 1, 2], ["a", "b", "a"])
    with pytest.raises(RawDataError, match="its list of questions is empty"):
        check_rows(tmp_path, [])
    with pytest.raises(RawDataError, match=r"question id 1 occurs twice \(2 repeats in all\)"):
        check_rows(tmp_path, [3, 1, 3 - 2, 1])
    with pytest.raises(RawDataError, match="65537 different question types, at most 65536"):
        check_rows(tmp_path, range(65537), [str(one) for one in range(65537)])
