"""What is written is plain safetensors: the library reads it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from trar.errors import CheckpointError
from trar.trainer.tensor_file import read_metadata, read_tensors, write_tensors

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)),
        max_size=6,
    ),
    st.text(max_size=20),
)
def test_the_library_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: dict[str, tuple[torch.dtype, list[int]]],
    text: str,
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    tensors = {
        name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in wanted.items()
    }
    write_tensors(path, tensors, {"said": text})
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert read_metadata(path)["said"] == text
    assert read_tensors(path, "").keys() == tensors.keys()


def test_a_transposed_view_is_written_in_its_own_order(tmp_path: Path) -> None:
    value = torch.arange(6).reshape(2, 3).T
    write_tensors(tmp_path / "x", {"a.v": value}, {})
    assert torch.equal(read_tensors(tmp_path / "x", "a.")["v"], value)


def test_every_flipped_bit_of_a_tensor_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_tensors(path, {"w": torch.ones(4)}, {})
    whole = path.read_bytes()
    for at in range(len(whole) - 16, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match="tensor w does not match its crc32c"):
            read_tensors(path, "")


def test_the_data_begin_at_an_aligned_place(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"half": torch.ones(3).half(), "long": torch.ones(2).long()}, {})
    header = int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
    assert header % 8 == 0
    with safe_open(tmp_path / "x", "pt") as file:
        assert set(file.keys()) == {"half", "long"}
