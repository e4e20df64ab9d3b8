"""Where the rows of an image lie: boxes of regions, corners of cells; stores that do not say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from ragged_store import make_ragged

from trar.errors import StoreError
from trar.features.reader import FeatureStore
from trar.features.schema import FeatureSpec
from trar.trainer.model_sizes import check_readable
from trar.trainer.models.boxes import box_shares


def test_boxes_are_shares_of_the_width_and_the_height() -> None:
    box, size = torch.tensor([[[20.0, 10, 40, 30]]]), torch.tensor([[100, 200]])
    shares = box_shares(torch.zeros(1, 1, 12), box, size)
    assert shares.squeeze().tolist() == pytest.approx([0.1, 0.1, 0.2, 0.3])


def test_without_boxes_the_rows_are_the_cells_of_a_grid() -> None:
    shares = box_shares(torch.zeros(2, 4, 12), None, None)
    assert shares.tolist() == [
        [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    ]


def test_cells_lie_where_boxes_of_their_corners_do() -> None:
    image = torch.zeros(1, 64, 12)
    corners = [[x, y, x + 8, y + 8] for y in range(0, 64, 8) for x in range(0, 64, 8)]
    boxes, size = torch.tensor([corners], dtype=torch.float32), torch.tensor([[64, 64]])
    assert torch.equal(box_shares(image, None, None), box_shares(image, boxes, size))


class Described:
    """A store of which only its features are known."""

    path, meta = Path("features/other"), None

    def __init__(self, spec: FeatureSpec) -> None:
        self.meta = type("Meta", (), {"feature": spec})


REGIONS = FeatureSpec(36, 2048, "float16")


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (REGIONS, "36 regions x 2048, float16"),
        (msgspec.structs.replace(REGIONS, grid=(4, 9)), "4x9 cells x 2048, float16"),
    ],
)
def test_features_without_boxes_are_refused(spec: FeatureSpec, shape: str) -> None:
    message = rf"features/other: its features have no boxes \({shape}\); lxmert reads where .* "
    with pytest.raises(StoreError, match=message + "prepare bottom-up .npz or obj36 .tsv"):
        check_readable("lxmert", Described(spec))  # type: ignore[arg-type]


def test_a_square_grid_needs_no_boxes() -> None:
    check_readable("lxmert", Described(msgspec.structs.replace(REGIONS, grid=(6, 6))))  # type: ignore[arg-type]


def test_boxes_in_an_image_of_unknown_size_are_refused(tmp_path: Path) -> None:
    make_ragged(tmp_path / "vqa", [2, 3, 4], shard_images=2)  # the first says no height
    message = r"vqa: 1 images of val have boxes but no height and width \(the first is 0\), and "
    with pytest.raises(StoreError, match=message + "lxmert .* image_h and image_w"):
        check_readable("lxmert", FeatureStore(tmp_path / "vqa"))
