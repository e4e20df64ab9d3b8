"""What ``trar-data prepare`` costs: the question side at VQA-v2's full size, and features an image.

Questions: files of the official form and counts are generated (train, val, test, and Visual Genome
with ten copies of each answer), and prepared with a few tiny images, so that nearly all of the
time and memory is theirs. Features: compressed ``.npz`` against a bare loop of ``np.load``, float16
``.npy`` against copying and fsyncing the same bytes, in one process and in two, interleaved.

    python benchmarks/prepare.py                      # everything; 3 GB of disk, 15 minutes
    python benchmarks/prepare.py --scale 0.01 --images 64 --rounds 1   # to see that it runs

Prints a table, and writes JSON with ``--json FILE``. Ratios, because machines are shared and noisy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# split -> image split, image ids begin at, number of questions, whether annotated
COUNTS = {
    "train": ("train2014", 0, 443_757, True),
    "val": ("val2014", 200_000, 214_354, True),
    "test": ("test2015", 400_000, 447_793, False),
    "vg": ("train2014", 0, 485_000, True),
}
NAMES = {
    "train": ("v2_OpenEnded_mscoco_train2014_questions", "v2_mscoco_train2014_annotations"),
    "val": ("v2_OpenEnded_mscoco_val2014_questions", "v2_mscoco_val2014_annotations"),
    "test": ("v2_OpenEnded_mscoco_test2015_questions", ""),
    "vg": ("VG_questions", "VG_annotations"),
}
SUBTYPES = {"train": "train2014", "val": "val2014", "test": "test2015", "vg": "vg"}
QUESTIONS_AN_IMAGE = 900  # ids are image id * 1000 + number; few images, so that they cost little
WORDS, TYPES, COMMON_ANSWERS, RARE_ANSWERS = 25_000, 65, 3_200, 400_000
SHAPES = {"64x2048": (64, 2048), "2048x36": (2048, 36)}
CASES = (("npz float32", "64x2048"), ("npz float32", "2048x36"), ("npy float16", "64x2048"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="where questions are made, and kept for the next time"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the questions")
    parser.add_argument("--images", type=int, default=1024, help="images a process and round")
    parser.add_argument("--rounds", type=int, default=5, help="repeats of each measurement")
    parser.add_argument("--only", choices=["questions", "features"])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    report: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if options.only != "features":
            report["questions"] = measure_questions(folder, options.scale, options.rounds)
        if options.only != "questions":
            report["features"] = measure_features(folder, options.images, options.rounds)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def table(report: dict[str, Any]) -> str:
    """The figures as text."""
    lines = []
    if "questions" in report:
        one = report["questions"]
        lines += [
            f"{one['questions']:,} questions, {one['answers']:,} answers, {one['files_MiB']:,} MiB",
            f"{'':<12}{'wall s':>9}{'cpu s':>9}{'peak RSS MiB':>14}",
        ]
        for name, pick in (("least", min), ("median", statistics.median)):
            figures = [pick(one[key]) for key in ("wall_s", "cpu_s", "peak_MiB")]
            lines.append(f"{name:<12}{figures[0]:>9.1f}{figures[1]:>9.1f}{figures[2]:>14.0f}")
        lines.append("")
    if "features" in report:
        heads = ("ours ms", "least", "bare ms", "least", "bare / ours", "of least")
        lines.append(f"{'features':<21}{'processes':>10}" + "".join(f"{one:>12}" for one in heads))
    keys = ("ours_ms", "ours_least_ms", "bare_ms", "bare_least_ms", "ratio", "ratio_of_least")
    for row in report.get("features", []):
        figures = "".join(f"{row[key]:>12.2f}" for key in keys)
        lines.append(f"{row['form'] + ' ' + row['shape']:<21}{row['processes']:>10}{figures}")
    return "\n".join(lines)


def measure_questions(folder: Path, scale: float, rounds: int) -> dict[str, Any]:
    """Wall and processor seconds, and peak resident memory, of the whole command."""
    raw = folder / f"questions-{scale:g}"
    partial = raw.with_name(f"{raw.name}.partial")
    if not raw.exists():
        shutil.rmtree(partial, ignore_errors=True)
        with _processes(1) as pool:  # so that this process stays small: a child inherits its peak
            pool.submit(make_questions, partial, scale).result()
        partial.rename(raw)
    command = [str(Path(sysconfig.get_path("scripts"), "trar-data")), "prepare", "--raw", str(raw)]
    command += ["--split", "train+val+test+vg", "--workers", "1"]
    walls, cpus, peaks = [], [], []
    for _ in range(rounds):
        store = folder / "features"
        shutil.rmtree(store, ignore_errors=True)
        begin = time.perf_counter()
        child = subprocess.Popen([*command, "--store", str(store)], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        walls.append(round(time.perf_counter() - begin, 2))
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(child.returncode)
        cpus.append(round(used.ru_utime + used.ru_stime, 2))
        peaks.append(used.ru_maxrss // 1024)
    files = [path.stat().st_size for path in (raw / "vqa/raw").iterdir()]
    return {
        "questions": sum(round(scale * one[2]) for one in COUNTS.values()),
        "answers": sum(10 * round(scale * one[2]) for one in COUNTS.values() if one[3]),
        "files_MiB": sum(files) >> 20,
        "wall_s": walls,
        "cpu_s": cpus,
        "peak_MiB": peaks,
    }


def make_questions(raw: Path, scale: float) -> None:
    """TRAR's folder layout below ``raw``: question and annotation files, and tiny images."""
    rng = np.random.default_rng(0)
    words = _make_words(rng, WORDS)
    openings = [" ".join(words[i : i + 2]).capitalize() for i in range(0, 2 * TYPES, 2)]
    common = words[:COMMON_ANSWERS]
    rare = [f"{a} {b}" for a, b in zip(*(rng.permutation(words * 16) for _ in "ab"), strict=True)]
    answers = common + [*rare, *(one + "." for one in rare)][:RARE_ANSWERS]
    (raw / "vqa/raw").mkdir(parents=True)
    images: dict[str, set[int]] = {}
    for split, (image_split, first, full, annotated) in COUNTS.items():
        count = round(scale * full)
        number = np.arange(count)
        image = first + number // QUESTIONS_AN_IMAGE
        ids = image * 1000 + number % QUESTIONS_AN_IMAGE
        images.setdefault(image_split, set()).update(image.tolist())
        kinds = rng.integers(TYPES, size=count)
        head = {"info": {"version": "2.0"}, "data_subtype": SUBTYPES[split]}
        name, annotations = NAMES[split]
        rows = _question_rows(rng, ids, image, kinds, openings, words)
        _write_rows(raw / f"vqa/raw/{name}.json", head, "questions", rows)
        if annotated:
            copies = split == "vg"
            lines = _annotation_rows(rng, ids, image, kinds, openings, answers, copies)
            _write_rows(raw / f"vqa/raw/{annotations}.json", head, "annotations", lines)
    for image_split, known in images.items():
        folder = raw / "vqa/feats" / image_split
        folder.mkdir(parents=True)
        for image_id in known:
            np.save(folder / f"{image_id}.npy", np.ones((64, 4), np.float16))


