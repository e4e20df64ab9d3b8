"""``trar-data fetch``: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from file_server import FileServer

from trar.commands import fetch as command
from trar.errors import RawDataError
from trar.pipeline import manifest
from trar.pipeline.manifest import DatasetFiles


@pytest.fixture
def known(offered: DatasetFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command knows the served dataset as ``vqa``."""
    real = manifest.Manifest(1, {"vqa": offered})
    monkeypatch.setattr(manifest, "load_manifest", lambda: real)


@pytest.mark.usefixtures("known")
def test_the_command_lists_fetches_and_reports(tmp_path: Path) -> None:
    done = CliRunner().invoke(command.fetch, ["--raw", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["file", "bytes", "from", "holds"]
    assert "test questions, dev questions" in lines[1]
    assert "1 files of" in done.output
    assert f"test.zip: fetched, {tmp_path}/vqa/raw/test.zip: sha256 as published" in done.output
    assert "VG.json: by hand: no direct URL: the shared drive" in done.output


@pytest.mark.usefixtures("known")
def test_the_command_can_only_list(server: FileServer, tmp_path: Path) -> None:
    arguments = ["--raw", str(tmp_path), "--split", "test+dev", "--dry-run", "--json"]
    listed = CliRunner().invoke(command.fetch, arguments)
    (only,) = json.loads(listed.output)
    assert only["name"] == "test.zip"
    assert only["bytes"] == len(server.files["test.zip"].data)
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("known")
def test_the_command_fails_when_a_file_could_not_be_had(server: FileServer, tmp_path: Path) -> None:
    server.files["test.zip"].always = 404
    done = CliRunner().invoke(command.fetch, ["--raw", str(tmp_path), "--what", "questions"])
    assert isinstance(done.exception, RawDataError)
    assert str(done.exception) == "1 of 2 files could not be had: test.zip"
    assert "HTTP 404" in done.output
    server.files["test.zip"].always = None
    done = CliRunner().invoke(
        command.fetch, ["--raw", str(tmp_path), "--what", "questions", "--json"]
    )
    assert [one["status"] for one in json.loads(done.output)] == ["fetched", "by hand"]


@pytest.mark.usefixtures("known")
def test_the_command_stopped_says_how_to_go_on(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trar.pipeline.fetch.download", stop)
    done = CliRunner().invoke(command.fetch, ["--raw", str(tmp_path)])
    assert done.exit_code == 1
    assert "What came so far is kept: run the same command again to go on." in done.output
