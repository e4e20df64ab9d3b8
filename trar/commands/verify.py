"""``trar-data verify``: is a store sound, are the raw files right, do the two agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trar.commands.options import PATH, PLACE, json_option, store_option
from trar.errors import TrarError

if TYPE_CHECKING:
    from trar.features import FeatureStore


@click.command()
@click.argument("place", metavar="[STORE]", type=PLACE, required=False)
@store_option
@click.option("--raw", type=PATH, help="Check the raw files in this folder as well.")
@click.option("--features", type=PATH, help="Where the raw image features are, if not below --raw.")
@click.option(
    "--deep",
    is_flag=True,
    help="Read every raw image again and compare it with the store (needs --raw or --features).",
)
@click.option("--keep-portrait", is_flag=True, help="As the store was prepared, for --deep.")
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@json_option
def verify(
    place: Path | None,
    store: Path,
    dataset: str | None,
    raw: Path | None,
    features: Path | None,
    deep: bool,
    keep_portrait: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Prove a store and its raw files sound, or name each problem.

    Every file is compared with its digest, every question with its image, answers and words. With
    --raw each raw file is compared with what is known of it; without a store only that is done.
    Exits 0 when sound and 1 when not, with one line for each problem. STORE is short for --store.

    \b
    Example: trar-data verify --store ./features --raw ./data
    """
    from trar.features.schema import find_dataset

    if deep and raw is None and features is None:
        raise click.UsageError("--deep needs --raw or --features: where are the raw images?")
    report = Report()
    folder = place or store
    if raw is not None and place is None and not folder.exists():
        report.facts["store"] = "not checked"
        report.sentences.append(f"{folder}: there is no store, so only the raw files were judged")
        dataset = dataset or "vqa"
    else:
        found = find_dataset(folder, dataset)
        opened = _check_store(found, report)
        dataset = found.name if opened is None else opened.dataset
        if deep and opened is not None:
            _check_deep(opened, raw or Path("data"), features, keep_portrait, report)
    if raw is None:
        report.facts["raw"] = "not checked"
        report.sentences.append("raw: not checked")
    else:
        _check_raw(raw, features, dataset, report)
    report.tell(strict, as_json)


class Report:
    """What was found, by level, and the facts of the summary line. Errors count, and warnings if
    strict; notes, and raw files that are ok or absent, do not."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.sentences: list[str] = []
        self.found: list[tuple[str, str, str]] = []
        self.remedies: dict[str, None] = {}

    def add(self, level: str, where: str, what: str) -> None:
        self.found.append((level, where, what))

    def tell(self, strict: bool, as_json: bool) -> None:
        """Print everything; an error is raised if anything was one.

        Raises:
            TrarError: the number of problems, and what to do.
        """
        bad = [one for one in self.found if one[0] == "error" or (strict and one[0] == "warning")]
        if as_json:
            found = [dict(zip(("level", "where", "what"), one, strict=True)) for one in self.found]
            problems = [{"where": where, "what": what} for _, where, what in bad]
            plain = {**self.facts, "sound": not bad, "problems": problems, "findings": found}
            click.echo(json.dumps(plain, indent=1))
        else:
            for level, where, what in self.found:
                loud = level in ("error", "warning")
                prefix = "" if level == "error" else f"{level.capitalize()}: "
                click.echo(f"{prefix}{where}: {what}", err=loud)
        if bad:
            strictly = " (--strict: warnings count)" if strict else ""
            what_to_do = "; ".join(self.remedies) or "see the lines above"
            raise TrarError(f"{len(bad)} problem(s) found{strictly}; {what_to_do}")
        if not as_json:
            click.echo("; ".join(self.sentences))


def _check_store(folder: Path, report: Report) -> FeatureStore | None:
    from trar.console import WorkProgress
    from trar.features import FeatureStore, verify_store
    from trar.features.audit import audit_store
    from trar.features.row_reader import way_out
    from trar.features.schema import read_meta
    from trar.fileio import human_bytes

    with WorkProgress() as progress:
        problems = verify_store(folder, progress=progress)
    for problem in problems:
        report.add("error", str(folder / problem.where), problem.what)
        report.remedies[way_out(folder)] = None
    meta = read_meta(folder)
    images = sum(split.images for split in meta.image_splits.values())
    questions = sum(split.questions for split in meta.question_splits.values())
    size_bytes = sum(entry.bytes for entry in meta.files.values())
    report.facts |= {
        "store": str(folder),
        "files": len(meta.files),
        "bytes": size_bytes,
        "images": images,
        "questions": questions,
        "fingerprint": meta.fingerprint,
    }
    report.sentences.append(
        f"{folder}: sound. {len(meta.files)} files, {human_bytes(size_bytes)}, {images:,} images, "
        f"{questions:,} questions: digests and joins hold"
    )
    if problems:
        return None
    for finding in audit_store(folder):
        report.add(finding.level, f"{folder}, {finding.where}", finding.what)
    return FeatureStore(folder)


def _check_deep(
    opened: FeatureStore, raw: Path, features: Path | None, keep_portrait: bool, report: Report
) -> None:
    from trar.console import WorkProgress
    from trar.pipeline import PrepareConfig
    from trar.pipeline.deep_verify import compare_with_raw

    config = PrepareConfig(
        dataset=opened.dataset, raw=raw, features=features, keep_portrait=keep_portrait
    )
    with WorkProgress("images") as progress:
        result = compare_with_raw(opened, config, progress)
    for problem in result.problems:
        report.add("error", str(opened.path / problem.where), problem.what)
        report.remedies["the raw files are not those that the store was made from"] = None
    report.facts["compared"] = result.compared
    report.sentences.append(f"{result.compared:,} images equal their raw files")


def _check_raw(raw: Path, features: Path | None, dataset: str, report: Report) -> None:
    from trar.console import WorkProgress
    from trar.pipeline import PrepareConfig
    from trar.pipeline.manifest import load_manifest
    from trar.pipeline.plan import check_join
    from trar.pipeline.raw_verify import verify_raw
    from trar.pipeline.sources import open_source

    before = len(report.found)
    config = PrepareConfig(dataset=dataset, raw=raw, features=features, split="all")
    source = open_source(config)
    if dataset not in load_manifest().datasets:  # a table: nothing is published of it
        check_join(config)
        report.add("ok", str(raw), "the table is readable and each question has its image")
    else:
        with WorkProgress() as progress:
            findings = verify_raw(
                raw, dataset, None, progress, image_ids=lambda split: source.images(split).ids
            )
        for finding in findings:
            level = "note" if finding.status == "info" else finding.status
            report.add(level, finding.file, finding.what)
    if any(one[0] == "error" for one in report.found[before:]):
        report.remedies["fetch the raw files that are named, or repair the features folder"] = None
    if all(one[0] in ("absent", "note") for one in report.found[before:]):
        report.add("error", str(raw), f"no raw file of {dataset} is in this folder")
    report.facts["raw"] = str(raw)
    report.sentences.append(f"raw: {raw} is sound as far as it goes")