def _make_words(rng: np.random.Generator, count: int) -> list[str]:
    """That many different words, of two to five syllables."""
    syllables = [a + b for a in "bcdfghjklmnprstvw" for b in ("a", "e", "i", "o", "u", "ar", "in")]
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice(syllables, size=rng.integers(1, 5)))] = None
    return list(words)


def _often(rng: np.random.Generator, kinds: int, size: int | tuple[int, int]) -> NDArray[np.int64]:
    """Numbers below ``kinds``, number r about as often as 1 / (r + 3)."""
    cumulated = np.cumsum(1 / (np.arange(kinds) + 3.0))
    return np.searchsorted(cumulated, rng.random(size) * cumulated[-1])


def _question_rows(
    rng: np.random.Generator,
    ids: NDArray[np.int64],
    image: NDArray[np.int64],
    kinds: NDArray[np.int64],
    openings: Sequence[str],
    words: Sequence[str],
) -> list[str]:
    lengths = rng.integers(2, 7, size=len(ids)).tolist()
    chosen = _often(rng, len(words), (len(ids), 6)).tolist()
    return [
        f'{{"image_id": {one}, "question": "{openings[kind]} '
        f'{" ".join(words[word] for word in row[:length])}?", "question_id": {number}}}'
        for number, one, kind, row, length in zip(
            ids.tolist(), image.tolist(), kinds.tolist(), chosen, lengths, strict=True
        )
    ]


