"""Archives of raw files: judged by size, digest and their own form."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from published_files import zipped
from raw_folder import VAL, VAL_ANSWERS, told

from trar.pipeline.manifest import Archive, DatasetFiles, RawFile
from trar.pipeline.raw_verify import RawFinding, verify_raw


def judge(folder: Path, found: bytes, **facts: Any) -> RawFinding:
    """What is said of an archive, given what is published of it."""
    (folder / "a.zip").write_bytes(found)
    known = {"urls": [], "bytes": None, "sha256": [], **facts}
    archive = Archive(name=facts.pop("name", "a.zip"), **known)
    file = RawFile("train", "pairs", ["pairs.json"], None, archive)
    dataset = DatasetFiles("d", "CC0", "https://example.org", ["."], [file])
    (finding,) = verify_raw(folder, "vqa", files=dataset)
    return finding


def test_archives_are_judged_by_size_and_digest(tmp_path: Path) -> None:
    data = zipped(**{"pairs.json": np.random.default_rng(0).bytes(5000)})
    digest = hashlib.sha256(data).hexdigest()
    facts = {"bytes": len(data), "sha256": [digest]}
    good = judge(tmp_path, data, **facts)
    assert (good.status, good.what) == ("ok", f"{len(data):,} bytes, sha256 as published")
    unknown = judge(tmp_path, data)
    assert (unknown.status, unknown.what) == (
        "ok",
        f"{len(data):,} bytes; neither size nor digest are published",
    )
    again = judge(tmp_path, zipped(**{"other.json": b"{}"}), **facts)
    assert again.status == "warning"
    assert again.what.startswith(f"wrong size: 122 bytes, expected {len(data):,}")
    assert again.what.endswith("in itself it is sound: made anew by a mirror?")
    same_size = judge(tmp_path, data, bytes=len(data), sha256=["0" * 64])
    assert same_size.status == "warning"
    assert same_size.what.startswith(f"wrong digest: sha256 {digest}, expected {'0' * 64}")
    cut = judge(tmp_path, data[:3000], **facts)
    assert cut.status == "error"
    assert cut.what.startswith(f"a truncated zip: 3,000 of {len(data):,} bytes")
    assert judge(tmp_path, data[:3000]).what.startswith("a truncated zip: 3,000 bytes")
    flipped = bytearray(data)
    flipped[2500] ^= 1
    for published in (facts, {}):
        damaged = judge(tmp_path, bytes(flipped), **published)
        assert damaged.status == "error"
        assert "member pairs.json is damaged" in damaged.what


def test_an_archive_that_nobody_unpacked(tmp_path: Path) -> None:
    name = "v2_Questions_Val_mscoco.zip"
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa" / name).write_bytes(zipped(**{VAL: b"{}"}))
    findings = verify_raw(tmp_path, "vqa", ["val"])
    absent = dict(told(findings, "absent"))
    assert absent[VAL].startswith("not unpacked; its archive is ")
    assert absent[VAL].endswith(f"{name}: `trar-data fetch` unpacks it")
    assert absent[VAL_ANSWERS] == "not here: the val annotations"
    ((file, what),) = told(findings, "warning")
    assert file == name
    assert "expected 3,494,929" in what
