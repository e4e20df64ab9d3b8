"""How fast batches of random images come from a store, beside every other way to keep them.

Images are generated, written in each form, and read in one interleaved run: memory copying (the
limit), np.load, zarr-python, h5py, LMDB, torch's DataLoader, webdataset, mosaicml-streaming,
litdata, and our readers and loader. Each one's batches are compared with the images, bit for bit.
What is not installed is skipped and said so: `pip install .[bench]`.

    python benchmarks/loader.py --folder /data/bench         # 8,192 images: 2 GiB, 27 GiB of disk
    python benchmarks/loader.py --quick --json figures.json  # a part of it, under 45 s

Prints a table with ratios and the targets; figures without ratios mean little on shared machines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from loading import cold, files, ours, report, streams
from loading.data import IMAGE_BYTES, Place, make_forms, make_images, read_all
from loading.race import race

_ALL_FORMS = 12.7  # bytes of all forms and the images themselves over those of the images
_FULL, _QUICK = 8192, 256
_LEFT_OUT = "left out by --quick"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help=f"how many ({_FULL:,}; --quick: {_QUICK})")
    parser.add_argument("--rounds", type=int, help="repeats of each measurement (11; --quick: 5)")
    parser.add_argument("--turn", type=float, help="seconds of a turn (0.25; --quick: 0.08)")
    parser.add_argument("--quick", action="store_true", help="limit, npz, npy, h5py, LMDB and ours")
    parser.add_argument("--folder", type=Path, help="where forms are made, and kept for next time")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    count = options.images or (_QUICK if options.quick else _FULL)
    count, notes = _fitting(count, options.images is not None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)) / f"{count}-images"
        rounds = options.rounds or (5 if options.quick else 11)
        turn_s = options.turn or (0.08 if options.quick else 0.25)
        found = measure(folder, count, rounds, turn_s, options.quick)
    found["notes"] = notes
    print(report.text(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(folder: Path, count: int, rounds: int, turn_s: float, quick: bool) -> dict[str, Any]:
    """Make what is missing, run, and put all figures together."""
    contenders = [*files.contenders(), *streams.contenders(), *ours.contenders()]
    left_out = {
        one.name: _LEFT_OUT if quick and not one.quick else one.missing() for one in contenders
    }
    _say("making images")
    place = Place(folder, make_images(count))
    forms = {form for one in contenders if not left_out[one.name] for form in one.forms}
    make_forms(place, forms, _say)
    os.sync()  # or the disk would be busy meanwhile, and written pages cannot be forgotten
    _say("reading all of it once")
    read_all(place, forms)
    results = race(place, contenders, left_out, rounds, turn_s, _say)
    skip = _LEFT_OUT if quick else cold.why_not()
    colds = [] if skip else cold.measure(place, 3, _say)
    return {
        "machine": report.machine(),
        "images": count,
        "rounds": rounds,
        "quick": quick,
        "rows": report.rows(results),
        "cold": skip or report.cold_rows(colds),
        "targets": report.target_rows(results, colds),
    }


def _fitting(count: int, asked: bool) -> tuple[int, list[str]]:
    """Every form must stay in the page cache together, or the disk would be measured."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free_kb = int(next(one.split()[1] for one in lines if one.startswith("MemAvailable")))
    fit = int(0.7 * 1024 * free_kb / (_ALL_FORMS * IMAGE_BYTES)) // 64 * 64
    if count <= fit:
        return count, []
    needed_gib = count * _ALL_FORMS * IMAGE_BYTES / 0.7 / 2**30
    needed = f"{count:,} images need {needed_gib:.0f} GiB of free memory"
    if asked:
        return count, [f"{needed} to stay cached in every form: figures may be the disk's"]
    return fit, [f"{needed} to stay cached in every form: taken {fit:,}"]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
