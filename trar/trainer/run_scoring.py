"""How a run looks at its model on the way: what it scores, and what it has learned."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from trar.trainer.evaluator import evaluate
from trar.trainer.figures import Figures, layers_in_training, mean_figures, spread_batches
from trar.trainer.flops import sample_flops
from trar.trainer.metrics import VqaScore
from trar.trainer.question_batches import Questions
from trar.trainer.run_parts import Parts
from trar.trainer.sampler import step_seed

_LOOKED_AT = 128  # questions: a few batches, so that a run is not slowed down


def model_cost(parts: Parts, model: nn.Module) -> dict[str, int | float]:
    """How many parameters ``model`` has, and the GFLOP of its forward pass of the first question
    that is trained on."""
    loader = parts.loader
    question = loader.questions.batch(loader.order.rows(0, 0)[:1])
    return {
        "parameters": sum(one.numel() for one in model.parameters()),
        "gflop_per_question": sample_flops(model, question) / 1e9,
    }


def score_on_the_way(
    parts: Parts, model: nn.Module, progress: Callable[[int, int], None]
) -> VqaScore:
    """The scores of the run's ``eval_split``, which it has."""
    assert parts.eval_split is not None
    return evaluate(
        model,
        parts.store,
        parts.eval_split,
        batch_size=parts.config.data.eval_batch_size,
        max_tokens=parts.longest_question,
        progress=progress,
        ranks=parts.ranks,
    )


def figures_on_the_way(parts: Parts, model: nn.Module, scored: nn.Module, steps: range) -> Figures:
    """What ``scored`` reports about some questions of the run's ``eval_split``, or of what is
    trained on where there is none, the same ones each time; and the layers that ``model``, in
    training mode, has gone through in these global ``steps``."""
    data, seed = parts.config.data, parts.config.seed
    splits = [parts.eval_split] if parts.eval_split else parts.config.splits
    questions = Questions(parts.store, splits, max_tokens=parts.longest_question, targets=False)
    batches = spread_batches(questions, _LOOKED_AT, data.eval_batch_size)
    used = layers_in_training(model, (step_seed(seed, step) for step in steps))
    return mean_figures(scored, batches) | used
