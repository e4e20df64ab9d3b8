"""What every system must do: answer each question alone, keep to itself, train, save and load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from stores import StorePlan, make_store
from systems import (
    FINDS_PADDING,
    ON_REGIONS,
    SYSTEMS,
    batch_for,
    inputs_for,
    part_of,
    small_model,
    small_run,
)

from trar.cli import main
from trar.errors import CheckpointError, StoreError
from trar.features.reader import FeatureStore
from trar.features.schema import FeatureSpec
from trar.trainer.batch import model_inputs
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.dry_run import dry_run
from trar.trainer.evaluator import evaluate
from trar.trainer.loop import train
from trar.trainer.model_sizes import check_readable
from trar.trainer.question_batches import Questions
from trar.trainer.store_check import check_store

LEARNING = (
    *("optim.lr=0.003", "schedule.epochs=12", "schedule.decay_epochs=[10]"),
    *("data.batch_size=8", "loop.eval_epochs=12"),
)
LEARNING_BY = {  # its first weights are small: it learns nothing for some epochs
    "lxmert": (
        *("model.language_layers=1", "model.object_layers=1", "model.cross_layers=1"),
        *("model.width=64", "model.ff_width=128", "optim.lr=0.001"),
        *("schedule.epochs=18", "schedule.decay_epochs=[16]", "loop.eval_epochs=18"),
    ),
}


@pytest.fixture(scope="module")
def region_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Images of two to nine regions with boxes."""
    folder = tmp_path_factory.mktemp("regions") / "features" / "tiny"
    return make_store(folder, StorePlan(most_regions=9))


@pytest.mark.parametrize("system", SYSTEMS)
class TestEverySystem:
    def test_a_sample_has_the_same_logits_in_any_batch(self, system: str) -> None:
        model, inputs = small_model(system), inputs_for(system, 64)
        _, question, cells = inputs[:3]
        with torch.no_grad():
            whole = model(*inputs)
            assert torch.isfinite(whole).all()
            for size in (1, 3):
                for start in range(0, 12, size):
                    own = slice(start, start + size)
                    rows = 16  # of a grid all, of regions as many as the longest of the batch
                    if system in ON_REGIONS:
                        rows = int(cells[own].sum(1).max())
                    words = int((question[own] != 0).sum(1).max())
                    padded, alone = (
                        model(*part_of(inputs, own, *shape)) for shape in ((16, 9), (rows, words))
                    )
                    torch.testing.assert_close(padded, whole[own], rtol=0, atol=1e-12)
                    torch.testing.assert_close(alone, whole[own], rtol=0, atol=1e-12)

    def test_padded_rows_may_hold_anything(self, system: str) -> None:
        changes = {"pool_mask": True} if system == "trar" else {}
        model = small_model(system, **changes)
        features, question, cells = batch_for(8)
        with torch.no_grad():
            before = model(features, question, cells)
            features[~cells] = 5.0
            after = model(features, question, cells)
        torch.testing.assert_close(after, before, rtol=0, atol=1e-12)

    def test_evaluation_is_deterministic_and_training_is_not(self, system: str) -> None:
        model = small_model(system, dropout=0.3)
        inputs = batch_for(4)
        assert torch.equal(model(*inputs), model(*inputs))
        model.train()
        assert not torch.equal(model(*inputs), model(*inputs))

    def test_images_and_questions_of_nothing_get_finite_logits_and_gradients(
        self, system: str
    ) -> None:
        model = small_model(system)
        features, question, cells = batch_for(3)
        features[1], cells[1], question[2] = 0, False, 0
        logits = model(features, question, cells)
        logits.sum().backward()
        assert torch.isfinite(logits).all()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    def test_every_parameter_gets_a_gradient(self, system: str) -> None:
        model = small_model(system)
        model(*batch_for(3)).square().sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert without == []

    def test_bfloat16_is_close_to_float32(self, system: str) -> None:
        model = small_model(system).float()
        features, question, cells = batch_for(8)
        with torch.no_grad():
            full = model(features.float(), question, cells)
            with torch.autocast("cpu", torch.bfloat16):
                half = model(features.float(), question, cells)
        assert (half.float() - full).abs().max() < 0.05 * full.abs().max()

    def test_it_learns_the_tiny_store_and_comes_back_from_its_checkpoint(
        self, system: str, shared_store: FeatureStore, tmp_path: Path
    ) -> None:
        sets = (*LEARNING, *LEARNING_BY.get(system, ()))
        result = train(small_run(system, shared_store.path, tmp_path, *sets))
        assert result.scores is not None
        assert result.scores["overall"] > 90
        checkpoint = load_checkpoint(result.checkpoint)
        assert checkpoint.config.model.system == system
        again = evaluate(checkpoint, shared_store, "val")
        assert again.overall == result.scores["overall"]
        on = ["--store", str(shared_store.path), "--device", "cpu", "--json"]
        told = CliRunner().invoke(main, ["eval", str(result.checkpoint), *on])
        assert told.exit_code == 0, told.output
        assert json.loads(told.output)["overall"] == result.scores["overall"]

    def test_a_dry_run_tells_its_settings_and_its_cost(
        self, system: str, shared_store: FeatureStore, tmp_path: Path
    ) -> None:
        told = dry_run(small_run(system, shared_store.path, tmp_path))
        settings = {one.name: one.value for one in told.settings}
        assert settings["model.system"] == system
        assert ("model.window" in settings) == (system == "lsat")
        assert told.flops > 0


