"""The main job on easy-VQA, as a newcomer would type it: prepare, verify, train, eval.

Runs the four commands as processes, times them, and ends with a table. `make demo` calls it.

    python benchmarks/demo.py --folder demo            # the whole data set
    python benchmarks/demo.py --folder demo --limit 200  # a small budget, to see that it runs
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(command: list[str], capture: bool = False) -> tuple[float, str]:
    """Print a command, run it, and return its seconds and, if captured, what it printed."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    begin = time.perf_counter()
    result = subprocess.run(
        [str(SCRIPTS / command[0]), *command[1:]],
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(result.returncode)
    return time.perf_counter() - begin, result.stdout or ""


def free_name(folder: Path) -> Path:
    """The folder, or the next free number: an earlier demo is never overwritten."""
    number, name = 1, folder
    while name.exists():
        number += 1
        name = folder.with_name(f"{folder.name}-{number}")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    parser.add_argument("--limit", type=int, help="images a split; also trains one epoch only")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    folder = free_name(options.folder)
    store, runs = str(folder / "features"), str(folder / "runs")

    prepare = ["trar-data", "prepare", "--dataset", "easy-vqa", "--store", store]
    train = ["trar", "train", "--store", store, "--runs", runs, "--run", "demo"]
    if options.limit is not None:
        prepare += ["--limit", str(options.limit)]
        train += ["--set", "schedule.epochs=1", "--set", "schedule.decay_epochs=[]"]
    if options.seed is not None:
        train += ["--seed", str(options.seed)]
    run_folder = folder / "runs" / "demo"
    score = ["trar", "eval", str(run_folder), "--store", store, "--split", "test", "--json"]

    seconds = {
        "prepare": run(prepare)[0],
        "verify": run(["trar-data", "verify", "--store", store])[0],
        "train": run(train)[0],
    }
    seconds["eval"], text = run(score, capture=True)
    report: dict[str, Any] = json.loads(text)
    report["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{table(report)}")
    print(f"\nstore       {report['store']}")
    print(f"checkpoint  {report['checkpoint']}")
    print(f"log         {run_folder / 'log.jsonl'}")


def table(report: dict[str, Any]) -> str:
    """Accuracies beside the baseline that never looks at the image, then the time of each stage."""
    blind = report["without_the_image"]
    kinds = ["overall", *report["per_answer_type"]]
    lines = [
        f"easy-VQA {report['split']}, {report['questions']:,} questions, {report['rules']}",
        f"{'accuracy, percent':<42}" + "".join(f"{kind:>9}" for kind in kinds),
    ]
    for name, scores in (
        ("this model", report),
        ("most frequent answer to the question text", blind),
    ):
        values = [scores["overall"], *(scores["per_answer_type"][kind] for kind in kinds[1:])]
        lines.append(f"{name:<42}" + "".join(f"{value:>9.2f}" for value in values))
    lines.append("")
    total = sum(report["seconds"].values())
    lines += [f"{name:<42}{value:>7.1f} s" for name, value in report["seconds"].items()]
    lines.append(f"{'all four stages':<42}{total:>7.1f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
