"""Tables of region features: both orders of columns, plain and zipped, and every kind of damage."""

from __future__ import annotations

import base64
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.readers import region_tsv
from trar.pipeline.readers.image import Form
from trar.pipeline.readers.region_tsv import TsvImages, scan_tsv

REAL = Path(__file__).parents[1] / "data/MILVLG-rosita/regions_cut.npz"
IDS = [7, 3, 900001, 12]
BIG = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encode(values: NDArray[Any]) -> bytes:
    return base64.b64encode(np.ascontiguousarray(values).tobytes())


def lxmert_line(
    image_id: bytes | int, x: NDArray[Any], boxes: NDArray[Any], size: Sequence[int]
) -> list[bytes]:
    name = image_id if isinstance(image_id, bytes) else b"COCO_val2014_%012d" % image_id
    count = len(boxes)
    numbers = [encode(np.arange(count)), encode(np.ones(count, np.float32))] * 2
    height, width = (b"%d" % side for side in size)
    return [name, height, width, *numbers, b"%d" % count, encode(boxes), encode(x)]


def bottom_up_line(
    image_id: int, x: NDArray[Any], boxes: NDArray[Any], size: Sequence[int]
) -> list[bytes]:
    height, width = (b"%d" % side for side in size)
    return [b"%d" % image_id, width, height, b"%d" % len(boxes), encode(boxes), encode(x)]


def image(seed: int, count: int = 4, width: int = 6) -> tuple[Any, Any, tuple[int, int]]:
    rng = np.random.default_rng(seed)
    boxes = rng.random((count, 4), np.float32) * 300
    return rng.standard_normal((count, width), np.float32), boxes, (480 + seed % 9, 640)


def lines_of(ids: Sequence[int] = IDS) -> list[list[bytes]]:
    return [lxmert_line(one, *image(one, 3 + one % 5)) for one in ids]


def save(path: Path, lines: Sequence[Sequence[bytes]], end: bytes = b"\n") -> Path:
    path.write_bytes(b"".join(b"\t".join(line) + end for line in lines))
    return path


def check(images: TsvImages, ids: Sequence[int] = IDS) -> None:
    assert images.ids.tolist() == sorted(ids)
    for row, one in enumerate(sorted(ids)):
        x, boxes, size = image(one, 3 + one % 5)
        raw = images.read(row)
        np.testing.assert_array_equal(raw.features, x)
        np.testing.assert_array_equal(raw.boxes, boxes)
        assert raw.size == size
        assert images.regions(row) == len(x)


@pytest.mark.parametrize("make", [lxmert_line, bottom_up_line])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_real_regions_come_back(tmp_path: Path, make: Any, end: bytes) -> None:
    """``\\r\\n`` is how Python's csv module ends its lines."""
    real = np.load(REAL)
    columns = (real["ids"].tolist(), real["x"], real["boxes"], real["sizes"].tolist())
    lines = [make(*one) for one in zip(*columns, strict=True)]
    images = scan_tsv(save(tmp_path / "val2014_obj36.tsv", lines[::-1], end), "val2014")
    assert images.ids.tolist() == real["ids"].tolist()
    for row in range(len(images)):
        raw = images.read(row)
        assert raw.features.dtype == np.float32
        np.testing.assert_array_equal(raw.features, real["x"][row])
        np.testing.assert_array_equal(raw.boxes, real["boxes"][row])
        assert raw.size == tuple(real["sizes"][row].tolist())
        assert images.regions(row) == 12


@pytest.mark.parametrize(
    "name", [b"9", b"000000000009.jpg", b"COCO_val2014_000000000009", b"COCO_val2014_9.jpg"]
)
def test_names_of_images(tmp_path: Path, name: bytes) -> None:
    images = scan_tsv(save(tmp_path / "a.tsv", [lxmert_line(name, *image(1))]), "val2014")
    assert images.ids.tolist() == [9]


def test_header_blank_lines_and_a_last_line_without_end(tmp_path: Path) -> None:
    header = [b"img_id", b"img_h", b"img_w", b"objects_id"]
    save(tmp_path / "a.tsv", [header, *lines_of()[:2], [], [b"\r"], *lines_of()[2:]])
    data = (tmp_path / "a.tsv").read_bytes()
    (tmp_path / "a.tsv").write_bytes(data[:-1])
    images = scan_tsv(tmp_path / "a.tsv", "val2014")
    check(images)
    assert images.lines.tolist() == [3, 2, 7, 6]