@pytest.mark.parametrize("system", FINDS_PADDING)
def test_padding_is_found_where_no_cells_are_given(system: str) -> None:
    model = small_model(system)
    features, question, cells = batch_for(8)
    with torch.no_grad():
        assert torch.equal(model(features, question), model(features, question, cells))


def test_without_cells_every_object_of_lxmert_is_real() -> None:
    model = small_model("lxmert")
    features, question, cells = batch_for(8)
    with torch.no_grad():
        every = model(features, question, torch.ones_like(cells))
        assert torch.equal(model(features, question), every)
        assert not torch.equal(model(features, question, cells), every)


@pytest.mark.parametrize("system", ON_REGIONS)
def test_a_store_of_regions_trains_it(
    system: str, region_store: FeatureStore, tmp_path: Path
) -> None:
    sets = (*LEARNING, *LEARNING_BY.get(system, ()))
    result = train(small_run(system, region_store.path, tmp_path, *sets))
    assert result.scores is not None
    assert result.scores["overall"] > 90
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.grid_side is None
    assert evaluate(checkpoint, region_store, "val").overall == result.scores["overall"]


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - set(ON_REGIONS)))
def test_a_model_of_grids_says_what_to_prepare_instead_of_regions(
    system: str, region_store: FeatureStore, tmp_path: Path
) -> None:
    with pytest.raises(StoreError) as caught:
        train(small_run(system, region_store.path, tmp_path))
    message = str(caught.value)
    assert f"features are regions (at most 9 regions x 8, float16, boxes); {system}" in message
    assert "`trar-data prepare --features DIR`" in message
    assert not list(tmp_path.iterdir())


class Oblong:
    """A store of which only its features are known."""

    path = Path("features/other")
    meta = type("Meta", (), {"feature": FeatureSpec(6, 8, "float16", (2, 3))})


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - set(ON_REGIONS)))
def test_a_model_of_grids_says_what_to_prepare_instead_of_an_oblong_one(system: str) -> None:
    message = (
        rf"features/other: a grid of 2x3 cells; {system} needs a square one: prepare 8x8 or 16x16 "
        r"features \(`trar-data prepare --features DIR`\)"
    )
    with pytest.raises(StoreError, match=message):
        check_readable(system, Oblong())  # type: ignore[arg-type]


def test_a_checkpoint_of_regions_is_no_checkpoint_of_a_grid(
    region_store: FeatureStore, shared_store: FeatureStore, tmp_path: Path
) -> None:
    result = train(small_run("mcan", region_store.path, tmp_path, "schedule.epochs=1"))
    message = "reads regions of 8 numbers, .* has 4x4 cells of 8 numbers; use a store of the same"
    with pytest.raises(CheckpointError, match=message):
        check_store(load_checkpoint(result.checkpoint), shared_store)


class WithBoxes(torch.nn.Module):
    takes_boxes = True


def test_boxes_and_sizes_go_to_models_that_take_them(region_store: FeatureStore) -> None:
    questions = Questions(region_store, ["val"], max_tokens=14, targets=False)
    batch = questions.batch(np.arange(3))
    plain = model_inputs(torch.nn.Identity(), batch)
    assert [id(one) for one in plain] == [id(batch.features), id(batch.tokens), id(batch.cells)]
    *_, boxes, sizes = model_inputs(WithBoxes(), batch)
    assert boxes is not None
    assert boxes.shape == (3, batch.features.shape[1], 4)
    assert sizes is batch.sizes
