"""The benchmarks run, say all that they promise, and catch a contender that cheats. No times."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
QUICK = {
    "memory copy (limit)",
    "os.preadv alone",
    "np.load npz float32",
    "np.load npy float32",
    "np.load npy float16",
    "h5py d[rows]",
    "LMDB into a reused buffer",
    "ours: zarr preadv",
    "ours: zarr mmap",
    "ours: zarr crc-checked",
    "ours: hdf5 preadv",
    "ours: hdf5 mmap",
    "ours: hdf5 crc-checked",
    "ours: ring, zarr preadv",
    "ours: ring, zarr mmap",
    "ours: ring, zarr crc-checked",
    "ours: ring, hdf5 crc-checked",
}


def run(script: str, *arguments: str, out: Path) -> tuple[str, Any]:
    """What a benchmark prints, and what it writes as JSON."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package beside ``loader.py``."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_the_loader_benchmark_has_a_row_for_everyone_and_a_verdict_for_every_target(
    tmp_path: Path,
) -> None:
    arguments = ("--quick", "--images", "64", "--rounds", "1", "--turn", "0.001")
    printed, found = run("loader.py", *arguments, out=tmp_path / "figures.json")
    rows = {row["name"]: row for row in found["rows"]}
    assert {name for name, row in rows.items() if not row["skipped"]} == QUICK
    assert len(rows) > len(QUICK)
    for name, row in rows.items():
        figures = (row["images_per_s"], row["ratio_to_limit"], row["ratio_to_npz"])
        if name in QUICK:
            assert all(figure > 0 for figure in figures), row
        else:
            assert row["skipped"] == "left out by --quick"
            assert figures == (None, None, None)
    assert rows["memory copy (limit)"]["ratio_to_limit"] == 1
    assert rows["np.load npz float32"]["ratio_to_npz"] == 1
    assert found["machine"].keys() >= {"date", "processor", "cores", "ram_GiB", "kernel"}
    for target in found["targets"]:
        assert target["what"] in printed
        if target["found"] is None:
            assert "DataLoader" in target["what"]
        else:
            assert target["reached"] == (target["found"] >= target["at_least"])
    for name in rows:
        assert name in printed


def test_the_containers_benchmark_times_both(tmp_path: Path) -> None:
    arguments = ("--images", "1500", "--rounds", "1")
    printed, found = run("containers.py", *arguments, out=tmp_path / "figures.json")
    assert [row["container"] for row in found] == ["zarr", "hdf5"]
    for row in found:
        assert row["images"] == 1500
        assert row["first_image_s"] > 0
        assert row["from_shards_s"] > 0
        assert row["container"] in printed


def test_a_contender_that_delivers_other_values_is_thrown_out(loading: Any) -> None:
    data, race = loading("loading.data"), loading("loading.race")
    files = loading("loading.files")
    place = data.Place(Path("nowhere"), data.make_images(70))
    limit = files.contenders()[0]
    rows, features = next(limit.open(place, data.RandomBatches(70)))
    race.check(place, limit, (rows, features))
    race.check(place, limit, (rows, features.astype(np.float32)))
    with pytest.raises(SystemExit, match="memory copy"):
        race.check(place, limit, (rows[::-1], features))
    features[-1, -1, -1] += 1
    with pytest.raises(SystemExit, match="other values than were generated"):
        race.check(place, limit, (rows, features))


def test_everyone_gets_the_same_random_batches_without_repeats_in_a_batch(loading: Any) -> None:
    data = loading("loading.data")
    one, other = data.RandomBatches(200), data.RandomBatches(200)
    batches = [one.rows(0, step) for step in range(7)]
    for step in (6, 2, 0):
        assert np.array_equal(other.rows(0, step), batches[step])
    assert all(len(np.unique(rows)) == data.BATCH for rows in batches)
    assert len({rows.tobytes() for rows in batches}) == 7


def test_ratios_are_medians_of_rounds_and_targets_are_judged_by_them(loading: Any) -> None:
    race, report = loading("loading.race"), loading("loading.report")
    contenders = [*loading("loading.files").contenders(), *loading("loading.ours").contenders()]

    def speeds(*rates: float) -> list[Any]:
        return [race.Speed(wall=rate, cpu=2 * rate) for rate in rates]

    limit, npz, others = speeds(100, 10, 1000), speeds(1, 1, 1), speeds(80, 7, 100)
    rates = {"memory copy (limit)": limit, "np.load npz float32": npz}
    results = [race.Result(one, rates.get(one.name, others), limit) for one in contenders]
    absent = loading("loading.streams").contenders()
    results += [race.Result(one, skipped="not installed") for one in absent]
    rows = {row["name"]: row for row in report.rows(results)}
    assert rows["ours: zarr preadv"]["ratio_to_limit"] == 0.7
    assert rows["ours: zarr preadv"]["ratio_to_npz"] == 80
    targets = {row["what"]: row for row in report.target_rows(results, [])}
    assert targets["ours: zarr preadv / memory copy (limit)"]["reached"] is True
    assert targets["ours: zarr mmap / memory copy (limit)"]["reached"] is False
    assert targets["ours: zarr preadv / np.load npz float32"]["reached"] is False
    loader = targets["ours: ring, zarr crc-checked / DataLoader(2) npy float16"]
    assert (loader["found"], loader["reached"]) == (None, None)


def test_the_table_of_the_systems_is_written_from_kept_figures(tmp_path: Path) -> None:
    cost = {"parameters": 57_800_000, "gflop": 5.488, "step_ms_per_question": 127.84}
    easy = {"overall": 99.5, "yes/no": 99.25}
    kept = {"costs": {"mcan-small": cost}, "easy_vqa": {"easy-vqa-mcan": easy}}
    (tmp_path / "models.json").write_text(json.dumps(kept))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- models -->\nold\n<!-- /models -->\nafter\n")
    arguments = ("--no-costs", "--no-easy", "--readme", str(readme))
    printed, found = run("models.py", *arguments, out=tmp_path / "models.json")
    assert found == kept
    text = readme.read_text()
    assert text == f"before\n<!-- models -->\n{printed}<!-- /models -->\nafter\n"
    rows = {line.split("|")[1].strip(" `"): line for line in printed.splitlines()}
    assert rows["mcan-small"].endswith("| 57.8 M | 5.49 | 127.8 | 67.17 (val) | 99.50 (99.25) |")
    assert rows["mcan-large"].endswith("|  |  |  | 67.50 (val) | no small recipe |")
