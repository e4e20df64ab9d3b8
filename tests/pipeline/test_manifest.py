"""The manifest says what is published, nothing else, and is read strictly."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from trar.errors import ConfigError, RawDataError
from trar.pipeline.fetch import plan_fetch
from trar.pipeline.manifest import (
    KINDS,
    Archive,
    DatasetFiles,
    RawFile,
    dataset_files,
    load_manifest,
    parse_manifest,
)

DATASETS = load_manifest().datasets
FILES = [(name, file) for name, dataset in DATASETS.items() for file in dataset.files]
ARCHIVES = {
    (name, file.holds, file.archive.name): file.archive for name, file in FILES if file.archive
}
OFFICIAL = {
    "cvmlp.s3.amazonaws.com",
    "homes.cs.washington.edu",
    "raw.githubusercontent.com",
    "nlp.cs.unc.edu",
    "imagecaption.blob.core.windows.net",
    "dl.fbaipublicfiles.com",
    "images.cocodataset.org",
    "bvisionweb1.cs.unc.edu",
    "nlp.stanford.edu",
}
SMALL = """
version: 1
datasets:
  one:
    about: a
    licence: b
    home: c
    folders: [raw, .]
    files:
      - split: train
        holds: questions
        names: [q.json]
        count: null
        archive: {name: q.zip, urls: ["https://example.org/q.zip"], bytes: 3, sha256: []}
