"""Tables of image ids: numbers out of JSON and pickles, and never a call out of either."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trar.errors import DiskError, RawDataError
from trar.pipeline.readers import id_table
from trar.pipeline.readers.id_table import parse_image_name, read_id_table

TABLES = st.dictionaries(st.integers(0, 2**40), st.integers(0, 2**33), min_size=1, max_size=3000)


def table_of(path: Path) -> dict[int, int]:
    ids, rows = read_id_table(path, "val2014")
    assert ids.dtype == rows.dtype == np.int64
    assert (np.diff(ids) > 0).all()
    return dict(zip(ids.tolist(), rows.tolist(), strict=True))


@given(table=TABLES, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_pickle_of_any_protocol_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: dict[int, int], protocol: int
) -> None:
    path = tmp_path_factory.mktemp("ids") / "t.pkl"
    path.write_bytes(pickle.dumps(table, protocol))
    assert table_of(path) == table


@pytest.mark.parametrize(
    "data",
    [
        b"(dp0\nI262145\nI0\nsI9\nI1\ns.",  # Python 2's cPickle, which the published files are of
        b"(dp0\nL262145L\nL0L\nsL9L\nL1L\ns.",
        b"(I262145\nI0\nI9\nI1\nd.",
        b"\x80\x02}q\x01(J\x01\x00\x04\x00K\x00K\tK\x01u.",
    ],
)
def test_pickle_of_python_2_is_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.pkl").write_bytes(data)
    assert table_of(tmp_path / "t.pkl") == {262145: 0, 9: 1} == pickle.loads(data)


class Evil:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    (tmp_path / "t.pkl").write_bytes(pickle.dumps({9: 0, 10: Evil(witness)}, protocol))
    with pytest.raises(RawDataError, match=r"t.pkl: refused: it holds more than a table of numb"):
        read_id_table(tmp_path / "t.pkl", "val2014")
    assert not witness.exists()


@pytest.mark.parametrize(
    "value",
    [
        {"9": 0},
        {9: [0]},
        {9: 0.0},
        {9: None},
        {9: True},
        {9: {10: 1}},
        {(9, 10): 0},
        [9, 10],
        9,
        {np.int64(9): 0},
        {9: np.int64(0)},
    ],
)
@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_pickle_of_anything_else_is_refused(tmp_path: Path, value: Any, protocol: int) -> None:
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(RawDataError, match=r"refused: .* \(\w+ at byte \d+\).*save the table as J"):
        read_id_table(tmp_path / "t.pkl", "val2014")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"}.", "a table without any image"),
        (b"}K\tK\x00s.x", "1 bytes after its end"),
        (b"}K\tK\x00sK\tK\x01s.", "image 9 occurs twice"),
        (b"}(K\tu.", "SETITEMS at byte"),
        (b"}}.", "EMPTY_DICT at byte 1"),
        (b"}((K\tK\x00u.", "MARK at byte 2"),
        (b"}I-9\nI0\ns.", "-9 is no image id and no row"),
        (b"}L99999999999999999999L\nI0\ns.", "99999999999999999999 is no image id"),
        (b"}I01\nI0\ns.", "INT at byte 1"),
        (b"}K\tK\x00s", "not a whole pickle"),
        (b"}J\x00", "not a whole pickle"),
        (b"}\xffxx.", "not a whole pickle"),
        (b"}I9x\nI0\ns.", "not a whole pickle"),
        (b"}\x8b\xff\xff\xff\xff.", "not a whole pickle"),
        (b"}L" + b"9" * 5000 + b"L\nI0\ns.", "not a whole pickle"),
    ],
)
def test_bad_pickles(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "t.pkl").write_bytes(data)
    with pytest.raises(RawDataError, match=message):
        read_id_table(tmp_path / "t.pkl", "val2014")


@pytest.mark.parametrize(
    "value",
    [
        {"262145": 0, "9": 1},
        {"VQA_imgid2id": {"262145": 0, "9": 1}},
        {"made": "2018", "VQA_imgid2id": {"262145": 0, "9": 1}},
        {"COCO_val2014_000000262145.jpg": 0, "COCO_val2014_000000000009": 1},
    ],
)
def test_json_is_read(tmp_path: Path, value: Any) -> None:
    (tmp_path / "t.json").write_text(json.dumps(value))
    assert table_of(tmp_path / "t.json") == {262145: 0, 9: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON .*; 1 bytes: cut short or damaged"),
        ("\ufeff{}\ud800", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[9, 10]", r"holds a list, expected \{.image id.: row\}"),
        ("9", "holds a int"),
        ("{}", "a table without any image"),
        ('{"9": 0, "9": 1}', "image 9 occurs twice"),
        ('{"9": 0, "COCO_val2014_000000000009": 1}', "image 9 occurs twice"),
        ('{"9": "0"}', "entry '9': '0' is not an image id with its row"),
        ('{"9": true}', "entry '9': True"),
        ('{"9": -1}', "entry '9': -1"),
        ('{"9": 4611686018427387904}', "entry '9': 46"),
        ('{"x": 1}', "entry 'x': 1"),
        ('{"9999999999999999999": 1}', "entry '9999999999999999999'"),
        ('{"' + "x" * 999 + '": 1}', r"entry 'x+\.\.\.: 1 is"),
        ('{"9": 1' + "0" * 5000 + "}", "not valid JSON"),
        (
            '{"COCO_train2014_000000000009": 1}',
            r"an image of train2014 \(COCO_train2014_000000000009\) among those of val2014",
        ),
    ],
)
def test_bad_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RawDataError, match=message) as caught:
        read_id_table(tmp_path / "t.json", "val2014")
    assert "\n" not in str(caught.value)


def test_places_without_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RawDataError, match=r"t.pkl: missing"):
        read_id_table(tmp_path / "t.pkl", "val2014")
    with pytest.raises((RawDataError, DiskError), match="folder"):
        read_id_table(tmp_path, "val2014")
    monkeypatch.setattr(id_table, "MAX_TABLE_BYTES", 1 << 20)
    (tmp_path / "t.pkl").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(RawDataError, match=r"larger than 1 MiB, which is no table of image ids"):
        read_id_table(tmp_path / "t.pkl", "val2014")


@given(
    table=TABLES,
    as_json=st.booleans(),
    protocol=st.sampled_from([0, 2, 4]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    cut=st.booleans(),
)
def test_damage_gives_a_table_or_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[int, int],
    as_json: bool,
    protocol: int,
    place: float,
    value: int,
    cut: bool,
) -> None:
    path = tmp_path_factory.mktemp("ids") / ("t.json" if as_json else "t.pkl")
    data = json.dumps(table).encode() if as_json else pickle.dumps(table, protocol)
    at = int(place * len(data))
    path.write_bytes(data[:at] if cut else data[:at] + bytes([value]) + data[at + 1 :])
    message = ""
    try:
        table_of(path)
    except RawDataError as error:
        message = str(error)
    assert not message or (str(path) in message and "\n" not in message)
    assert message or not cut  # what is cut is always found out


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("9", (None, 9)),
        ("000000000009.jpg", (None, 9)),
        ("COCO_val2014_000000131089", ("val2014", 131089)),
        ("COCO_test2015_000000131089.jpg", ("test2015", 131089)),
        ("COCO_val2014_", None),
        ("dev-12-0-img0", None),
        ("9\n", None),
        ("٩", None),
        ("", None),
    ],
)
def test_image_names(name: str, image: tuple[str | None, int] | None) -> None:
    assert parse_image_name(name) == image
