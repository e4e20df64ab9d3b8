"""What a run logs of its model: its cost once, and what it has learned as it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lxmert_runs import ALL, small_lxmert
from systems import small_run
from torch import Tensor
from training import StopAfter, small_config

from trar.features.reader import FeatureStore
from trar.trainer.batch import model_inputs
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.figures import mean_figures, spread_batches
from trar.trainer.flops import sample_flops
from trar.trainer.loop import TrainResult, train
from trar.trainer.models.adaptive_attention import Keys
from trar.trainer.question_batches import Questions
from trar.trainer.run_folder import read_log
from trar.trainer.sampler import step_seed


def lines(run: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in read_log(run) if line["event"] == event]


def val(store: FeatureStore) -> Questions:
    return Questions(store, ["val"], max_tokens=store.longest_question, targets=False)


@pytest.fixture(scope="module")
def adaptive(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """LXMERT with all its options, its last language layer pruned."""
    sets = (*ALL, "model.language_kept=[0]", "loop.eval_steps=4", "optim.lr=0.3")
    return train(small_lxmert(shared_store.path, tmp_path_factory.mktemp("adaptive"), *sets))


def test_the_cost_of_the_model_is_logged_once(shared_store: FeatureStore, tmp_path: Path) -> None:
    config = small_config(shared_store.path, tmp_path, "schedule.epochs=2", run="mine")
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(10))
    result = train(config, resume="auto")
    (line,) = lines(result.run, "model")
    model = load_checkpoint(result.checkpoint).model()
    assert line["parameters"] == sum(one.numel() for one in model.parameters())
    order = np.array([0])  # any question: of the tiny model's work the words are little
    one = Questions(
        shared_store, ["train"], max_tokens=shared_store.longest_question, targets=False
    ).batch(order)
    assert line["gflop_per_question"] == pytest.approx(sample_flops(model, one) / 1e9, rel=0.5)


def test_flops_are_those_of_the_eager_model_whatever_its_mode(shared_store: FeatureStore) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(8, 5), torch.nn.Linear(5, 3)
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, image: Tensor, question: Tensor, cells: Tensor) -> Tensor:
            out: Tensor = self.second(self.dropout(self.first(image))).sum(1)
            return out

    model, one = Two().train(), val(shared_store).batch(np.array([0]))
    rows = one.features.shape[1]
    assert sample_flops(model, one) == 2 * rows * (8 * 5 + 5 * 3)
    assert model.training
    model.compile(backend="aot_eager")  # never traced
    assert sample_flops(model, one) == 2 * rows * (8 * 5 + 5 * 3)


def test_the_routing_that_is_logged_is_the_mean_over_the_scored_questions(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = ("model.layers=2", "schedule.epochs=2", "schedule.decay_epochs=[1]")
    result = train(small_config(shared_store.path, tmp_path, *sets, "data.eval_batch_size=7"))
    logged = lines(result.run, "figures")
    assert [line["epoch"] for line in logged] == [1, 2]
    model, questions = load_checkpoint(result.checkpoint).model(), val(shared_store)
    record: list[Tensor] = []
    with torch.no_grad():
        for row in range(len(questions)):
            batch = questions.batch(np.array([row])).to(torch.device("cpu"))
            model(*model_inputs(model, batch), record=record)
    for layer in (0, 1):
        mean = torch.cat(record[layer::2]).mean(0)
        assert logged[-1]["figures"]["routing"][f"layer_{layer}"] == pytest.approx(mean.tolist())


def plain_zero_shares(model: Any, questions: Questions) -> dict[str, Any]:
    """Question by question, so that nothing is padded, and weight by weight."""
    shares: dict[str, list[list[float]]] = {}

    def look(name: str) -> Any:
        def count(attention: Any, inputs: tuple[Tensor, Tensor, Tensor, Keys]) -> None:
            q, k, _, keys = inputs
            p = attention.probabilities(q, k, keys)[0]
            real = [True] * k.shape[2] if keys.keep is None else keys.keep.flatten().tolist()
            shares.setdefault(name, []).append(
                [
                    float(np.mean([w == 0 for row in head for w, r in zip(row, real) if r]))  # noqa: B905
                    for head in p.tolist()
                ]
            )

        return count

    handles = [one.register_forward_pre_hook(look(name)) for name, one in model.attentions()]
    with torch.no_grad():
        for row in range(len(questions)):
            batch = questions.batch(np.array([row])).to(torch.device("cpu"))
            model(*model_inputs(model, batch))
    for handle in handles:
        handle.remove()
    return {name: np.mean(maps, axis=0) for name, maps in shares.items()}


def test_what_heads_have_learned_is_logged(
    adaptive: TrainResult, shared_store: FeatureStore
) -> None:
    figures = lines(adaptive.run, "figures")[-1]["figures"]
    model: Any = load_checkpoint(adaptive.checkpoint).model()
    named = dict(model.attentions())
    assert figures["alpha"] == {
        name: pytest.approx(one.alpha.tolist()) for name, one in named.items()
    }
    spans = {name: one.span for name, one in named.items() if one.span is not None}
    assert figures["span"] == {name: pytest.approx(x.tolist()) for name, x in spans.items()}
    wanted = plain_zero_shares(model, val(shared_store))
    assert figures["sparsity"].keys() == wanted.keys()
    assert "language.1.attention" not in wanted  # evaluation does not come by it
    for name, shares in wanted.items():
        assert figures["sparsity"][name] == pytest.approx(shares.tolist(), abs=1e-6), name
    assert max(max(row) for row in figures["sparsity"].values()) > 0.1


def test_the_layers_that_are_used_are_logged(adaptive: TrainResult) -> None:
    logged = lines(adaptive.run, "figures")
    at = [(line["epoch"], line.get("step")) for line in logged]
    assert at == [(1, 4), (1, None), (2, 4), (2, None)]
    checkpoint = load_checkpoint(adaptive.checkpoint)
    model: Any = checkpoint.model().train()
    per_epoch = checkpoint.step // 2
    for line in logged:
        assert line["figures"]["layers"] == {
            "language": [1, 0],
            "object": [1, 1],
            "cross": [1, 1],
        }
        first = (line["epoch"] - 1) * per_epoch
        steps = range(first, first + line.get("step", per_epoch))
        passes = [model.layers(step_seed(checkpoint.config.seed, step)) for step in steps]
        used = [
            sum(any(layer is one for one in a_pass["cross"]) for a_pass in passes) / len(passes)
            for layer in model.cross
        ]
        assert line["figures"]["layers_in_training"]["cross"] == pytest.approx(used)


def test_figures_draw_no_random_number_and_leave_the_mode(
    adaptive: TrainResult, shared_store: FeatureStore
) -> None:
    model = load_checkpoint(adaptive.checkpoint).model().train()
    model.get_submodule("pool").requires_grad_(False)
    before = torch.get_rng_state()
    first = mean_figures(model, spread_batches(val(shared_store), 20, 7))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())
    assert first == mean_figures(model, spread_batches(val(shared_store), 20, 7))


def test_a_run_that_was_stopped_logs_the_same_figures(
    adaptive: TrainResult, shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = (*ALL, "model.language_kept=[0]", "loop.eval_steps=4", "optim.lr=0.3")
    config = small_lxmert(shared_store.path, tmp_path, *sets, "loop.checkpoint_steps=3", run="mine")
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(5))
    resumed = train(config, resume="auto")
    for event in ("model", "figures"):
        assert lines(resumed.run, event) == lines(adaptive.run, event)


def test_a_model_that_reports_nothing_has_its_cost_alone(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    result = train(small_run("mcan", shared_store.path, tmp_path, "schedule.epochs=1",
                             "schedule.decay_epochs=[]"))  # fmt: skip
    assert len(lines(result.run, "model")) == 1
    assert not lines(result.run, "figures")


def test_figures_are_of_the_trained_questions_where_nothing_is_scored(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    sets = ("schedule.epochs=1", "schedule.decay_epochs=[]", "eval_split=null")
    result = train(small_config(shared_store.path, tmp_path, *sets))
    (line,) = lines(result.run, "figures")
    assert sum(line["figures"]["routing"]["layer_0"]) == pytest.approx(1)


def test_tensorboard_has_the_cost_and_a_curve_for_every_value(
    shared_store: FeatureStore, tmp_path: Path
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sets = ("schedule.epochs=2", "schedule.decay_epochs=[1]", "loop.tensorboard=true")
    result = train(small_config(shared_store.path, tmp_path, *sets))
    found = events.EventAccumulator(str(result.run / "tensorboard"))
    found.Reload()
    (cost,) = lines(result.run, "model")
    (point,) = found.Scalars("model/parameters")
    assert (point.step, point.value) == (0, cost["parameters"])
    assert [one.value for one in found.Scalars("model/gflop_per_question")] == pytest.approx(
        [cost["gflop_per_question"]]
    )
    for order in (0, 1):
        logged = [
            line["figures"]["routing"]["layer_0"][order] for line in lines(result.run, "figures")
        ]
        curve = found.Scalars(f"routing/layer_0/{order}")
        assert [one.value for one in curve] == pytest.approx(logged)
        assert [one.step for one in curve] == [8, 16]
