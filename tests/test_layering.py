"""Who may import whom, checked on the source so that an import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trar"
HEAVY = {"torch", "dask", "distributed", "spacy", "pandas"}
FORBIDDEN = {
    "features": {
        "trar.pipeline",
        "trar.trainer",
        "trar.cli",
        "trar.commands",
        "trar.console",
        *HEAVY,
    },
    "pipeline": {"trar.trainer", "trar.cli", "trar.commands", "trar.console"},
    "trainer": {
        "trar.pipeline",
        "trar.cli",
        "trar.commands",
        "trar.console",
        "dask",
        "distributed",
        "spacy",
        "pandas",
    },
    "trainer/ops": {"trar.features", "trar.trainer.models", "zarr", "pydantic", "numpy"},
    "trainer/models": {"trar.features", "trar.trainer.importers", "zarr", "pydantic", "numpy"},
    "trainer/importers": {"trar.trainer.loop", "trar.trainer.evaluator"},
    "trainer/metrics": {"trar.trainer.models", "torch"},
}
BASE = {
    "errors.py": {"trar."},
    "fileio.py": {
        "trar.features",
        "trar.pipeline",
        "trar.trainer",
        "trar.cli",
        "trar.commands",
        *HEAVY,
    },
    "trainer/batch.py": {"trar.trainer.models", "trar.trainer.loop"},
    "trainer/losses.py": {"trar.trainer.models"},
    "trainer/schedules.py": {"trar.trainer.models", "torch"},
    **{
        f"trainer/{name}.py": {"trar.trainer.models", "torch"}
        for name in (
            "sampler",
            "orders",
            "block_order",
            "length_buckets",
            "subsets",
            "question_index",
            "shuffle_quality",
        )
    },
    "trainer/submission.py": {"trar.trainer.loop"},
}


def imported_names(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: absolute imports only"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def check(file: Path, banned: set[str]) -> None:
    for name in imported_names(file):
        for one in banned:
            prefix = one if one.endswith(".") else f"{one}."
            assert not f"{name}.".startswith(prefix), f"{file} imports {name}"


@pytest.mark.parametrize("part", FORBIDDEN)
def test_part_imports_only_what_it_may(part: str) -> None:
    files = list((PACKAGE / part).rglob("*.py"))
    assert files, part
    for file in files:
        check(file, FORBIDDEN[part])


@pytest.mark.parametrize("name", BASE)
def test_file_imports_only_what_it_may(name: str) -> None:
    check(PACKAGE / name, BASE[name])


def test_only_the_command_line_talks_and_exits() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.name not in ("cli.py", "console.py") and file.parent.name != "commands":
            check(file, {"click", "rich", "sys.exit"})
            assert "sys.exit" not in file.read_text(), file


@pytest.mark.parametrize(
    ("module", "absent"),
    [("trar.features", HEAVY), ("trar.cli", {*HEAVY, "numpy", "zarr", "pydantic", "rich"})],
)
def test_import_is_light(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(sorted({absent!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
