"""docs/reliability.md claims nothing that no test proves: each test that it names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/reliability.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py::[\w:]+\[[\w-]+\])`")
CONTAINERS = {"trar, Zarr": "zarr", "trar, HDF5": "hdf5"}


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its rule."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def test_every_named_test_exists() -> None:
    named = set(NAMED.findall(TEXT))
    assert len(named) > 20
    files = sorted({name.partition("::")[0] for name in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-header", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    collected = set(result.stdout.splitlines())
    assert named <= collected, sorted(named - collected)


def test_every_cell_of_ours_names_its_proof() -> None:
    header, *rows = table_rows("Damage, store by store")
    assert len(rows) == 5
    for row in rows:
        assert len(row) == len(header)
        for title, container in CONTAINERS.items():
            tests = NAMED.findall(row[header.index(title)])
            assert tests, f"{row[0]}, {title}"
            assert all(f"[{container}" in name for name in tests)


@pytest.mark.parametrize("container", CONTAINERS.values())
@pytest.mark.parametrize("heading", ["What verify finds", "What repair gives back"])
def test_every_row_is_proved_in_both_containers(heading: str, container: str) -> None:
    for row in table_rows(heading)[1:]:
        assert any(f"[{container}" in name for name in NAMED.findall(row[-1])), row[0]
