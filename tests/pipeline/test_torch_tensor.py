"""Tensors of ``.pth`` files: the pooled grid, and no file that could do more than hold one."""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trar.errors import ConfigError, RawDataError
from trar.pipeline.readers.grid_map import pool_map
from trar.pipeline.readers.image import Form
from trar.pipeline.readers.image_file import count_regions, read_image
from trar.pipeline.readers.raw_file import PlainFile
from trar.pipeline.readers.torch_tensor import read_tensor

GRID = Form(8)


def saved_bytes(value: Any, zipped: bool = True, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped, **options)
    return stream.getvalue()


def saved(tmp_path: Path, value: Any, zipped: bool = True) -> PlainFile:
    path = tmp_path / "9.pth"
    path.write_bytes(saved_bytes(value, zipped))
    return PlainFile(path)


def detector_map(channels: int = 6, height: int = 19, width: int = 25) -> torch.Tensor:
    return torch.rand((1, channels, height, width), generator=torch.Generator().manual_seed(0))


def repacked(data: bytes, name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """A torch zip with the content of one member replaced."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", method) as new:
        for one in old.namelist():
            new.writestr(one, content if one.endswith(name) else old.read(one))
    return stream.getvalue()


both_formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@both_formats
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("grid", [8, 16, 32])
def test_detector_map_is_pooled(
    tmp_path: Path, zipped: bool, dtype: torch.dtype, grid: int
) -> None:
    features = detector_map().to(dtype)
    file = saved(tmp_path, features, zipped)
    image = read_image(file, Form(grid))
    assert image.features.dtype == features.numpy().dtype
    np.testing.assert_array_equal(image.features, pool_map(features.numpy(), grid, "x"))
    assert (image.boxes, image.size) == (None, None)
    assert count_regions(file, Form(grid)) == grid * grid


def test_portrait_map_is_turned_unless_kept(tmp_path: Path) -> None:
    features = detector_map(6, 25, 19)
    file = saved(tmp_path, features[0])
    for keep in (True, False):
        expected = pool_map(features.numpy(), 8, "x", keep_portrait=keep)
        image = read_image(file, Form(8, keep_portrait=keep))
        np.testing.assert_array_equal(image.features, expected)


@both_formats
@pytest.mark.parametrize(
    "view",
    [
        lambda one: one.permute(0, 1, 3, 2),
        lambda one: one[:, 1:5, ::2],
        lambda one: one.contiguous(memory_format=torch.channels_last),
        lambda one: one[:, :1].expand(1, 4, 19, 25),
        lambda one: one.requires_grad_(),
    ],
)
def test_views_have_their_values(zipped: bool, view: Any) -> None:
    tensor = view(detector_map())
    found = read_tensor(saved_bytes(tensor, zipped), "x")
    np.testing.assert_array_equal(found, tensor.detach().numpy())


@both_formats
def test_bfloat16_becomes_float32(zipped: bool) -> None:
    tensor = detector_map().bfloat16()
    found = read_tensor(saved_bytes(tensor, zipped), "x")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensor.float().numpy())


def test_tensor_of_cells(tmp_path: Path) -> None:
    cells = torch.rand(64, 5)
    np.testing.assert_array_equal(read_image(saved(tmp_path, cells), GRID).features, cells)
    regions = read_image(saved(tmp_path, cells.T.contiguous()), Form(None, 5))
    np.testing.assert_array_equal(regions.features, cells)


def refuse(data: bytes, match: str) -> None:
    with pytest.raises(RawDataError, match=match) as refused:
        read_tensor(data, "9.pth")
    assert "\n" not in str(refused.value)


def test_map_is_no_regions(tmp_path: Path) -> None:
    file = saved(tmp_path, detector_map())
    for use in (read_image, count_regions):
        with pytest.raises(RawDataError, match=r"9\.pth: a detector map of .*use --grid 8, 16 or"):
            use(file, Form(None))


def test_grids_that_maps_cannot_be_pooled_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--grid 14: .*9\.pth.*8, 16 or 32"):
        read_image(saved(tmp_path, detector_map()), Form(14))


@both_formats
@pytest.mark.parametrize("shape", [(), (5,), (2, 5, 19, 25), (1, 1, 5, 8, 8), (0, 5), (1, 0, 4, 4)])
def test_other_shapes(tmp_path: Path, zipped: bool, shape: tuple[int, ...]) -> None:
    with pytest.raises(RawDataError, match=r"9\.pth: shape \(.*expected"):
        read_image(saved(tmp_path, torch.zeros(shape), zipped), GRID)


def test_integers_are_no_map(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match="int64, expected a float map"):
        read_image(saved(tmp_path, torch.zeros(1, 5, 19, 25, dtype=torch.long)), GRID)


@both_formats
@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"features": torch.rand(3)}, "holds a dict with 1 tensors, expected one tensor; save"),
        ([torch.rand(3), torch.rand(3)], "holds a list with 2 tensors"),
        ((torch.rand(3), 5), "holds a tuple with 1 tensors"),
        (collections.OrderedDict(a=torch.rand(3)), "holds a dict with 1 tensors"),
        (torch.nn.Linear(2, 2).state_dict(), "holds an object with 2 tensors"),
        ("features", "holds no tensor; save"),
        ({}, "holds a dict with 0 tensors"),
    ],
)
def test_what_is_not_one_tensor(zipped: bool, value: Any, what: str) -> None:
    refuse(saved_bytes(value, zipped), what)


class Attack:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('the file was run')",))


@both_formats
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_never_run(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path = tmp_path / "9.pth"
    match = "refused: loading it would run code"
    if not zipped and protocol != 2:  # torch's own loader would not take it either
        match = "(text that begins|a pickle, which is never loaded).*, expected features as"
    for value in (Attack(), {"x": Attack()}, [torch.rand(3), Attack()]):
        path.write_bytes(saved_bytes(value, zipped, pickle_protocol=protocol))
        with pytest.raises(RawDataError, match=match):
            read_image(PlainFile(path), GRID)


@pytest.mark.parametrize("number", range(1, 5))
def test_code_in_any_pickle_of_a_legacy_file_is_never_run(number: int) -> None:
    stream = io.BytesIO(saved_bytes(torch.rand(3), zipped=False))
    ends = []
    for _ in range(5):
        assert list(pickletools.genops(stream))
        ends.append(stream.tell())
    data = stream.getvalue()
    attack = pickle.dumps(Attack(), 2)
    changed = data[: ends[number - 1]] + attack + data[ends[number] :]
    refuse(changed, r"refused: loading it would run code \('__builtin__ exec'\)")


def test_numpy_array_in_a_torch_file_is_refused() -> None:
    refuse(saved_bytes(np.zeros(3)), "refused: loading it would run code .*multiarray")


def test_pickle_that_claims_more_than_the_file_holds() -> None:
    data = saved_bytes(torch.rand(1, 64, 5, 7))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(one for one in archive.namelist() if one.endswith("data.pkl"))
        content = archive.read(name)
    claim = content.replace(b"K\x40", b"J" + (1 << 30).to_bytes(4, "little"))
    assert claim != content
    refuse(repacked(data, "data.pkl", claim), rf"its pickle says {1 << 30} at byte \d+")


def test_tensor_larger_than_its_storage() -> None:
    data = saved_bytes(torch.rand(1, 64, 5, 7))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(one for one in archive.namelist() if one.endswith("data.pkl"))
        content = archive.read(name)
    refuse(repacked(data, "data.pkl", content.replace(b"K\x40", b"K\x41")), "damaged")
    refuse(repacked(data, "data.pkl", content.replace(b"M\xc0\x08", b"M\xc1\x08")), "damaged")


def test_tensor_that_spreads_few_values_over_much(tmp_path: Path) -> None:
    spread = torch.zeros(1).expand(1, 1000, 1000, 100)
    with pytest.raises(RawDataError, match=r"9\.pth: 400000000 bytes, one image may have"):
        read_image(saved(tmp_path, spread), GRID)


def test_compressed_members_are_refused() -> None:
    data = repacked(saved_bytes(torch.zeros(1, 5, 19, 25)), "-", b"", zipfile.ZIP_DEFLATED)
    refuse(data, "a compressed torch file; save each image's tensor")


def test_torch_zip_without_its_pickle() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data/0", b"abcd")
    refuse(stream.getvalue(), r"a zip without torch's data\.pkl")


def test_flipped_bit_in_the_values() -> None:
    data = bytearray(saved_bytes(detector_map()))
    data[len(data) // 2] ^= 1
    refuse(bytes(data), r"9\.pth, archive/data/0: damaged: its checksum does not fit")


@both_formats
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_file_that_is_cut_short(zipped: bool, share: float) -> None:
    data = saved_bytes(detector_map(), zipped)
    refuse(data[: int(len(data) * share)], "cut short|damaged")


def test_sparse_tensor_is_refused() -> None:
    refuse(saved_bytes(torch.eye(3).to_sparse()), "refused: loading it would run code")


@settings(max_examples=300, deadline=None)
@given(
    zipped=st.booleans(),
    position=st.integers(0, 1 << 16),
    value=st.binary(min_size=1, max_size=8),
    cut=st.integers(0, 1 << 16),
)
@example(zipped=False, position=278, value=b"\\", cut=290)  # an escape that Python does not know
def test_mutated_files_give_a_tensor_or_one_line(
    zipped: bool, position: int, value: bytes, cut: int
) -> None:
    data = bytearray(saved_bytes(detector_map(2, 5, 7), zipped))
    position %= len(data)
    data[position : position + len(value)] = value
    data = data[:cut] if cut < len(data) else data
    message = ""
    try:
        assert read_tensor(bytes(data), "9.pth").nbytes <= len(data) * 8
    except RawDataError as error:
        message = str(error)
    assert not message or (message.startswith("9.pth") and "\n" not in message)
