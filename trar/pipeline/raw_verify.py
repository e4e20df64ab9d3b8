"""Are the raw files of a dataset the published ones, and do they belong together?

Every file that the manifest knows is looked for below ``--raw`` and judged: archives by size and
digest, question files by header, counts and ids; then the joins: questions with annotations,
sources with each other, and questions with images. Nothing is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trar.errors import ConfigError, RawDataError, TrarError
from trar.features.progress import Progress
from trar.fileio import disk_errors
from trar.pipeline.manifest import Archive, DatasetFiles, RawFile, dataset_files
from trar.pipeline.published import check_form, check_published
from trar.pipeline.raw_records import (
    COUNTED,
    RECORD_CHECKS,
    Records,
    Remark,
    Status,
    count_records,
    index_remarks,
    join_remarks,
)

ImageIds = Callable[[str], NDArray[np.int64]]

_SHOWN = 5  # offenders that a message names
_CLEVR_IMAGE = re.compile(r"CLEVR_([A-Za-z]+)_([0-9]{6})\.png")


@dataclass(frozen=True)
class RawFinding:
    """One line on a raw file: ``file`` names it (or what is joined), ``what`` says what it is.

    ``error``: it cannot be used as it is. ``warning``: it differs from what is published, which a
    part of a dataset or a re-serialised copy does rightly. ``info``: good to know.
    """

    file: str
    status: Status
    what: str


def verify_raw(
    raw: Path,
    dataset: str,
    splits: Sequence[str] | None = None,
    progress: Progress = lambda *_: None,
    image_ids: ImageIds | None = None,
    files: DatasetFiles | None = None,
) -> list[RawFinding]:
    """Judge the raw files of a dataset below ``raw``.

    Question and annotation files are reported whether they are there or not, others only where
    they are. ``image_ids`` gives the ids, (m,) int64, of the images that have features in an image
    split, and raises RawDataError where there are none.

    Raises:
        ConfigError: an unknown dataset or split.
        RawDataError: ``raw`` is no folder.
        DiskError: a file that the operating system does not let us read.
    """
    known = files or dataset_files(dataset)
    entries = _entries(known, splits)
    if not raw.is_dir():
        raise RawDataError(f"{raw}: no such folder; point --raw at the folder of the raw files")
    findings: list[RawFinding] = []
    records: dict[tuple[str, str], Records] = {}
    for done, entry in enumerate(entries):
        progress("raw files", done, len(entries))
        path = known.locate(raw, entry)
        if path is None:
            findings += _absent(known, raw, entry)
            continue
        judged = (dataset, entry.holds) in RECORD_CHECKS or entry.holds in COUNTED
        if not judged and entry.archive is not None and path.name == entry.archive.name:
            continue  # as an archive, below
        found, remarks = _judge(path, dataset, entry)
        findings += _told(str(path), remarks, _summary(found, entry))
        if found is not None:
            records[entry.split, entry.holds] = found
    findings += _archives(known, raw, entries, progress)
    findings += _joins(known, entries, records)
    if dataset == "clevr":
        findings += _clevr_images(known, raw, entries)
    if image_ids is not None:
        findings += _images(known, records, image_ids)
    progress("raw files", len(entries), len(entries))
    return findings


def _entries(known: DatasetFiles, splits: Sequence[str] | None) -> list[RawFile]:
    every = dict.fromkeys(one for file in known.files for one in file.splits)
    for split in splits or ():
        if split not in every:
            raise ConfigError(f"no split {split!r} here; there are {', '.join(every)}")
    wanted = set(every if splits is None else splits)
    return [file for file in known.files if wanted & set(file.splits)]


def _absent(known: DatasetFiles, raw: Path, entry: RawFile) -> list[RawFinding]:
    if entry.holds not in ("questions", "annotations"):
        return []
    place = raw / known.places(entry)[0] / entry.names[0]
    archive = known.locate_archive(raw, entry)
    if archive is not None:
        what = f"not unpacked; its archive is {archive}: `trar-data fetch` unpacks it"
    else:
        what = f"not here: the {entry.title()}"
    return [RawFinding(str(place), "absent", what)]


def _judge(path: Path, dataset: str, entry: RawFile) -> tuple[Records | None, list[Remark]]:
    check = RECORD_CHECKS.get((dataset, entry.holds))
    try:
        if check is not None:
            found = check(path, entry)
            return found, found.remarks
        if entry.holds in COUNTED:
            return None, count_records(path, entry)
    except RawDataError as error:
        return None, [("error", _without(path, error))]
    with disk_errors(path):
        size = path.stat().st_size
    return None, [("ok", f"{size:,} bytes; its contents are not judged here")]


def _summary(found: Records | None, entry: RawFile) -> str:
    count = f"{len(found.ids):,} " if found is not None else ""
    published = "as many as published" if entry.count is not None else "no published count"
    return f"{count}{entry.holds} of {entry.split}, {published}"


def _told(file: str, remarks: list[Remark], summary: str) -> Iterator[RawFinding]:
    if not any(status in ("ok", "warning", "error") for status, _ in remarks):
        yield RawFinding(file, "ok", summary)
    for status, what in remarks:
        yield RawFinding(file, status, what)


def _without(path: Path, error: TrarError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _archives(
    known: DatasetFiles, raw: Path, entries: list[RawFile], progress: Progress
) -> Iterator[RawFinding]:
    seen: set[Path] = set()
    for entry in entries:
        path = known.locate_archive(raw, entry)
        if path is None or entry.archive is None or path in seen:
            continue
        seen.add(path)
        yield RawFinding(str(path), *_archive_remark(path, entry, entry.archive, progress))


def _archive_remark(path: Path, entry: RawFile, archive: Archive, progress: Progress) -> Remark:
    deep = entry.holds not in ("features", "images")  # those are tens of gigabytes
    try:
        if not (archive.sha256 or archive.md5) and archive.bytes is None:
            check_form(path, archive.name, progress, contents=deep)
            return "ok", f"{path.stat().st_size:,} bytes; neither size nor digest are published"
        proof = check_published(path, archive, progress, contents=deep)
        return "ok", f"{proof.size_bytes:,} bytes, {proof.proof}"
    except RawDataError as error:
        other = error
    try:
        check_form(path, archive.name, progress)
    except RawDataError as error:
        return "error", _without(path, error if "truncated" not in str(other) else other)
    return "warning", f"{_without(path, other)}; in itself it is sound: made anew by a mirror?"


def _joins(
    known: DatasetFiles, entries: list[RawFile], records: dict[tuple[str, str], Records]
) -> Iterator[RawFinding]:
    for entry in entries:
        questions = records.get((entry.split, "questions"))
        annotations = records.get((entry.split, "annotations"))
        if entry.holds == "annotations" and questions is not None and annotations is not None:
            names = f"{entry.split}: questions and annotations"
            yield from _told(names, join_remarks(questions, annotations), "the same questions")
    yield from _overlaps(records)
    halves = [records.get((half, "labels")) for half in ("minival", "nominival")]
    whole = next((f.count for f in known.files if (f.split, f.holds) == ("val", "questions")), None)
    if halves[0] is not None and halves[1] is not None and whole is not None:
        total = len(halves[0].ids) + len(halves[1].ids)
        if total != whole:
            what = f"{total:,} questions together, val2014 has {whole:,}: a part of it"
            yield RawFinding("minival and nominival", "warning", what)


def _overlaps(records: dict[tuple[str, str], Records]) -> Iterator[RawFinding]:
    """Ids that two files share: of another source a fact, of another split a leak."""
    pairs = (("train", "val"), ("train", "test"), ("val", "test"), ("minival", "nominival"))
    for left, right in pairs:
        kind = "labels" if left == "minival" else "questions"
        if (left, kind) not in records or (right, kind) not in records:
            continue
        shared = np.intersect1d(records[left, kind].ids, records[right, kind].ids)
        if len(shared):
            what = f"{len(shared):,} questions are in both (first: {shared[0]}): a leak"
            yield RawFinding(f"{left} and {right}", "warning", what)
    dev, test = records.get(("test-dev", "questions")), records.get(("test", "questions"))
    if dev is not None and test is not None:
        alone = np.setdiff1d(dev.ids, test.ids)
        if len(alone):
            what = f"{len(alone):,} questions of test-dev are not in test (first: {alone[0]})"
            yield RawFinding("test-dev and test", "warning", what)
    genome = records.get(("vg", "questions"))
    for split in ("train", "val", "test"):
        if genome is None or (split, "questions") not in records:
            continue
        shared = np.intersect1d(genome.ids, records[split, "questions"].ids)
        if len(shared):
            what = (
                f"{len(shared):,} Visual Genome ids are ids of {split} too (first: {shared[0]}): "
                "another program that looks questions up by id alone pairs them wrongly"
            )
            yield RawFinding(f"{split} and vg", "info", what)


def _clevr_images(known: DatasetFiles, raw: Path, entries: list[RawFile]) -> Iterator[RawFinding]:
    """Folders of CLEVR's images: broken downloads lack some."""
    for entry in entries:
        if entry.holds != "questions":
            continue
        places = [raw / folder / "images" / entry.split for folder in known.places(entry)]
        folder = next((place for place in places if place.is_dir()), None)
        if folder is None:
            continue
        with disk_errors(folder), os.scandir(folder) as found:
            matches = [_CLEVR_IMAGE.fullmatch(one.name) for one in found]
        named = [match for match in matches if match is not None]
        foreign = sum(match[1] != entry.split for match in named)
        indices = np.unique([int(match[2]) for match in named if match[1] == entry.split])
        remarks = index_remarks(indices.astype(np.int64), entry.images, "images")
        if foreign:
            remarks.append(("warning", f"{foreign:,} files are images of another split"))
        yield from _told(str(folder), remarks, f"{len(indices):,} images, as many as published")


