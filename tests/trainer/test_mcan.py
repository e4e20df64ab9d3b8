"""MCAN: the published sizes, and every question read by every region."""

from __future__ import annotations

import torch
from systems import batch_for, small_model

from trar.trainer.config import build_config
from trar.trainer.models import McanConfig, build_model


def test_the_small_preset_has_the_published_number_of_parameters() -> None:
    settings = build_config("somewhere", preset="mcan-small").model.model_dump(exclude={"system"})
    config = McanConfig(vocabulary_size=20572, answer_count=3129, **settings)
    with torch.device("meta"):
        model = build_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 57_812_491


def test_the_large_preset_is_openvqas() -> None:
    config = build_config("somewhere", preset="mcan-large")
    model = config.model
    assert (model.layers, model.width, model.heads) == (6, 1024, 8)
    assert (model.ff_width, model.flat_hidden, model.flat_width) == (4096, 512, 2048)
    assert (config.optim.lr, config.data.accumulation, config.data.grid) == (7e-5, 2, None)
    assert (config.schedule.epochs, config.schedule.decay_epochs) == (13, (10, 12))


def test_the_order_of_regions_does_not_matter() -> None:
    model = small_model("mcan")
    features, question, cells = batch_for(3)
    mixed = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = model(features, question, cells)
        after = model(features[:, mixed], question, cells[:, mixed])
    torch.testing.assert_close(before, after, rtol=0, atol=1e-12)
