"""The model in docs/adding-a-model.md, run as it stands there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from stores import StorePlan, make_store

from trar.errors import ConfigError
from trar.trainer.config import build_config, setting_names
from trar.trainer.loop import TrainResult
from trar.trainer.models import MODELS

PAGE = Path(__file__).parents[2] / "docs/adding-a-model.md"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch):
    """MODELS, whose changes are gone afterwards."""
    for name, value in list(MODELS.items()):
        monkeypatch.setitem(MODELS, name, value)
    yield MODELS
    MODELS.pop("bag", None)


def test_the_example_trains_scores_and_is_sixty_lines(
    models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "features" / "easy-vqa", StorePlan())
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 62
    bag = types.ModuleType("bag")
    monkeypatch.setitem(sys.modules, "bag", bag)
    exec(compile(code, str(PAGE), "exec"), vars(bag))
    result = bag.result
    assert isinstance(result, TrainResult)
    assert float(capsys.readouterr().out) == result.scores["overall"] > 60

    assert "model.word_width" in setting_names("bag")
    assert "model.orders" not in setting_names("bag")
    with pytest.raises(ConfigError, match=r"model.widht is no setting of bag \(did you mean model"):
        build_config("features", preset="easy-vqa", sets=["model.system=bag", "model.widht=3"])
    with pytest.raises(ConfigError, match="width is 0; it must be a whole number, 1 or more"):
        build_config("features", preset="easy-vqa", sets=["model.system=bag", "model.width=0"])