def _annotation_rows(
    rng: np.random.Generator,
    ids: NDArray[np.int64],
    image: NDArray[np.int64],
    kinds: NDArray[np.int64],
    openings: Sequence[str],
    answers: Sequence[str],
    copies: bool,
) -> list[str]:
    """Ten answers a question: mostly the same one, some other common ones, a few rare ones."""
    best = _often(rng, COMMON_ANSWERS, len(ids))
    given = np.repeat(best[:, None], 10, axis=1)
    if not copies:
        how = rng.random(given.shape)
        other = _often(rng, COMMON_ANSWERS, given.shape)
        rare = rng.integers(COMMON_ANSWERS, len(answers), given.shape)
        given = np.where(how < 0.25, other, given)
        given = np.where(how < 0.05, rare, given)
    types = ("yes/no", "number", "other")
    return [
        f'{{"question_type": "{openings[kind].lower()}", "multiple_choice_answer": "{answers[top]}"'
        ', "answers": ['
        + ", ".join(
            f'{{"answer": "{answers[answer]}", "answer_confidence": "yes", "answer_id": {k}}}'
            for k, answer in enumerate(row, 1)
        )
        + f'], "image_id": {one}, "answer_type": "{types[kind % 3]}", "question_id": {number}}}'
        for number, one, kind, top, row in zip(
            ids.tolist(), image.tolist(), kinds.tolist(), best.tolist(), given.tolist(), strict=True
        )
    ]


def _write_rows(path: Path, head: dict[str, Any], key: str, rows: list[str]) -> None:
    path.write_text(f'{json.dumps(head)[:-1]}, "{key}": [{", ".join(rows)}]}}')


def _processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


def measure_features(folder: Path, images: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds an image of a shard's writing and of the bare work, and their ratio."""
    rows = []
    for form, shape in CASES:
        for count in (1, 2):
            with _processes(count) as pool:
                parts = [folder / "images" / f"{form} {shape} {n}" for n in range(count)]
                list(pool.map(_make_images, parts, [form] * count, [shape] * count, [images] * 2))
                times: dict[str, list[float]] = {"ours": [], "bare": []}
                for number in range(rounds + 1):  # the first warms up and does not count
                    for name in list(times)[:: 1 if number % 2 else -1]:
                        work = _write_shard if name == "ours" else _BARE[form]
                        begin = time.perf_counter()
                        list(pool.map(work, parts, [shape] * count))
                        seconds = time.perf_counter() - begin
                        times[name].append(1e3 * seconds / (images * count))
                        for part in parts:
                            shutil.rmtree(part / "made", ignore_errors=True)
            rows.append(_feature_row(form, shape, count, times))
            for part in parts:
                shutil.rmtree(part)
    return rows


def _feature_row(
    form: str, shape: str, count: int, times: dict[str, list[float]]
) -> dict[str, Any]:
    ours, bare = times["ours"][1:], times["bare"][1:]
    ratios = [b / a for a, b in zip(ours, bare, strict=True)]
    return {
        "form": form,
        "shape": shape,
        "processes": count,
        "ours_ms": round(statistics.median(ours), 3),
        "ours_least_ms": round(min(ours), 3),
        "bare_ms": round(statistics.median(bare), 3),
        "bare_least_ms": round(min(bare), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_of_least": round(min(bare) / min(ours), 2),
    }


def _make_images(folder: Path, form: str, shape: str, images: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(images):  # half of the values are zeros, as after a network's last ReLU
        values = np.maximum(rng.standard_normal(SHAPES[shape], np.float32), 0)
        if form == "npz float32":
            np.savez_compressed(folder / f"{number}.npz", x=values)
        else:
            np.save(folder / f"{number}.npy", values.astype(np.float16))


def _write_shard(folder: Path, shape: str) -> None:
    """What one worker does: read, check, cast, write one shard, with its receipt."""
    from trar.features.schema import WORK_FOLDER, FeatureSpec
    from trar.features.shard_writer import ShardPlace
    from trar.pipeline.engine import ShardTask, write_shard
    from trar.pipeline.readers.feature_files import FeatureFiles
    from trar.pipeline.readers.image import Form

    cells = min(SHAPES[shape])
    images = FeatureFiles.scan(folder, "train2014")
    store = folder / "made"
    (store / WORK_FOLDER).mkdir(parents=True)
    if shape == "64x2048":
        form, spec = Form(8), FeatureSpec(cells, 2048, "float16", (8, 8))
    else:
        form, spec = Form(None, 2048), FeatureSpec(cells, 2048, "float16")
    place = ShardPlace(store, "train2014", 0, len(images), spec)
    write_shard(ShardTask(place, images.with_form(form), form, ""))


def _load_npz(folder: Path, shape: str) -> None:
    for path in folder.glob("*.npz"):
        with np.load(path) as arrays:
            assert arrays["x"].shape == SHAPES[shape]


def _copy_npy(folder: Path, shape: str) -> None:
    (folder / "made").mkdir()
    with (folder / "made/copy").open("wb") as file:
        for path in folder.glob("*.npy"):
            file.write(path.read_bytes())
        file.flush()
        os.fsync(file.fileno())


_BARE: dict[str, Callable[[Path, str], None]] = {
    "npz float32": _load_npz,
    "npy float16": _copy_npy,
}


if __name__ == "__main__":
    main()