@given(block=st.integers(1, 3000), head=st.integers(40, 600), crlf=st.booleans())
@BIG
def test_blocks_may_end_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, head: int, crlf: bool
) -> None:
    path = save(tmp_path / "a.tsv", lines_of(), b"\r\n" if crlf else b"\n")
    whole = scan_tsv(path, "val2014")
    with monkeypatch.context() as patch:
        patch.setattr(region_tsv, "_BLOCK_BYTES", block)
        found = scan_tsv(path, "val2014")
        patch.setattr(region_tsv, "_HEAD_BYTES", head)
        short = scan_tsv(path, "val2014")
    check(found)
    for column in ("ids", "begins", "ends", "lines", "counts"):
        assert getattr(found, column).tolist() == getattr(whole, column).tolist()
    # a head too short to hold the number of regions: it is found when the line is read
    assert short.ids.tolist() == whole.ids.tolist()
    if short.width:
        check(short)


@given(cut=st.floats(0, 1), method=st.sampled_from([None, zipfile.ZIP_STORED]))
@BIG
def test_download_that_ended_early_loses_the_last_image_only(
    tmp_path: Path, cut: float, method: int | None
) -> None:
    data = save(tmp_path / "a.tsv", lines_of()).read_bytes()
    kept = data[: round(cut * len(data))]
    path = tmp_path / "a.tsv"
    if method is None:
        path.write_bytes(kept)
    else:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a.tsv", kept)
    whole = [line + b"\n" in data for line in kept.split(b"\n") if line]
    unnamed = b"\t" not in kept.rpartition(b"\n")[2] and not kept.endswith(b"\n")
    if unnamed:
        with pytest.raises(RawDataError, match=path.name):
            scan_tsv(path, "val2014")
        return
    images = scan_tsv(path, "val2014")
    assert len(images) == len(whole)
    if len(images) == 1:
        return  # one image alone cannot be told from one of fewer channels
    for row, image_id in enumerate(images.ids.tolist()):
        position = IDS.index(image_id)
        if whole[position]:
            expected = image(image_id, 3 + image_id % 5)[0]
            np.testing.assert_array_equal(images.read(row).features, expected)
        else:
            with pytest.raises(RawDataError, match=f"line {position + 1}, image {image_id}: "):
                images.read(row)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("member", ["val2014_obj36.tsv", "mscoco_imgfeat/val2014_obj36.tsv"])
def test_table_in_a_zip(tmp_path: Path, method: int, member: str) -> None:
    path = save(tmp_path / "a.tsv", lines_of())
    with zipfile.ZipFile(tmp_path / "val2014_obj36.zip", "w", method) as archive:
        archive.writestr("mscoco_imgfeat/readme.txt", "x")
        archive.writestr("__MACOSX/._val2014_obj36.tsv", "x")
        archive.write(path, member)
    images = scan_tsv(tmp_path / "val2014_obj36.zip", "val2014")
    check(images)
    check(pickle.loads(pickle.dumps(images)))
    assert f"zip, member {member}, line 2, image 3" in images.name(0)


def test_zips_of_several_tables(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tsv", lines_of())
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(path, "f/val2014_obj36.tsv")
        archive.write(path, "f/train2014_obj36.tsv")
    check(scan_tsv(zipped, "val2014"))
    with pytest.raises(
        RawDataError, match=r"a.zip: expected one .tsv in it, .* name has test2015;"
    ):
        scan_tsv(zipped, "test2015")
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("../val2014_obj36.tsv", path.read_bytes())
        archive.writestr("/val2014_obj36.tsv", path.read_bytes())
    with pytest.raises(
        RawDataError, match=r"holds \.\./val2014_obj36.tsv, /val2014_obj36.tsv\. Un"
    ):
        scan_tsv(zipped, "val2014")
    with zipfile.ZipFile(zipped, "w"):
        pass
    with pytest.raises(RawDataError, match=r"it holds nothing\. Unpack the right one"):
        scan_tsv(zipped, "val2014")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:9], "9 columns, expected 10"),
        (lambda line: [*line, b""], "11 columns, expected 10"),
        (lambda line: [*line[:7], b"x", *line[8:]], "the number of boxes is 'x', expected a whole"),
        (lambda line: [*line[:7], b"0", *line[8:]], "0 regions of 6 channels"),
        (lambda line: [*line[:7], b"9", *line[8:]], r"letters of features, .* for 9 regions of 6"),
        (lambda line: [line[0], b"-1", *line[2:]], "the height is '-1'"),
        (lambda line: [*line[:2], b"", *line[3:]], "the width is ''"),
        (lambda line: [*line[:8], line[8][:-4], line[9]], "letters of boxes"),
        (lambda line: [*line[:8], b"*" + line[8][1:], line[9]], "boxes are not base64"),
        (lambda line: [*line[:9], b"\xff" + line[9][1:]], "features are not base64"),
        (lambda line: [*line[:9], line[9][:-1]], "letters of features"),
        (lambda line: [*line[:9], line[9][:-32]], "of another extractor"),
        (lambda line: [*line[:9], b"b'" + line[9] + b"'"], "letters of features"),
    ],
)
@pytest.mark.parametrize("position", [0, 2, 3])
def test_bad_line_is_an_error_of_its_image_alone(
    tmp_path: Path, change: Any, message: str, position: int
) -> None:
    lines = lines_of()
    lines[position] = change(lines[position])
    images = scan_tsv(save(tmp_path / "a.tsv", lines), "val2014")
    for row, image_id in enumerate(sorted(IDS)):
        if image_id == IDS[position]:
            place = f"a.tsv, line {position + 1}, image {image_id}: .*{message}"
            with pytest.raises(RawDataError, match=place):
                images.read(row)
        else:
            assert len(images.read(row).features) == images.regions(row)


