"""``trar bench``: every part is measured, and the slowest one is said to bind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from stores import make_store
from training import SMALL, small_config

from trar.cli import main
from trar.features.reader import FeatureStore
from trar.trainer.bench import CACHED, COLD, LOADER, MODEL, Findings, Part, bench, slowest_of

SETTINGS = [f"--set={one}" for one in SMALL]


@pytest.fixture(scope="module")
def findings(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What a short measurement of the tiny store finds; nothing is written."""
    runs = tmp_path_factory.mktemp("runs") / "runs"
    told: list[str] = []
    found = bench(small_config(shared_store.path, runs), seconds=0.5, report=told.append)
    assert told == [COLD, LOADER, CACHED, MODEL]
    assert not runs.exists()
    return found


def run(store: FeatureStore, *arguments: str) -> Result:
    command = ["bench", "--store", str(store.path), "--preset", "easy-vqa", *SETTINGS, *arguments]
    return CliRunner().invoke(main, [*command, "--seconds", "0.3", "--device", "cpu"])


def test_every_part_has_a_rate_or_a_reason(findings: Findings) -> None:
    assert [part.name for part in findings.parts] == [CACHED, COLD, LOADER, MODEL]
    for part in findings.parts:
        if part.name == COLD and part.skipped:
            assert part.samples_per_s is None
        else:
            assert part.samples_per_s is not None
            assert part.samples_per_s > 0
            assert part.steps > 0


def test_the_slowest_part_binds(findings: Findings) -> None:
    assert findings.fits_in_memory
    rates = {part.name: part.samples_per_s for part in findings.parts if part.name != COLD}
    assert findings.binds == min(rates, key=lambda name: rates[name] or 0)


def test_storage_counts_as_cold_where_the_store_does_not_fit_into_memory() -> None:
    cached, cold = Part(CACHED, 500.0, 1), Part(COLD, 20.0, 1)
    others = (Part(LOADER, 300.0, 1), Part(MODEL, 40.0, 1))
    assert slowest_of((cached, cold, *others), fits=True) == MODEL
    assert slowest_of((cached, cold, *others), fits=False) == COLD
    unknown = Part(COLD, None, skipped="the store is remote")
    assert slowest_of((cached, unknown, *others), fits=False) == MODEL


def test_options_are_the_settings_measured_and_json_has_all_of_it(
    shared_store: FeatureStore,
) -> None:
    result = run(shared_store, "--batch-size", "7", "--threads", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["store"] == str(shared_store.path)
    assert (found["preset"], found["device"]) == ("easy-vqa", "cpu")
    assert (found["batch_size"], found["threads"]) == (7, 2)
    assert {part["name"] for part in found["parts"]} == {CACHED, COLD, LOADER, MODEL}
    assert found["binds"] in (CACHED, COLD, LOADER, MODEL)


def test_a_person_reads_a_table_and_what_binds(shared_store: FeatureStore) -> None:
    result = run(shared_store)
    assert result.exit_code == 0, result.output
    assert "questions/s" in result.stdout
    assert "Binds: " in result.stdout
    assert f"measuring {MODEL}" in result.stderr


def test_what_would_stop_the_run_stops_it(shared_store: FeatureStore, tmp_path: Path) -> None:
    result = run(shared_store, "--set=data.threads=-1")
    assert result.exit_code == 1
    assert "data.threads" in result.stderr
    result = CliRunner().invoke(main, ["bench", "--store", str(tmp_path)])
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr


def test_a_store_in_hdf5_and_one_without_reading_threads(tmp_path: Path) -> None:
    store = make_store(tmp_path / "features/tiny", container="hdf5")
    found = bench(small_config(store.path, tmp_path, "data.threads=0"), seconds=0.2)
    assert found.threads == 0
    assert found.binds in (CACHED, LOADER, MODEL)
