"""Feature arrays out of files: the right array, or one line that names file and member."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trar.errors import RawDataError
from trar.pipeline.readers.arrays import count_regions, orient_regions
from trar.pipeline.readers.image import Form, RawImage
from trar.pipeline.readers.image_file import read_image
from trar.pipeline.readers.raw_file import PlainFile

SAMPLE = Path(__file__).parents[1] / "data/MILVLG-rosita/COCO_val2014_000000058350.jpg.npz"
GRID = Form(8)
REGIONS = Form(None, 2048)
UNKNOWN = Form(None)


def values(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(len(shape)).random(shape, np.float32)


def saved(tmp_path: Path, *array: Any, **arrays: Any) -> PlainFile:
    """A ``.npz`` of the named arrays, or a ``.npy``."""
    path = tmp_path / ("9.npz" if arrays else "9.npy")
    if arrays:
        np.savez(path, **arrays)
    else:
        np.save(path, *array)
    return PlainFile(path)


def header(text: str, version: int = 1) -> bytes:
    """The first bytes of a ``.npy`` with this header."""
    size_bytes = 2 if version == 1 else 4
    body = text.encode().ljust(118, b" ") + b"\n"
    size = len(body).to_bytes(size_bytes, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + body


def fake(descr: str = "'<f4'", shape: str = "(64, 5)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def test_real_region_file() -> None:
    for form in (REGIONS, UNKNOWN):
        image = read_image(PlainFile(SAMPLE), form)
        assert image.features.shape == (6, 2048)
        assert image.features.dtype == np.float32
        assert float(image.features.sum()) == pytest.approx(6774.06, abs=0.01)
        assert image.boxes is not None
        np.testing.assert_allclose(image.boxes[0], [323.28793, 269.55133, 430.92242, 383.539])
        assert image.size == (480, 640)
        assert count_regions(PlainFile(SAMPLE), form) == 6


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("form", [Form(None, 20), UNKNOWN])
def test_bottom_up_files(
    tmp_path: Path, transposed: bool, save: Callable[..., None], form: Form
) -> None:
    x, boxes = values(36, 20), values(36, 4)  # more regions than channels: the boxes tell
    path = tmp_path / "9.npz"
    save(
        path,
        info=np.array({"objects": [1]}, object),
        bbox=boxes,
        x=x.T if transposed else x,
        num_bbox=np.int64(36),
        image_h=np.int64(427),
        image_w=np.array([640.0]),
        image_h_inner=np.int64(1),
    )
    image = read_image(PlainFile(path), form)
    np.testing.assert_array_equal(image.features, x)
    np.testing.assert_array_equal(image.boxes, boxes)
    assert image.size == (427, 640)
    assert count_regions(PlainFile(path), form) == 36


@pytest.mark.parametrize("names", [("image_height", "image_width"), ("img_h", "img_w")])
def test_other_names_of_the_size(tmp_path: Path, names: tuple[str, str]) -> None:
    file = saved(tmp_path, feat=values(3, 2048), **{names[0]: np.int32(5), names[1]: np.uint16(7)})
    assert read_image(file, REGIONS).size == (5, 7)


@pytest.mark.parametrize(
    "sizes", [{"image_h": 5}, {"image_h": 5, "image_w": "7"}, {"image_h": [5, 6], "image_w": 7}]
)
def test_half_a_size_is_none(tmp_path: Path, sizes: dict[str, Any]) -> None:
    assert read_image(saved(tmp_path, x=values(3, 2048), **sizes), REGIONS).size is None


@pytest.mark.parametrize("height", [0, -5, np.nan, np.inf, 1 << 40])
def test_impossible_sizes(tmp_path: Path, height: float) -> None:
    file = saved(tmp_path, x=values(3, 2048), image_h=height, image_w=640)
    with pytest.raises(RawDataError, match=r"9\.npz: image_h .* and image_w 640, expected sizes"):
        read_image(file, REGIONS)


def test_clevr_file_in_fortran_order(tmp_path: Path) -> None:
    x = np.asfortranarray(values(196, 24))
    for file in (saved(tmp_path, x=x), saved(tmp_path, x)):
        image = read_image(file, Form(14))
        np.testing.assert_array_equal(image.features, x)
        assert (image.boxes, image.size) == (None, None)


@pytest.mark.parametrize("shape", [(64, 5), (5, 64), (5, 8, 8)])
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_grids_are_given_as_they_stand(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    x = values(*shape).astype(dtype)
    for file in (saved(tmp_path, x=x, boxes=values(3, 4)), saved(tmp_path, x)):
        image = read_image(file, GRID)
        np.testing.assert_array_equal(image.features, x)
        assert image.features.dtype == np.dtype(dtype)
        assert image.boxes is None


@pytest.mark.parametrize("name", ["x", "features", "feature", "image_features", "feat", "arr_0"])
def test_features_are_found_by_name(tmp_path: Path, name: str) -> None:
    arrays = {"a": values(7, 2048), name: values(3, 2048) + 1, "z": values(7, 2048)}
    np.testing.assert_array_equal(
        read_image(saved(tmp_path, **arrays), REGIONS).features, arrays[name]
    )


def test_first_fitting_float_array_where_no_name_is_known(tmp_path: Path) -> None:
    other = values(64, 5)
    file = saved(
        tmp_path,
        boxes=values(64, 4),
        ids=np.zeros((64, 5), np.int64),
        info=np.array([{} for _ in range(64)], object),
        x=values(63, 5),
        other=other,
        later=other + 1,
    )
    np.testing.assert_array_equal(read_image(file, GRID).features, other)


def test_array_that_no_one_needs_may_be_odd(tmp_path: Path) -> None:
    path = tmp_path / "9.npz"
    np.savez(path, odd=np.zeros(3, [("a", "f4")]), x=values(3, 2048))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", b"x")
        archive.writestr("broken.npy", b"x")
    assert read_image(PlainFile(path), REGIONS).features.shape == (3, 2048)
    assert count_regions(PlainFile(path), REGIONS) == 3


@given(
    regions=st.integers(1, 40),
    width=st.integers(1, 40),
    known=st.booleans(),
    boxed=st.booleans(),
    transposed=st.booleans(),
)
def test_orientation_of_regions(
    regions: int, width: int, known: bool, boxed: bool, transposed: bool
) -> None:
    x = values(regions, width)
    boxes = values(regions, 4) if boxed else None
    ambiguous = regions == width or not (known or boxed or regions < width)
    if ambiguous and transposed:
        return
    form = Form(None, width if known else None)
    if ambiguous and regions > width:
        assert orient_regions(x, form, boxes, "x").shape == (width, regions)
    else:
        np.testing.assert_array_equal(orient_regions(x.T if transposed else x, form, boxes, "x"), x)


@pytest.mark.parametrize("shape", [(36, 2048), (2048, 36), (1, 36, 2048), (1, 2048, 36)])
@pytest.mark.parametrize("form", [UNKNOWN, REGIONS])
def test_regions_of_plain_arrays(tmp_path: Path, shape: tuple[int, ...], form: Form) -> None:
    x = values(*shape)
    for file in (saved(tmp_path, x=x), saved(tmp_path, x)):
        features = read_image(file, form).features
        np.testing.assert_array_equal(
            features, x.reshape(36, 2048) if shape[-1] == 2048 else x.reshape(2048, 36).T
        )
        assert count_regions(file, form) == 36


def test_square_map_looked_at_as_regions_stays_a_map(tmp_path: Path) -> None:
    x = values(5, 8, 8)
    for file in (saved(tmp_path, x=x), saved(tmp_path, x)):
        assert read_image(file, UNKNOWN).features.shape == (5, 8, 8)
        with pytest.raises(RawDataError, match=r"shape \(5, 8, 8\), expected \(n, f\)"):
            count_regions(file, UNKNOWN)


def test_values_are_views_where_that_is_possible(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path, values(64, 5)), GRID)
    assert image.features.base is not None
    assert not image.features.flags.owndata
    for x in (values(64, 5), values(64, 5).astype(np.float64)):
        assert read_image(saved(tmp_path, a=x[:1], bb=x), GRID).features.flags.aligned


def test_header_of_python_2(tmp_path: Path) -> None:
    path = tmp_path / "9.npy"
    x = values(64, 5)
    path.write_bytes(header(fake(shape="(64L, 5L)")) + x.tobytes())
    np.testing.assert_array_equal(read_image(PlainFile(path), GRID).features, x)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_header_versions(tmp_path: Path, version: int) -> None:
    path = tmp_path / "9.npy"
    x = values(64, 5)
    path.write_bytes(header(fake(), version) + x.tobytes())
    np.testing.assert_array_equal(read_image(PlainFile(path), GRID).features, x)


def refuse(file: PlainFile, form: Form, match: str, *, counted: bool = True) -> None:
    with pytest.raises(RawDataError, match=match):
        read_image(file, form)
    if counted:
        with pytest.raises(RawDataError, match=match):
            count_regions(file, form)


def test_archive_without_a_fitting_array_lists_what_it_has(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.zeros((256, 2048), np.float16), boxes=values(3, 4))
    refuse(
        file,
        GRID,
        r"9\.npz: no array of features, expected \(64, f\), \(f, 64\) or \(f, 8, 8\) for a 8x8 "
        r"grid; .*--grid .*it holds x \(256, 2048\) float16, boxes \(3, 4\) float32",
    )
    refuse(
        saved(tmp_path, x=values(36, 1024)), REGIONS, r"expected \(n, 2048\) or \(2048, n\) .*1024"
    )


def test_archive_without_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "9.npz", "w") as archive:
        archive.writestr("x.jpg", b"x")
    refuse(PlainFile(tmp_path / "9.npz"), GRID, "it holds no array")


def test_pickled_features_are_refused(tmp_path: Path) -> None:
    objects = np.array([{} for _ in range(64)], object)
    message = "an object array; loading it would run code from the file, so it is refused"
    refuse(saved(tmp_path, x=objects), GRID, rf"9\.npz, array x: {message}", counted=False)
    refuse(saved(tmp_path, objects), GRID, rf"9\.npy: {message}", counted=False)


def test_pickled_dict_of_mmf_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, np.array({"features": values(3, 5)}, object))
    refuse(file, GRID, r"9\.npy: a pickled object \(MMF's \.npy\?\); loading it", counted=False)


@pytest.mark.parametrize("shape", [(), (64,), (2, 2, 64, 5)])
def test_arrays_of_other_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for form in (GRID, REGIONS, UNKNOWN):
        refuse(saved(tmp_path, values(*shape)), form, r"9\.npy: shape \(.*expected", counted=False)


@pytest.mark.parametrize("shape", [(64, 0), (0, 5), (0, 8, 8)])
def test_arrays_without_values(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = saved(tmp_path, values(*shape))
    refuse(file, GRID, r"9\.npy: an empty array, \(.*float32; extract", counted=False)
    file = saved(tmp_path, x=values(*shape))
    refuse(file, GRID, r"no array of features.*it holds x \(", counted=False)


@pytest.mark.parametrize("shape", [(36, 1024), (36, 19, 25), (2, 36, 2048)])
def test_regions_of_another_width(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refuse(saved(tmp_path, values(*shape)), REGIONS, r"shape .*, expected \(n, 2048\) or .*mixed")


def test_boxes_of_another_number(tmp_path: Path) -> None:
    file = saved(tmp_path, x=values(36, 2048), boxes=values(35, 4))
    refuse(file, REGIONS, "36 regions but 35 boxes, expected one box a region", counted=False)


@pytest.mark.parametrize("boxes", [values(36, 5), values(144), np.full((36, 4), "a")])
def test_boxes_of_another_form(tmp_path: Path, boxes: Any) -> None:
    file = saved(tmp_path, x=values(36, 2048), bbox=boxes)
    refuse(file, REGIONS, r"array bbox: .*, expected \(n, 4\) numbers", counted=False)


def test_pickled_boxes_are_left_alone(tmp_path: Path) -> None:
    file = saved(tmp_path, x=values(36, 2048), boxes=np.array([{}], object))
    assert read_image(file, REGIONS).boxes is None


def test_stated_number_of_regions_must_agree(tmp_path: Path) -> None:
    file = saved(tmp_path, x=values(36, 2048), num_bbox=np.int64(40))
    refuse(file, REGIONS, "num_bbox is 40, its features have 36 regions", counted=False)


@pytest.mark.parametrize("data", [b"\x93NUMPY", header(fake())[:60], header("{}"), header("x")])
def test_headers_that_are_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "9.npy").write_bytes(data)
    refuse(PlainFile(tmp_path / "9.npy"), GRID, rf"not readable as \.npy .*{len(data)} bytes: cut")


@pytest.mark.parametrize(
    "text",
    [
        fake(descr="[('a', '<f4')]"),
        fake(descr="'<f4,<f4'"),
        fake(descr="'<x4'"),
        fake(descr="'<f99'"),
        fake(descr="'<U999999999'"),
        fake(shape="(-1, 5)"),
        fake(shape="(64, 'a')"),
        fake(shape="(1, 1, 1, 1, 1, 1, 1, 1, 1)"),
        fake(shape="(" + "9" * 60 + ",)"),
        "__import__('os').system('x')",
    ],
)
def test_headers_that_say_nonsense(tmp_path: Path, text: str) -> None:
    (tmp_path / "9.npy").write_bytes(header(text) + bytes(64 * 5 * 4))
    refuse(PlainFile(tmp_path / "9.npy"), GRID, r"9\.npy: (not readable as|its header claims)")


def test_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    data = header(fake(shape="(64, 1000000000)")) + bytes(100)
    (tmp_path / "9.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "9.npz", "w") as archive:
        archive.writestr("x.npy", data)
    for name in ("9.npy", "9.npz"):
        for form in (GRID, UNKNOWN):
            refuse(PlainFile(tmp_path / name), form, "claims 256000000000 bytes .* file holds 100")


def test_array_of_nothing_claims_nothing(tmp_path: Path) -> None:
    (tmp_path / "9.npy").write_bytes(header(fake("'|V0'", "(64, 999999999999)")))
    refuse(PlainFile(tmp_path / "9.npy"), GRID, "an empty array", counted=False)


def test_npz_that_is_cut_short(tmp_path: Path) -> None:
    file = saved(tmp_path, x=values(64, 5))
    data = file.path.read_bytes()[:-30]
    file.path.write_bytes(data)
    refuse(file, GRID, rf"9\.npz: a zip cut short at {len(data)} bytes")


def test_npz_with_a_flipped_bit(tmp_path: Path) -> None:
    file = saved(tmp_path, x=values(64, 5))
    data = bytearray(file.path.read_bytes())
    data[500] ^= 4
    file.path.write_bytes(data)
    refuse(file, GRID, r"9\.npz, array x: damaged: its checksum does not fit", counted=False)


@settings(max_examples=300)
@given(position=st.integers(0, 3000), value=st.integers(0, 255), cut=st.integers(0, 3000))
def test_mutated_archives_give_an_array_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "9.npz"
    stream = io.BytesIO()
    np.savez_compressed(stream, x=values(64, 5), boxes=values(5, 4), image_h=3, image_w=4)
    data = bytearray(stream.getvalue())
    data[position % len(data)] = value
    path.write_bytes(data if cut > len(data) else data[:cut])
    for form in (GRID, UNKNOWN):
        for use in (read_image, count_regions):
            try:
                result = use(PlainFile(path), form)
            except RawDataError as error:
                message = str(error)
                assert str(path) in message
                assert "\n" not in message
            else:
                assert isinstance(result, RawImage | int)