def test_number_of_regions_that_no_head_says(tmp_path: Path) -> None:
    lines = lines_of()
    lines[1][7] = b"x"
    images = scan_tsv(save(tmp_path / "a.tsv", lines), "val2014")
    with pytest.raises(RawDataError, match="image 3: the number of boxes"):
        images.regions(0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no image in it: an empty file"),
        (b"\n\n", "no image in it"),
        (b"<html>", "line 1: begins with '<html>' and no tab follows, expected an image such as"),
        (b"\x00" * 100, r"line 1: begins with '\\x00.*' and no tab follows"),
        (b"x\ty\n", "line 1: begins with 'x', expected"),
        (b"9\ty\nCOCO_val2014_0000", "line 2: begins with 'COCO_val2014_0000' and no tab follows"),
        (b"9\ty\nimg_id\ty\n", "line 2: begins with 'img_id'"),
        (b"COCO_train2014_000000000009\ty\n", "an image of train2014 in the file of val2014"),
        (b"9\tx\n8\tx\nCOCO_val2014_9\tx\n", "image 9 in line 1 and again in line 3; keep one"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.tsv").write_bytes(data)
    with pytest.raises(RawDataError, match=f"a.tsv.*{message}"):
        scan_tsv(tmp_path / "a.tsv", "val2014")


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"a.tsv: missing"):
        scan_tsv(tmp_path / "a.tsv", "val2014")


def test_line_that_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = scan_tsv(save(tmp_path / "a.tsv", lines_of()), "val2014")
    monkeypatch.setattr(region_tsv, "_MAX_LINE_BYTES", 100)
    with pytest.raises(RawDataError, match=r"image 3: a line of \d+ bytes, one image may have 100"):
        images.read(0)


def test_file_cut_after_the_scan(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tsv", lines_of())
    images = scan_tsv(path, "val2014")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RawDataError, match="image 12: the file ends within this line"):
        images.read(2)


def test_unknown_size_is_none(tmp_path: Path) -> None:
    x, boxes, _ = image(9)
    images = scan_tsv(save(tmp_path / "a.tsv", [bottom_up_line(9, x, boxes, (0, 0))]), "val2014")
    assert images.read(0).size is None


def test_parts_are_small_and_keep_their_rows(tmp_path: Path) -> None:
    images = scan_tsv(save(tmp_path / "a.tsv", lines_of()), "val2014")
    part = pickle.loads(pickle.dumps(images.part(1, 3)))
    assert part.ids.tolist() == [7, 12]
    np.testing.assert_array_equal(part.read(0).features, image(7, 5)[0])
    assert part.part(1, 2).ids.tolist() == [12]
    assert len(part) == 2


def test_regions_are_no_grid(tmp_path: Path) -> None:
    images = scan_tsv(save(tmp_path / "a.tsv", lines_of()), "val2014")
    assert images.with_form(Form(None, 6)) is images
    with pytest.raises(RawDataError, match=r"a.tsv: regions with boxes, not a 6x6 grid"):
        images.with_form(Form(6))


def test_fingerprint_follows_the_data(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tsv", lines_of())
    images = scan_tsv(path, "val2014")
    assert images.fingerprint() == scan_tsv(path, "val2014").fingerprint()
    assert images.part(0, 2).fingerprint() != images.part(2, 4).fingerprint()
    assert replace(images, ids=images.ids + 1).fingerprint() != images.fingerprint()
    before = images.fingerprint()
    moved = scan_tsv(path.rename(tmp_path / "b.tsv"), "val2014")
    assert moved.fingerprint() == before
    save(tmp_path / "b.tsv", lines_of([*IDS, 5]))
    assert moved.fingerprint() != before
