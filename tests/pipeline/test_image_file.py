"""One image's file, read by what it is and not by what it is called."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from trar.errors import RawDataError
from trar.pipeline.readers.image import Form
from trar.pipeline.readers.image_file import count_regions, looks_like, read_image
from trar.pipeline.readers.raw_file import PlainFile

GRID = Form(8, 12)


def cells(image_id: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(image_id).random((64, 12), np.float32)


def test_files_are_told_apart_by_their_content(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=cells(1))
    (tmp_path / "a.npz").rename(tmp_path / "1.pth")
    torch.save(torch.from_numpy(cells(2)), tmp_path / "2.npy")
    np.save(tmp_path / "a.npy", cells(3))
    (tmp_path / "a.npy").rename(tmp_path / "3.npz")
    for name, image_id in (("1.pth", 1), ("2.npy", 2), ("3.npz", 3)):
        file = PlainFile(tmp_path / name)
        np.testing.assert_array_equal(read_image(file, GRID).features, cells(image_id))
        assert count_regions(file, Form(None, 12)) == 64


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE HTML><title>404</title>", r"a web page \(an error page"),
        (b"<html><body>", "a web page"),
        (b'<?xml version="1.0"?><Error>', "a web page"),
        (gzip.compress(b"x", mtime=0), "a gzip file"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG picture"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (bytes(4000), r"zeros \(a download that was begun"),
        (b'{"error": 403}', "JSON text"),
        (b"img_id\timg_h", r"text that begins 'img_id\\timg_h'"),
        (b"\x80\x04\x95abc", "a pickle, which is never loaded"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08\x09", r"a file that begins b'\\x01\\x02"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "9.npy"
    path.write_bytes(data)
    for use in (read_image, count_regions):
        with pytest.raises(RawDataError, match=rf"9\.npy: {what}.*, expected features as \.npy"):
            use(PlainFile(path), GRID)


def test_archives_look_like_what_they_are() -> None:
    assert looks_like(b"PK\x03\x04") == "a zip archive"
    assert looks_like(b"\x93NUMPY\x01") == "a .npy file"
