"""Images with different numbers of regions: flat rows, cut into shards anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_store import WIDTH, make_ragged

from trar.errors import StoreError
from trar.features.reader import FeatureStore
from trar.features.verify import verify_store


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 100), min_size=1, max_size=12).filter(lambda n: sum(n) > 0),
    shard_images=st.integers(1, 4),
    data=st.data(),
)
def test_every_image_comes_back_whatever_the_cuts(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    shard_images: int,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("ragged") / "vqa"
    features, boxes = make_ragged(folder, lengths, shard_images)
    store = FeatureStore(folder)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    batch = store.read("val", rows)
    longest = max(lengths[row] for row in rows)
    assert batch.features.shape == (len(rows), longest, WIDTH)
    np.testing.assert_array_equal(batch.lengths, [lengths[row] for row in rows])
    held = store.boxes("val", rows)
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(batch.features[number, : lengths[row]], features[row])
        assert not batch.features[number, lengths[row] :].any()
        np.testing.assert_array_equal(held[number, : lengths[row]], boxes[row])
        assert not held[number, lengths[row] :].any()
    cells = store.cells("val")
    np.testing.assert_array_equal(cells.sum(axis=1), lengths)
    np.testing.assert_array_equal(store.sizes("val")[:, 0], range(len(lengths)))
    assert verify_store(folder) == []


def test_zarr_python_reads_flat_rows(tmp_path: Path) -> None:
    lengths = [36, 10, 100, 77]
    features, boxes = make_ragged(tmp_path / "vqa", lengths, 1)
    group = zarr.open_group(tmp_path / "vqa/arrays.zarr", path="images/val", mode="r")
    np.testing.assert_array_equal(group["features"][:], np.concatenate(features))
    np.testing.assert_array_equal(group["boxes"][:], np.concatenate(boxes))
    np.testing.assert_array_equal(group["offsets"][:], [0, 36, 46, 146, 223])
    assert group["features"].chunks == (64, WIDTH)
    assert group["features"].shards == (64, WIDTH)


def test_out_buffer_is_filled_and_cleared(tmp_path: Path) -> None:
    features, _ = make_ragged(tmp_path / "vqa", [10, 36, 12], 2)
    store = FeatureStore(tmp_path / "vqa")
    out = np.full((4, 36, WIDTH), 9, np.float16)
    batch = store.read("val", [0, 2], out)
    assert batch.features.base is not None
    assert batch.features.shape == (2, 12, WIDTH)
    np.testing.assert_array_equal(batch.features[0, :10], features[0])
    assert not batch.features[0, 10:].any()
    with pytest.raises(ValueError, match="expected float16"):
        store.read("val", [1], np.empty((1, 20, WIDTH), np.float16))


def test_damage_names_the_images_of_the_chunk(tmp_path: Path) -> None:
    make_ragged(tmp_path / "vqa", [40, 40, 40, 40], 8)
    shard = tmp_path / "vqa/arrays.zarr/images/val/features/c/0/0"
    data = bytearray(shard.read_bytes())
    data[448 + 10] ^= 1  # in the second chunk (it begins at 388, rounded up), regions 64 to 127
    shard.write_bytes(data)
    store = FeatureStore(tmp_path / "vqa")
    store.read("val", [0])
    with pytest.raises(
        StoreError, match=r"a chunk of images 5 to 15 of val does not match its crc32c"
    ):
        store.read("val", [2])


def test_store_without_boxes_says_so(shared_store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="this store has no boxes; prepare it from"):
        shared_store.boxes("train", [0])
    with pytest.raises(StoreError, match="this store has no boxes"):
        shared_store.sizes("train")