"""


def test_counts_are_the_published_ones() -> None:
    counts = {
        (name, file.split): (file.count, file.images)
        for name, file in FILES
        if file.holds == "questions"
    }
    assert counts == {
        ("vqa", "train"): (443_757, 82_783),
        ("vqa", "val"): (214_354, 40_504),
        ("vqa", "test"): (447_793, 81_434),
        ("vqa", "test-dev"): (107_394, 36_807),
        ("vqa", "vg"): (None, None),
        ("clevr", "train"): (699_989, 70_000),
        ("clevr", "val"): (149_991, 15_000),
        ("clevr", "test"): (149_988, 15_000),
        ("clevr", "trainA"): (699_960, 70_000),
        ("clevr", "valA"): (None, 15_000),
        ("clevr", "valB"): (None, 15_000),
        ("clevr", "testA"): (None, 15_000),
        ("clevr", "testB"): (None, 15_000),
        ("easy-vqa", "train"): (38_575, 4_000),
        ("easy-vqa", "test"): (9_673, 1_000),
    }
    for split in ("train", "val"):
        assert dataset_files("vqa").entry(split, "annotations").count == counts["vqa", split][0]


def test_parts_add_up() -> None:
    with_parts = [file for _, file in FILES if file.counts]
    assert len(with_parts) == 5
    for file in with_parts:
        assert sum(file.counts.values()) == file.count, file.title()


def test_remembered_figures_are_not_asserted() -> None:
    values = {file.count for _, file in FILES}
    assert not values & {25_994, 188_360, 149_980, 150_000, 149_992}


@pytest.mark.parametrize(("dataset", "file"), FILES, ids=lambda one: getattr(one, "split", one))
def test_every_file_can_be_had_somehow(dataset: str, file: RawFile) -> None:
    assert file.by_hand or (file.archive is not None and file.archive.urls), file.title()
    known = DATASETS[dataset]
    assert set(known.image_splits) <= {one for each in known.files for one in each.splits} | {"val"}


@pytest.mark.parametrize("archive", ARCHIVES.values(), ids=lambda one: one.name)
def test_the_official_host_comes_first(archive: Archive) -> None:
    hosts = [urlsplit(url).hostname for url in archive.urls]
    assert not hosts or hosts[0] in OFFICIAL
    for url in archive.urls:
        assert url.endswith(f"/{archive.name}")
        assert url.startswith("https://") or hosts[0] == "images.cocodataset.org"


def test_no_two_archives_go_to_one_place() -> None:
    """What is fetched with any choice of kinds never lands on another file."""
    for name, known in DATASETS.items():
        places: dict[Path, object] = {}
        for file in known.files:
            kind = f"{file.holds}:{file.form}" if file.form else file.holds
            for one in plan_fetch(name, Path("raw"), what=[kind]):
                told = one.archive or one.files[0].names
                assert places.setdefault(one.folder / one.name, told) == told


def test_every_kind_is_used() -> None:
    assert {file.holds for _, file in FILES} == set(KINDS)


def test_digests_of_the_five_official_zips() -> None:
    found = {
        file.archive.name: file.archive.sha256[0][:8]
        for name, file in FILES
        if file.archive and re.match(r"v2_(Questions|Annotations)", file.archive.name)
    }
    assert found == {
        "v2_Questions_Train_mscoco.zip": "05a64b6e",
        "v2_Annotations_Train_mscoco.zip": "fb101bce",
        "v2_Questions_Val_mscoco.zip": "e71f6c5c",
        "v2_Annotations_Val_mscoco.zip": "0caae7c8",
        "v2_Questions_Test_mscoco.zip": "982e2e68",
    }


def test_a_size_counts_only_where_all_copies_share_it() -> None:
    one = Archive("a.zip", [], 5, ["0" * 64])
    assert one.exact_bytes == 5
    assert Archive("a.zip", [], 5, []).exact_bytes == 5
    assert Archive("a.zip", [], 5, ["0" * 64, "1" * 64]).exact_bytes is None


# ---- finding files


def dataset() -> DatasetFiles:
    return parse_manifest(SMALL).datasets["one"]


def test_files_are_found_in_folder_order(tmp_path: Path) -> None:
    known = dataset()
    assert known.find(tmp_path, "train", "questions") is None
    (tmp_path / "q.json").touch()
    assert known.find(tmp_path, "train", "questions") == tmp_path / "q.json"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/q.json").touch()
    assert known.need(tmp_path, "train", "questions") == tmp_path / "raw/q.json"
    assert known.splits() == ["train"]
    assert known.splits("annotations") == []


def test_a_missing_file_is_told_with_its_places_and_source(tmp_path: Path) -> None:
    with pytest.raises(
        RawDataError,
        match=r"no questions file for split 'train': expected one of .*raw/q.json, .*q.json "
        r"\(from q.zip\); put it there or .*`trar-data fetch` downloads it. See c",
    ):
        dataset().need(tmp_path, "train", "questions")
    with pytest.raises(RawDataError, match=r"VG_questions.json; put it there .*//pan.baidu.com"):
        dataset_files("vqa").need(tmp_path, "vg", "questions")


def test_an_unknown_dataset_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'vqa2'; there are vqa, clevr, refcoco"):
        dataset_files("vqa2")


# ---- strict reading


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("about: a", "about: a\n    size: 3", "unknown field `size`"),
        ("split: train", "split: train\n        md5: x", "unknown field `md5`"),
        ("bytes: 3", "bites: 3", "unknown field `bites`"),
        ("count: null", "count: many", "Expected `int | null`, got `str`"),
        ("        count: null\n", "", "missing required field `count`"),
        ("holds: questions", "holds: queries", "Invalid enum value 'queries'"),
        ("sha256: []", "sha256: [12ab]", "'12ab' is not a sha256 digest"),
        ("sha256: []", f"sha256: [{'A' * 64}]", "is not a sha256 digest"),
        ("sha256: []", "sha256: [], md5: [12]", "Expected `str`, got `int`"),
        ("https://example.org/q.zip", "ftp://example.org/q.zip", "is not an http.s. URL"),
        ("q.json", "../q.json", "'../q.json' is not a name below the raw folder"),
        ("q.json", "/etc/q.json", "is not a name below the raw folder"),
        ("raw, .", "raw, ..", "is not a name below the raw folder"),
        ("name: q.zip", "name: a/q.zip", "must be a file name without folders"),
        ("names: [q.json]", "names: []", "a file of train has no name"),
        ("version: 1", "version: 1\nextra: 2", "unknown field `extra`"),
    ],
)
def test_what_is_not_of_the_form_is_refused(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(msgspec.ValidationError, match=message):
        parse_manifest(SMALL.replace(old, new))


def test_two_files_for_one_thing_are_refused() -> None:
    entry = SMALL[SMALL.index("      - split") :]
    with pytest.raises(msgspec.ValidationError, match="two files hold the train questions"):
        parse_manifest(SMALL + entry.lstrip("\n"))
