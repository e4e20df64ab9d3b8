"""Every system side by side: size, cost, published score, and what it reaches on easy-VQA here.

Size and cost are of the published recipe at VQA-v2's counts (20,573 words, 3,129 answers, 2,048
numbers a cell or region), the step time of a forward and backward pass over random batches,
interleaved round by round. Accuracy is that of the system's small recipe after the budget of the
preset `easy-vqa`, on the test split, by the commands that a user would type.

    python benchmarks/models.py --json models.json --readme README.md  # all; an hour on 2 cores
    python benchmarks/models.py --json models.json --no-easy           # sizes and costs alone
    python benchmarks/models.py --json models.json --no-costs --only rwsan-vqa
    python benchmarks/models.py --json models.json --no-costs --no-easy --readme README.md

`--json FILE` keeps the figures: what is measured now takes the place of what stands there, and the
table is of all that stands there then. Step times compare within one call. `--readme` puts the
table between the marks `<!-- models -->` and `<!-- /models -->`. A training that was stopped goes
on, and one that has ended is only scored again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import string
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import torch

from trar.features.reader import FeatureStore
from trar.trainer.batch import Batch, model_inputs
from trar.trainer.flops import sample_flops
from trar.trainer.model_settings import settings_class
from trar.trainer.model_sizes import FeatureSizes, model_config
from trar.trainer.models import build_model
from trar.trainer.preset_files import read_preset
from trar.trainer.run_folder import read_log

SCRIPTS = Path(sysconfig.get_path("scripts"))
WORDS, ANSWERS, WIDTH = 20_573, 3_129, 2_048
WORD_PIECES = 30_522
BATCH, TOKENS = 16, 14


@dataclasses.dataclass(frozen=True)
class System:
    """One row: its published preset, what it is, its rows of features (a grid's cells or regions),
    and its preset for easy-VQA."""

    preset: str
    what: str
    rows: int
    grid: bool
    easy: str | None


Figures = dict[str, dict[str, dict[str, Any]]]  # costs by preset, accuracies by easy-VQA preset
SYSTEMS = (
    System("vqa-soft-avg", "TRAR: attention routed over windows of the grid", 64, True, "easy-vqa"),
    System("mcan-small", "MCAN: deep co-attention", 100, False, "easy-vqa-mcan"),
    System("mcan-large", "the same, twice as wide", 100, False, None),
    System(
        "rwsan-vqa", "RWSAN: one layer's weights in all, low rank", 100, False, "easy-vqa-rwsan"
    ),
    System("lsat-vqa", "LSAT: attention within and between windows", 64, True, "easy-vqa-lsat"),
    System("lxmert-vqa", "LXMERT: two streams, boxes, word pieces", 36, False, "easy-vqa-lxmert"),
    System(
        "lxmert-span-entmax",
        "the same, adaptive span and sparsity",
        36,
        False,
        "easy-vqa-lxmert-span-entmax",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("models"), help="store and runs")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each system")
    names = [one.preset for one in SYSTEMS]
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--no-costs", action="store_true", help="no sizes and step times")
    parser.add_argument("--no-easy", action="store_true", help="do not train on easy-VQA")
    parser.add_argument("--json", type=Path, help="the figures: read, brought up to date, written")
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    options = parser.parse_args()
    systems = [one for one in SYSTEMS if not options.only or one.preset in options.only]
    figures: Figures = {"costs": {}, "easy_vqa": {}}
    if options.json and options.json.exists():
        figures = json.loads(options.json.read_text())

    def keep() -> None:
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")

    if not options.no_costs:
        figures["costs"].update(sizes_and_costs(systems, options.rounds))
        keep()
    for system in systems:
        if system.easy and not options.no_easy:
            figures["easy_vqa"][system.easy] = easy_accuracy(system.easy, options.folder)
            keep()
    text = table(figures)
    print(text)
    if options.readme:
        put(options.readme, text)


def sizes_and_costs(systems: list[System], rounds: int) -> dict[str, dict[str, Any]]:
    """Parameters, FLOPs and step time of each preset; the systems take turns."""
    models = [published_model(system) for system in systems]
    batches = [random_batch(system, BATCH) for system in systems]
    seconds: list[list[float]] = [[] for _ in systems]
    for _ in range(rounds + 1):
        for model, batch, taken in zip(models, batches, seconds, strict=True):
            model.train()
            begin = time.perf_counter()
            model(*model_inputs(model, batch)).square().mean().backward()
            taken.append(time.perf_counter() - begin)
            model.zero_grad(set_to_none=True)
    return {
        system.preset: {
            "parameters": sum(one.numel() for one in model.parameters()),
            "gflop": sample_flops(model, random_batch(system, 1)) / 1e9,
            "step_ms_per_question": 1000 * statistics.median(taken[1:]) / BATCH,
        }
        for system, model, taken in zip(systems, models, seconds, strict=True)
    }


def published_model(system: System) -> torch.nn.Module:
    """The model of a published recipe, untrained."""
    values = dict(read_preset(system.preset).values["model"])
    name = values.get("system", "trar")
    settings = settings_class(name).model_validate(
        {key: tuple(one) if isinstance(one, list) else one for key, one in values.items()}
    )
    side = round(system.rows**0.5) if system.grid else None
    words = WORD_PIECES if name == "lxmert" else WORDS
    sizes = FeatureSizes(WIDTH, side)
    torch.manual_seed(0)
    return build_model(
        model_config(settings, vocabulary_size=words, answer_count=ANSWERS, features=sizes)
    )


def random_batch(system: System, size: int) -> Batch:
    """Questions of full length about images without padding."""
    nothing = torch.empty(0, dtype=torch.int64)
    corner = torch.rand(size, system.rows, 2) * 200
    return Batch(
        features=torch.randn(size, system.rows, WIDTH),
        cells=torch.ones(size, system.rows, dtype=torch.bool),
        lengths=torch.full((size,), system.rows),
        tokens=torch.randint(1, WORDS, (size, TOKENS)),
        target_row=nothing,
        target_label=nothing,
        target_score=torch.empty(0),
        question_ids=torch.arange(size),
        boxes=torch.cat([corner, corner + 100], dim=2),
        sizes=torch.full((size, 2), 400, dtype=torch.int32),
    )


def easy_accuracy(preset: str, folder: Path) -> dict[str, Any]:
    """Train the preset on easy-VQA, and score its test split."""
    store, runs = easy_store(folder), folder / "runs"
    same = ["--store", store, "--runs", runs, "--run", preset, "--resume", "auto"]
    command("trar", "train", "--preset", preset, *same)
    score = json.loads(
        command("trar", "eval", runs / preset, "--store", store, "--split", "test", "--json")
    )
    epochs = [line for line in read_log(runs / preset) if line["event"] == "epoch"]
    return {
        "overall": score["overall"],
        "yes/no": score["per_answer_type"]["yes/no"],
        "without_the_image": score["without_the_image"]["overall"],
        "train_seconds": round(sum(line["seconds"] for line in epochs), 1),
    }


def easy_store(folder: Path) -> Path:
    """The prepared store, whose questions are also word pieces: the words that they have, and every
    letter for what else may be asked."""
    store = folder / "features"
    prepare = ["trar-data", "prepare", "--dataset", "easy-vqa", "--store", store]
    if not (store / "easy-vqa/store.json").exists():
        command(*prepare)
    if "wordpiece" not in FeatureStore(store).meta.vocabularies:
        words = FeatureStore(store).vocabulary.tokens[3:]  # after PAD, UNK and CLS
        letters = string.ascii_lowercase + string.digits
        alone = sorted({*words, *letters, *string.punctuation})
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces = folder / "vocab.txt"
        pieces.write_text("\n".join([*specials, *alone, *(f"##{one}" for one in letters)]) + "\n")
        command(*prepare, "--tokenizer", "wordpiece", "--wordpiece-vocab", pieces)
    return store


def command(program: str, *options: object) -> str:
    """What a command prints; ends with it where it fails."""
    words = [str(SCRIPTS / program), *map(str, options)]
    print("$", program, *map(str, options), file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def table(figures: Figures) -> str:
    """The figures as a Markdown table; a cell of what was not measured is empty."""
    lines = [
        "| preset | what it is | parameters | GFLOP a question | ms a question, forward and "
        "backward | published | easy-VQA test here (yes/no) |",
        "|---|---|---|---|---|---|---|",
    ]
    for system in SYSTEMS:
        cost = figures["costs"].get(system.preset)
        easy = figures["easy_vqa"].get(system.easy)
        missing = "" if system.easy else "no small recipe"
        stated = read_preset(system.preset).published
        cells = [
            f"`{system.preset}`",
            f"{system.what}, {system.rows} rows",
            f"{cost['parameters'] / 1e6:.1f} M" if cost else "",
            f"{cost['gflop']:.2f}" if cost else "",
            f"{cost['step_ms_per_question']:.1f}" if cost else "",
            f"{stated.overall:.2f} ({stated.scored_on})" if stated else "none",
            f"{easy['overall']:.2f} ({easy['yes/no']:.2f})" if easy else missing,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def put(readme: Path, text: str) -> None:
    """Replace what stands between the marks."""
    before, mark, rest = readme.read_text().partition("<!-- models -->\n")
    _, end, after = rest.partition("<!-- /models -->")
    if not (mark and end):
        sys.exit(f"{readme}: no <!-- models --> and <!-- /models --> to put the table between")
    readme.write_text(f"{before}{mark}{text}\n{end}{after}")


if __name__ == "__main__":
    main()
