"""``fetch``: the files of a dataset come to the places where ``prepare`` looks for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_server import FileServer
from published_files import BLOB, IMPATIENT, QUESTIONS, dataset, published, zipped

from trar.errors import ConfigError, DiskError
from trar.pipeline.fetch import Fetched, fetch, plan_fetch
from trar.pipeline.manifest import DatasetFiles, RawFile


def run(raw: Path, files: DatasetFiles, **choice: object) -> dict[str, Fetched]:
    results = fetch("mine", raw, files=files, patience=IMPATIENT, **choice)  # type: ignore[arg-type]
    return {one.wanted.name: one for one in results}


def statuses(results: dict[str, Fetched]) -> dict[str, str]:
    return {name: one.status for name, one in results.items()}


def test_questions_and_annotations_are_unpacked_where_prepare_looks(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    results = run(tmp_path, offered)
    assert statuses(results) == {
        "test.zip": "fetched",
        "answers.zip": "fetched",
        "VG.json": "by hand",
    }
    assert "the shared drive" in results["VG.json"].note
    assert results["answers.zip"].note.startswith("unverified: no published digest (sha256 ")
    raw = tmp_path / "vqa/raw"
    assert sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*")) == [
        "answers",
        "answers.zip",
        "sub",
        "sub/dev_questions",
        "test.zip",
        "test_questions",
    ]
    assert (raw / "test_questions").read_bytes() == QUESTIONS
    assert offered.find(tmp_path, "dev", "questions") == raw / "sub/dev_questions"
    asked = len(server.asked)
    again = run(tmp_path, offered)
    assert set(statuses(again).values()) == {"already there", "by hand"}
    assert len(server.asked) == asked


def test_only_the_chosen_members_and_the_rest_later(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    run(tmp_path, offered, splits=["test"])
    assert not (tmp_path / "vqa/raw/sub").exists()
    later = run(tmp_path, offered, splits=["dev"])
    assert statuses(later) == {"test.zip": "fetched"}
    assert (tmp_path / "vqa/raw/sub/dev_questions").read_bytes() == b"[]"
    assert len(server.asked) == 1


def test_features_stay_as_they_are(offered: DatasetFiles, tmp_path: Path) -> None:
    assert statuses(run(tmp_path, offered, what=["features:a"])) == {"f.zip": "fetched"}
    assert (tmp_path / "feats/f.zip").read_bytes() == BLOB


def test_files_without_their_archive_are_left_to_verify(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/answers").write_text("{}")
    results = run(tmp_path, offered, what=["annotations"])
    assert statuses(results) == {"answers.zip": "already there"}
    assert "only `trar-data verify --raw` can judge it" in results["answers.zip"].note
    assert server.asked == []


def test_an_archive_of_the_user_is_proved_and_used(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "test.zip").write_bytes(server.files["test.zip"].data)
    assert statuses(run(tmp_path, offered, splits=["test"])) == {"test.zip": "fetched"}
    assert (tmp_path / "vqa/raw/test_questions").read_bytes() == QUESTIONS
    assert server.asked == []


def test_a_wrong_archive_in_the_place_is_named_and_left(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "test.zip").write_bytes(b"PK\x03\x04half")
    results = run(tmp_path, offered, what=["questions", "annotations"], splits=["test", "train"])
    assert statuses(results) == {"test.zip": "failed", "answers.zip": "fetched"}
    size = len(server.files["test.zip"].data)
    assert f"a truncated zip: 8 of {size:,} bytes" in results["test.zip"].note
    assert "left alone: move it away" in results["test.zip"].note
    assert (tmp_path / "test.zip").read_bytes() == b"PK\x03\x04half"


def test_another_file_in_a_members_place_is_named_and_left(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    (tmp_path / "vqa/raw").mkdir(parents=True)
    mine = tmp_path / "vqa/raw/test_questions"
    for data in (b"mine", QUESTIONS[:-1] + b"!"):
        mine.write_bytes(data)
        results = run(tmp_path, offered, splits=["test", "dev"])
        assert statuses(results) == {"test.zip": "failed"}
        assert "test_questions: differs from test_questions in" in results["test.zip"].note
        assert mine.read_bytes() == data


def test_what_blocks_a_place_is_named(offered: DatasetFiles, tmp_path: Path) -> None:
    (tmp_path / "vqa").write_text("a file")
    with pytest.raises(DiskError, match="a part of that path is a file"):
        run(tmp_path, offered, splits=["test"])
    (tmp_path / "vqa").unlink()
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa/raw").write_text("a file")
    note = run(tmp_path, offered, splits=["test"])["test.zip"].note
    assert "a file is in the place of a folder" in note
    (tmp_path / "vqa/raw").unlink()
    (tmp_path / "vqa/raw/test_questions").mkdir(parents=True)
    note = run(tmp_path, offered, splits=["test"])["test.zip"].note
    assert "test_questions: in the way" in note


def test_members_are_found_by_name_and_never_leave_the_folder(
    server: FileServer, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    hostile = zipped(**{"..__..__evil": b"out", "..__answers": b"in", "__answers2": b"in2"})
    archive = published(hostile, server.give("h.zip", hostile), name="h.zip")
    files = dataset(
        RawFile("train", "annotations", ["answers"], None, archive),
        RawFile("val", "annotations", ["answers2"], None, archive),
    )
    assert statuses(run(raw, files)) == {"h.zip": "fetched"}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "answers",
        "answers2",
        "h.zip",
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other": b"x"}, "no members are called answers, expected one; it holds other"),
        ({"a__answers": b"x", "b__answers": b"y"}, "2 members are called answers"),
        ({"answers": bytes(10_000_000)}, "no such data compresses so far: not unpacked"),
    ],
)
def test_archives_that_hold_something_else(
    server: FileServer, tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    data = zipped(**members)
    archive = published(data, server.give("h.zip", data), name="h.zip")
    results = run(tmp_path, dataset(RawFile("train", "annotations", ["answers"], None, archive)))
    assert statuses(results) == {"h.zip": "failed"}
    assert message in results["h.zip"].note
    assert not (tmp_path / "vqa/raw/answers").exists()


def test_of_two_members_the_one_with_the_right_folder(server: FileServer, tmp_path: Path) -> None:
    data = zipped(top__train__q=b"1", top__test__q=b"2")
    archive = published(data, server.give("h.zip", data), name="h.zip")
    run(tmp_path, dataset(RawFile("test", "questions", ["test/q"], None, archive)))
    assert (tmp_path / "vqa/raw/test/q").read_bytes() == b"2"


def test_a_mirror_of_ones_own_comes_first(
    server: FileServer, offered: DatasetFiles, tmp_path: Path
) -> None:
    server.give("own/VG.json", b'{"questions": []}', content_type="application/json")
    results = run(tmp_path, offered, splits=["vg", "test"], mirror=server.url("own/"))
    assert statuses(results) == {"VG.json": "fetched", "test.zip": "fetched"}
    assert results["VG.json"].url == server.url("own/VG.json")
    assert [path for path, *_ in server.asked] == ["own/test.zip", "test.zip", "own/VG.json"]


def test_the_mirror_of_the_real_manifest_keeps_odd_names(tmp_path: Path) -> None:
    (one,) = plan_fetch("refcoco", tmp_path, ["refcoco-plus"], mirror="http://here/data")
    assert one.urls[0] == "http://here/data/refcoco+.zip"
    assert [file.names[0] for file in one.files] == [
        "refcoco+/refs(unc).p",
        "refcoco+/instances.json",
    ]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"splits": ["trian"]}, "no split 'trian' here; there are test, dev, train, vg"),
        ({"what": ["feature"]}, "nothing here is called 'feature'; there are questions, annot"),
        ({"what": ["features:c"]}, "nothing here is called 'features:c'"),
        ({"what": ["features"]}, "several forms; name one of features:a, features:b"),
        ({"splits": ["vg"], "what": ["annotations"]}, "no annotations of vg are known"),
    ],
)
def test_a_choice_that_fits_nothing(
    offered: DatasetFiles, tmp_path: Path, choice: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_fetch("mine", tmp_path, files=offered, **choice)  # type: ignore[arg-type]


def test_no_space_is_told_before_the_first_byte(server: FileServer, tmp_path: Path) -> None:
    url = server.give("blob.bin", BLOB)
    huge = RawFile("train", "questions", ["q.json"], None, published(BLOB, url, bytes=1 << 60))
    with pytest.raises(DiskError, match=r"fetching mine needs 1048576.0 TiB"):
        fetch("mine", tmp_path, files=dataset(huge))
    assert server.asked == []
