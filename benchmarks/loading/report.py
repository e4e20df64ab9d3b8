"""The figures of a run as rows, as text, and beside the targets."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from loading import streams
from loading.cold import Cold
from loading.files import LIMIT, NPY16, NPY32, NPZ
from loading.ours import reader, ring
from loading.race import Result
from trar.console import table

_PREADV, _MMAP, _CHECKED = (reader("zarr", one) for one in ("preadv", "mmap", "crc-checked"))
_PACKAGES = (
    "trar",
    "numpy",
    "crc32c",
    "torch",
    "zarr",
    "h5py",
    "tensorstore",
    "lmdb",
    "webdataset",
    "mosaicml-streaming",
    "litdata",
)


@dataclass(frozen=True)
class Target:
    """``name`` is to be ``at_least`` times ``over``."""

    name: str
    over: str
    at_least: float


TARGETS = (
    Target(_PREADV, LIMIT, 0.70),
    Target(_MMAP, LIMIT, 0.85),
    Target(_CHECKED, LIMIT, 0.35),
    Target(_PREADV, NPZ, 100),
    Target(_PREADV, NPY32, 7),
    Target(_PREADV, NPY16, 4),
    Target(_CHECKED, NPZ, 60),
    Target(_CHECKED, NPY32, 4),
    Target(_CHECKED, NPY16, 2.5),
    Target(ring("zarr", "preadv"), LIMIT, 0.40),
    Target(ring("zarr", "mmap"), LIMIT, 0.55),
    Target(ring("zarr", "crc-checked"), LIMIT, 0.30),
    Target(ring("zarr", "crc-checked"), streams.LOADER_NPZ, 40),
    Target(ring("zarr", "crc-checked"), streams.LOADER_NPY, 12),
    *(Target(reader("hdf5", one), reader("zarr", one), 0.75) for one in ("preadv", "crc-checked")),
)
COLD_TARGET = 0.80


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row a contender, as JSON takes it."""
    npz = next(one for one in results if one.contender.name == NPZ)
    return [_row(one, npz) for one in results]


def _row(one: Result, npz: Result) -> dict[str, Any]:
    to_limit = to_limit_cpu = to_npz = speed = None
    if not one.skipped:
        speed, to_npz = round(one.images_per_s, 1), round(one.over(npz).wall, 2)
        to_limit, to_limit_cpu = (round(ratio, 4) for ratio in one.of_limit)
    return {
        "name": one.contender.name,
        "images_per_s": speed,
        "ratio_to_limit": to_limit,
        "ratio_to_limit_cpu": None if one.contender.processes else to_limit_cpu,
        "ratio_to_npz": to_npz,
        "order": "own" if one.contender.own_order else "given",
        "skipped": one.skipped,
    }


def target_rows(results: Sequence[Result], cold: Sequence[Cold]) -> list[dict[str, Any]]:
    """Each target with what was found, and by processor time; None where a side did not run."""
    by_name = {one.contender.name: one for one in results}
    found = []
    for target in TARGETS:
        ours, other = by_name[target.name], by_name[target.over]
        if ours.skipped or other.skipped:
            found.append(_target_row(target, None, None))
            continue
        ratio = ours.of_limit if target.over == LIMIT else ours.over(other)
        found.append(
            _target_row(target, ratio.wall, None if other.contender.processes else ratio.cpu)
        )
    for one in cold:
        target = Target(f"cold, {one.name}", "sequential O_DIRECT", COLD_TARGET)
        found.append(_target_row(target, one.ratio, None))
    return found


def _target_row(target: Target, ratio: float | None, cpu: float | None) -> dict[str, Any]:
    return {
        "what": f"{target.name} / {target.over}",
        "at_least": target.at_least,
        "found": None if ratio is None else round(ratio, 3),
        "found_cpu": None if cpu is None else round(cpu, 3),
        "reached": None if ratio is None else ratio >= target.at_least,
    }


def cold_rows(cold: Sequence[Cold]) -> list[dict[str, Any]]:
    """One row a container, as JSON takes it."""
    return [
        {
            "name": one.name,
            "images_per_s": [round(rate, 1) for rate in one.rates],
            "sequential_images_per_s": [round(rate, 1) for rate in one.sequential],
            "ratio": None if one.ratio is None else round(one.ratio, 3),
            "from_disk": round(one.from_disk, 3),
        }
        for one in cold
    ]


def machine() -> dict[str, Any]:
    """What the figures were measured on, without its name."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        "ram_GiB": round(pages / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def text(report: dict[str, Any]) -> str:
    """The whole report for a person."""
    where, lines = report["machine"], []
    lines.append(
        f"{report['images']:,} images of 64x2048 float16 ({report['images'] / 4096:.2f} GiB), "
        f"{report['rounds']} rounds, {where['date']}"
    )
    lines.append(
        f"{where['processor']}, {where['cores']} cores, {where['ram_GiB']} GiB, {where['kernel']}, "
        f"Python {where['python']}"
    )
    lines += [f"Note: {note}" for note in report["notes"]]
    lines += ["", *_warm_lines(report["rows"]), "", *_cold_lines(report["cold"])]
    return "\n".join([*lines, "", _target_table(report["targets"])])


def _warm_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    cells = [
        (
            one["name"] + (" (own order)" if one["order"] == "own" else ""),
            f"{one['images_per_s']:,.0f}",
            f"{one['ratio_to_limit']:.3f}",
            _figure(one["ratio_to_limit_cpu"], 3),
            f"{one['ratio_to_npz']:.1f}",
        )
        for one in rows
        if not one["skipped"]
    ]
    yield table(cells, header=("warm", "images/s", "x limit", "by cpu", "x npz"))
    for why in dict.fromkeys(one["skipped"] for one in rows if one["skipped"]):
        names = (one["name"] for one in rows if one["skipped"] == why)
        yield f"skipped, {why}: {'; '.join(names)}"


def _cold_lines(cold: list[dict[str, Any]] | str) -> Iterator[str]:
    if isinstance(cold, str):
        yield f"cold: skipped, {cold}"
        return
    for one in cold:
        yield (
            f"cold: {one['name']}: {_figure(one['ratio'], 2) or 'no share'} of a sequential "
            f"O_DIRECT read ({100 * one['from_disk']:.0f} % of the bytes came from the disk)"
        )


def _target_table(targets: list[dict[str, Any]]) -> str:
    marks = {True: "reached", False: "MISSED", None: "not measured"}
    cells = [
        (
            one["what"],
            f"{one['at_least']:g}",
            _figure(one["found"], 2),
            _figure(one["found_cpu"], 2),
            marks[one["reached"]],
        )
        for one in targets
    ]
    return table(cells, header=("target", "at least", "found", "by cpu", ""))


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
