"""Members out of zips that are odd or damaged: one line, and nothing outside the folder."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import QUESTIONS, zipped

from trar.errors import RawDataError, TrarError
from trar.pipeline.manifest import Archive
from trar.pipeline.published import check_published
from trar.pipeline.zip_archive import same_as_member, unpack_members


def test_odd_member_names_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(**{"a\nb\x1b": b"1"}))
    with pytest.raises(RawDataError, match=r"no members are called q, .*; it holds a\?b\?\. Is"):
        unpack_members(path, {"q": tmp_path / "q"})


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_zips_raise_nothing_else(data: st.DataObject) -> None:
    value = bytearray(zipped(a__answers=QUESTIONS, b=b"x" * 300, c=b""))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        if data.draw(st.booleans()):  # in the directory at the end, where the claims are
            place = max(0, len(value) - 1 - place % 300)
        value[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zip"
        path.write_bytes(bytes(value))
        for act in (
            lambda: check_published(path, Archive("a.zip", [], None, [])),
            lambda: unpack_members(path, {"answers": path.with_name("answers")}),
            lambda: same_as_member(path, "answers", path),
        ):
            with contextlib.suppress(TrarError):
                act()
        out = path.with_name("answers")
        assert not out.exists() or out.stat().st_size <= 200 * len(value) + (1 << 20)
