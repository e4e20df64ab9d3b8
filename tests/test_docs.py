"""The documents name what is there: commands, options, settings, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from trar.cli import data, main
from trar.trainer.config import setting_names
from trar.trainer.models import MODELS

ROOT = Path(__file__).parents[1]
DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def every_command(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group, and those of the groups in it: ``show schedule``."""
    for name, command in group.commands.items():
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in every_command(command))


@pytest.mark.parametrize(("group", "members"), [("trar-data", data), ("trar", main)])
def test_every_command_and_option_is_documented(group: str, members: click.Group) -> None:
    text = (ROOT / "docs/cli.md").read_text()
    for name, command in every_command(members):
        assert f"`{group} {name}`" in text, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in text, f"{group} {name} {parameter.opts[0]}"


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs/training.md").read_text() + (ROOT / "docs/cli.md").read_text()
    sections = {"model", "data", "optim", "schedule", "temperature"}
    for name in sorted({name for system in MODELS for name in setting_names(system)}):
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
        command: click.Command = data if program == "trar-data" else main
        words = (one for one in arguments if not one.startswith("-"))
        while isinstance(command, click.Group):
            name = next(words, None)
            assert name in command.commands, f"{path.name}: {line}"
            command = command.commands[name]
        known = {flag for one in command.params for flag in one.opts}
        for argument in arguments:
            if argument.startswith("--"):
                assert argument.partition("=")[0] in known | {"--help"}, f"{path.name}: {line}"
