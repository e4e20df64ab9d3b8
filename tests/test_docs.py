"""The documents name what is there: commands, options, settings, files."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from trar.cli import data, main
from trar.trainer.config import setting_names

ROOT = Path(__file__).parents[1]
DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize(("group", "members"), [("trar-data", data), ("trar", main)])
def test_every_command_and_option_is_documented(group: str, members: click.Group) -> None:
    text = (ROOT / "docs/cli.md").read_text()
    for name, command in members.commands.items():
        assert f"`{group} {name}`" in text, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in text, f"{group} {name} {parameter.opts[0]}"


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs/training.md").read_text() + (ROOT / "docs/cli.md").read_text()
    sections = {"model", "data", "optim", "schedule", "temperature"}
    for name in setting_names():
        section, _, key = name.partition(".")
        if section in sections and key:
            wild = f"`{section}.*`" in text or f"{section}.*" in text
            assert wild or f"`{name}`" in text or f"`{key}`" in text, name


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_and_file_names_exist(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
    for name in re.findall(r"`(trar/[\w/]+\.(?:py|yaml))`", text):
        assert (ROOT / name).exists(), f"{path.name} names {name}"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_in_documents_parse(path: Path) -> None:
    """Every command line of a code block is one that the programs accept."""
    for line in re.findall(r"^(?: {4}|\$ )?((?:trar|trar-data) [^#\n`]+)", path.read_text(), re.M):
        program, *arguments = line.split()
        group = data if program == "trar-data" else main
        name = next((one for one in arguments if not one.startswith("-")), None)
        assert name in group.commands, f"{path.name}: {line}"
        known = {flag for one in group.commands[name].params for flag in one.opts}
        for argument in arguments:
            if argument.startswith("--"):
                assert argument.partition("=")[0] in known | {"--help"}, f"{path.name}: {line}"
