"""Learning rate and temperature by epoch, as a table, as JSON and drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trar.cli import main
from trar.errors import ConfigError
from trar.trainer.config import build_config
from trar.trainer.preset_files import preset_names
from trar.trainer.run_folder import CONFIG_FILE
from trar.trainer.schedule_table import (
    config_of_run,
    plot_by_epoch,
    schedule_by_epoch,
    schedule_by_step,
)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["show", "schedule", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_published_learning_rates_and_temperatures() -> None:
    rows = schedule_by_epoch(build_config("somewhere", preset="vqa-hard-avg"))
    quarters = [0.25e-4, 0.5e-4, 0.75e-4]
    rates = [*quarters, *[1e-4] * 7, 0.2e-4, 0.2e-4, 0.04e-4]
    assert [row.learning_rate for row in rows] == pytest.approx(rates)
    fast = [10, 7, 4, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert [row.temperature for row in rows] == pytest.approx(fast)
    slow = [10 - 9.9 * epoch / 12 for epoch in range(13)]
    assert [row.policies["slow"] for row in rows] == pytest.approx(slow)
    finetune = [4.25, 4, 3.75, *[0.1] * 10]
    assert [row.policies["finetune"] for row in rows] == pytest.approx(finetune)
    assert [row.epoch for row in rows] == list(range(1, 14))


def test_soft_routing_has_no_temperature() -> None:
    rows = schedule_by_epoch(build_config("somewhere", preset="vqa-soft-avg"))
    assert {row.temperature for row in rows} == {None}
    assert "Routing is soft: no temperature." in run("--preset", "vqa-soft-avg")


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_has_a_schedule(preset: str) -> None:
    config = build_config("somewhere", preset=preset)
    if config.schedule.kind == "cyclic":
        rates = [row.learning_rate for row in schedule_by_step(config)]
        assert max(rates) == pytest.approx(config.optim.lr)
        assert rates[0] == rates[-1] == min(rates)
    else:
        assert len(schedule_by_epoch(config)) == config.schedule.epochs


def test_a_schedule_by_steps_is_shown_for_one_cycle(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "cycle.svg"
    lines = run("--preset", "lxmert-vqa", "--plot", str(path)).split("\n")
    bars = [line.split() for line in lines if "█" in line]
    assert [bars[0][:2], bars[8][:2], bars[16][:2]] == [
        ["0", "1e-05"],
        ["2,000", "5e-05"],
        ["4,000", "1e-05"],
    ]
    assert bars[8][2] == "█" * 20
    said = "over and over: 2,000 steps up, 2,000 down. A step takes 128 questions."
    assert said in "\n".join(lines)
    assert b"<svg" in path.read_bytes()


def test_a_short_cycle_has_a_row_a_step() -> None:
    sets = ("--set", "schedule.up_steps=3", "--set", "schedule.down_steps=2", "--json")
    rows = json.loads(run("--preset", "lxmert-vqa", *sets))
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    rates = [row["learning_rate"] for row in rows]
    third = 1e-5 + 4e-5 / 3
    assert rates == pytest.approx([1e-5, third, 1e-5 + 8e-5 / 3, 5e-5, 3e-5, 1e-5])


def test_the_table_has_a_line_and_a_bar_an_epoch() -> None:
    lines = run("--preset", "clevr-hard-fc").split("\n")
    assert lines[0] == "clevr-hard-fc"
    assert len([line for line in lines if "█" in line]) == 16
    assert lines[5].split()[:3] == ["4", "4e-05", "█" * 20]


def test_json_and_set() -> None:
    rows = json.loads(run("--preset", "vqa-hard-avg", "--json", "--set", "schedule.epochs=2"))
    assert [row["temperature"] for row in rows] == [10.0, 7.0]
    assert rows[1]["policies"].keys() == {"slow", "fast", "finetune"}


def test_a_run_is_drawn_by_its_own_config(tmp_path: Path) -> None:
    config = build_config("somewhere", preset="easy-vqa", sets=["optim.lr=0.5"])
    text = json.dumps({"config": config.model_dump(mode="json")})
    (tmp_path / CONFIG_FILE).write_text(text)
    assert config_of_run(tmp_path) == config
    assert json.loads(run("--run", str(tmp_path), "--json"))[0]["learning_rate"] == 0.5


@pytest.mark.parametrize("text", ["[", "- 1", "{}", "\udcff"])
def test_a_damaged_config_of_a_run_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="not the config of a run; edited or damaged"):
        config_of_run(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["show", "schedule", "--run", str(tmp_path)])
    assert result.exit_code == 1
    assert "no such file; --run takes the folder of a run" in result.output
    both = CliRunner().invoke(main, ["show", "schedule", "--run", "x", "--preset", "easy-vqa"])
    assert both.exit_code == 2


@pytest.mark.parametrize("preset", ["vqa-hard-avg", "vqa-soft-avg"])
def test_a_picture_is_drawn(tmp_path: Path, preset: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "schedule.png"
    assert f"Drawn: {path}" in run("--preset", preset, "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    svg = tmp_path / "schedule.svg"
    run("--preset", preset, "--plot", str(svg))
    assert (b"this recipe" in svg.read_bytes()) == (preset == "vqa-hard-avg")


def test_a_picture_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["show", "schedule", "--plot", str(tmp_path / "schedule.xyz")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "matplotlib writes no .xyz files; use .png" in result.output
    path = tmp_path / "none" / "schedule.png"
    result = CliRunner().invoke(main, [*arguments[:-1], str(path)])
    assert result.exit_code == 1
    assert f"{path}: there is no folder {path.parent}; make it or name another" in result.output


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    rows = schedule_by_epoch(build_config("somewhere", preset="easy-vqa"))
    with pytest.raises(ConfigError, match=r"pip install 'trar\[plots\]'"):
        plot_by_epoch(rows, 0, "easy-vqa", tmp_path / "schedule.png")