def _images(
    known: DatasetFiles, records: dict[tuple[str, str], Records], image_ids: ImageIds
) -> Iterator[RawFinding]:
    """Every question's image must have features; features without a question are a fact."""
    asked = {
        split: found
        for (split, holds), found in records.items()
        if holds in ("questions", "labels") and split in known.image_splits
    }
    ids: dict[str, NDArray[np.int64]] = {}
    for image_split in dict.fromkeys(one for split in asked for one in known.image_splits[split]):
        try:
            ids[image_split] = np.unique(image_ids(image_split))
        except RawDataError as error:
            yield RawFinding(f"features of {image_split}", "absent", str(error))
    used: dict[str, list[NDArray[np.int64]]] = {}
    for split, found in asked.items():
        mine = known.image_splits[split]
        for image_split in mine:
            used.setdefault(image_split, []).append(found.image_ids)
        if not all(image_split in ids for image_split in mine):
            continue
        there = np.isin(found.image_ids, np.concatenate([ids[one] for one in mine]))
        missing = np.unique(found.image_ids[~there])
        file = f"{split} questions and features of {' and '.join(mine)}"
        if len(missing):
            first = ", ".join(str(one) for one in missing[:_SHOWN])
            what = (
                f"{np.count_nonzero(~there):,} questions are about {len(missing):,} images that "
                f"have no features (first: {first}); add them, or leave these questions out with "
                "prepare --on-bad-image skip"
            )
            yield RawFinding(file, "error", what)
        else:
            yield RawFinding(file, "ok", f"{len(found.ids):,} questions, each with its image")
    for image_split, have in ids.items():
        idle = np.setdiff1d(have, np.concatenate(used[image_split]))
        if len(idle):
            what = f"{len(idle):,} of {len(have):,} images have no question (first: {idle[0]})"
            yield RawFinding(f"features of {image_split}", "info", what)
