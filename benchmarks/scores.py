"""How long the official VQA score of val2014 takes: 214,354 questions with ten answers each.

The annotations are generated: about as many different answers, and as many of them alike within a
question, as in VQA-v2; predictions are of the 3,129 commonest. Each round measures, in turn,

* plain: a loop over the parsed JSON that remembers normal forms, and gives the overall score alone;
* parsed: ours from the same parsed JSON, overall and by all types;
* columns: ours from columns of numbered texts;
* intervals: the bootstrap of that score;
* files: ours from the three files on disk.

Nothing is remembered from one measurement to the next. Each is given in seconds of the clock and of
the processor (one core), since other work on the machine slows the first more than the second.

    python benchmarks/scores.py --rounds 5 --json scores.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from trar.features.answers import normalize_answer
from trar.features.columns import CodedTexts
from trar.trainer.metrics import vqa
from trar.trainer.metrics.bootstrap import intervals
from trar.trainer.metrics.vqa_files import read_annotations

QUESTIONS = 214_354
LEARNED = 3_129  # answers that a model can give, the commonest
TEXTS = 130_000  # of which some 80,000 come up, as extrapolated from 57,038 real questions


def make_files(folder: Path, questions: int, seed: int) -> tuple[Path, Path, Path]:
    """Questions, annotations and results of the official schema."""
    rng = np.random.default_rng(seed)
    common = ["yes", "no", *map(str, range(10)), "red", "white", "blue", "none", "left", "nothing"]
    texts = common + [f"{w} {n}" if n % 3 else f"{w}-{n}" for n in range(TEXTS) for w in ["thing"]]
    weights = 1 / np.arange(1, len(texts) + 1) ** 1.1
    weights /= weights.sum()
    main = rng.choice(len(texts), questions, p=weights)
    agrees = rng.random((questions, 10)) < rng.beta(2, 0.8, (questions, 1))
    given = np.where(agrees, main[:, None], rng.choice(len(texts), (questions, 10), p=weights))
    knows = (rng.random(questions) < 0.7) & (main < LEARNED)
    predicted = np.where(knows, main, rng.choice(LEARNED, questions))
    ids = [1000 * (row // 5) + row % 5 for row in range(questions)]
    kinds, types = ("yes/no", "number", "other"), [f"question type {n}" for n in range(65)]
    annotations = [
        {
            "question_type": types[row % 65],
            "multiple_choice_answer": texts[own[0]],
            "answers": [
                {"answer": texts[one], "answer_confidence": "yes", "answer_id": number}
                for number, one in enumerate(own, 1)
            ],
            "image_id": row // 5,
            "answer_type": kinds[row % 3],
            "question_id": ids[row],
        }
        for row, own in enumerate(given.tolist())
    ]
    asked = [
        {"image_id": row // 5, "question": "What is on the table?", "question_id": ids[row]}
        for row in range(questions)
    ]
    results = [
        {"question_id": question_id, "answer": texts[one]}
        for question_id, one in zip(ids, predicted.tolist(), strict=True)
    ]
    contents = {"q.json": {"questions": asked}, "a.json": {"annotations": annotations}}
    for name, content in {**contents, "r.json": results}.items():
        (folder / name).write_bytes(msgspec.json.encode(content))
    return folder / "q.json", folder / "a.json", folder / "r.json"


def plain(annotations: Any, results: Any) -> float:
    """The 2021 rules in a loop, four equal answers or more being right."""
    normal: dict[str, str] = {}

    def form(text: str) -> str:
        if text not in normal:
            normal[text] = normalize_answer(text.replace("\n", " ").replace("\t", " ").strip())
        return normal[text]

    given = {one["question_id"]: one["answer"] for one in results}
    total = 0.0
    for annotation in annotations["annotations"]:
        texts = [one["answer"] for one in annotation["answers"]]
        guess = given[annotation["question_id"]]
        if len(set(texts)) > 1:
            texts, guess = [form(text) for text in texts], form(guess)
        total += (0, 0.3, 0.6, 0.9, 1)[min(4, texts.count(guess))]
    return round(100 * total / len(given), 2)


def whole(score: vqa.VqaScore) -> float:
    """The overall score, with all that a report prints worked out."""
    assert score.per_answer_type
    assert len(score.per_question_type) == 65
    return score.overall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder), options.questions, options.seed)
        report = measure(files, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"{report['questions']:,} questions, {report['different_answers']:,} different answers, "
        f"{report['annotation_bytes'] / 2**20:.0f} MiB of annotations, {options.rounds} rounds"
    )
    print(f"{'':<12}{'clock, s':>10}{'processor, s':>14}{'plain / this':>14}")
    for name, one in report["measured"].items():
        print(f"{name:<12}{one['clock_s']:>10.2f}{one['cpu_s']:>14.2f}{one['speed']:>14.2f}")


def measure(files: tuple[Path, Path, Path], rounds: int) -> dict[str, Any]:
    """Least seconds of each way, and the median of how many times as fast it is as the loop, by
    processor time."""
    parsed = [msgspec.json.decode(file.read_bytes()) for file in files]
    truth = read_annotations(files[1])
    answer_of = {one["question_id"]: one["answer"] for one in parsed[2]}
    given = CodedTexts.of(answer_of[question_id] for question_id in truth.ids.tolist())
    columns = (truth.ids, given, truth.answers, truth.question_types, truth.answer_types)
    last = vqa.score_columns(*columns)
    ways: dict[str, Callable[[], float]] = {
        "plain": lambda: plain(parsed[1], parsed[2]),
        "parsed": lambda: whole(vqa.score(*parsed)),
        "columns": lambda: whole(vqa.score_columns(*columns)),
        "intervals": lambda: intervals(last).overall[0],
        "files": lambda: whole(vqa.score(*files)),
    }
    clock: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, float] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            normalize_answer.cache_clear()
            begin = time.perf_counter(), time.process_time()
            found[name] = way()
            clock[name].append(time.perf_counter() - begin[0])
            cpu[name].append(time.process_time() - begin[1])
    assert found["plain"] == found["parsed"] == found["columns"] == found["files"], found
    return {
        "questions": len(truth.ids),
        "different_answers": len(set(truth.answers.flat.known)),
        "annotation_bytes": files[1].stat().st_size,
        "overall": found["plain"],
        "measured": {
            name: {
                "clock_s": min(clock[name]),
                "cpu_s": min(cpu[name]),
                "speed": statistics.median(
                    loop / one for loop, one in zip(cpu["plain"], cpu[name], strict=True)
                ),
            }
            for name in ways
        },
    }


if __name__ == "__main__":
    main()
