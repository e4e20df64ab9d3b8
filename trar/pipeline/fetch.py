"""Download what the manifest lists of a dataset, prove it, and put it where ``prepare`` looks.

Nothing that was there before is overwritten or deleted: a file that is right is left alone, and one
that is not is named. Archives of questions and annotations are unpacked, others used as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from trar.errors import RawDataError
from trar.features.progress import Progress
from trar.fileio import disk_errors, need_space
from trar.pipeline.download import PATIENT, Patience, download
from trar.pipeline.manifest import Archive, DatasetFiles, RawFile, dataset_files
from trar.pipeline.published import check_published
from trar.pipeline.zip_archive import same_as_member, unpack_members

Status = Literal["fetched", "already there", "by hand", "failed"]


@dataclass(frozen=True)
class Wanted:
    """One published file and what is wanted of it: all of it, or the ``files`` in it.

    ``folder`` is where fetched files go; ``urls`` is empty when it can only be had by hand.
    """

    name: str
    archive: Archive | None
    files: tuple[RawFile, ...]
    folder: Path
    urls: tuple[str, ...]

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the published file, where known."""
        return self.archive.bytes if self.archive else None

    @property
    def contents(self) -> str:
        """What is in it, for people."""
        return ", ".join(file.title() for file in self.files)


@dataclass(frozen=True)
class Fetched:
    """What became of one wanted file; ``note`` says how it was verified, or why it failed."""

    wanted: Wanted
    status: Status
    path: Path
    note: str
    url: str | None = None
    sha256: str | None = None


def plan_fetch(
    dataset: str,
    raw: Path,
    splits: Sequence[str] | None = None,
    what: Sequence[str] | None = None,
    mirror: str | None = None,
    files: DatasetFiles | None = None,
) -> list[Wanted]:
    """The published files that carry these splits and kinds, each once, in the manifest's order.

    ``mirror`` is the URL of a folder that is tried first, with the archive's name put after it.

    Raises:
        ConfigError: an unknown dataset, split, kind or form.
    """
    known = files or dataset_files(dataset)
    groups: dict[tuple[Path, str], list[RawFile]] = {}
    for entry in known.select(splits, what):
        name = entry.archive.name if entry.archive else entry.names[0]
        groups.setdefault((raw / known.places(entry)[0], name), []).append(entry)
    wanted = []
    for (folder, name), entries in groups.items():
        archive = entries[0].archive
        urls = list(archive.urls) if archive else []
        if mirror:
            archive = archive or Archive(name, [], None, [])
            urls.insert(0, f"{mirror.rstrip('/')}/{quote(name, safe='+()')}")
        wanted.append(Wanted(name, archive, tuple(entries), folder, tuple(urls)))
    return wanted


def fetch(
    dataset: str,
    raw: Path,
    splits: Sequence[str] | None = None,
    what: Sequence[str] | None = None,
    mirror: str | None = None,
    progress: Progress = lambda *_: None,
    patience: Patience = PATIENT,
    files: DatasetFiles | None = None,
) -> list[Fetched]:
    """Download the files of a dataset; see ``plan_fetch`` for the choice.

    A file that no mirror gives, or that stands in another's place, is reported as ``failed`` and
    the rest go on.

    Raises:
        ConfigError: an unknown dataset, split, kind or form.
        DiskError: no space for what is known to come, or a folder that cannot be written.
    """
    known = files or dataset_files(dataset)
    wanted = plan_fetch(dataset, raw, splits, what, mirror, known)
    need_space(raw, sum(_to_come(known, raw, one) for one in wanted), f"fetching {dataset}")
    return [_fetch_one(known, raw, one, progress, patience) for one in wanted]


def _to_come(known: DatasetFiles, raw: Path, wanted: Wanted) -> int:
    """Bytes that are still to be downloaded, as far as sizes are published."""
    here = known.locate_archive(raw, wanted.files[0]) or _all_there(known, raw, wanted)
    if here or not wanted.urls or wanted.size_bytes is None:
        return 0
    partial = wanted.folder / f"{wanted.name}.partial"
    begun = partial.stat().st_size if partial.is_file() else 0
    return max(0, wanted.size_bytes - begun)


def _all_there(known: DatasetFiles, raw: Path, wanted: Wanted) -> Path | None:
    """Where the wanted files stand, if all of them do (the first one's place)."""
    places = [known.locate(raw, file) for file in wanted.files]
    return None if None in places else places[0]


def _fetch_one(
    known: DatasetFiles, raw: Path, wanted: Wanted, progress: Progress, patience: Patience
) -> Fetched:
    target = wanted.folder / wanted.name
    here = known.locate_archive(raw, wanted.files[0])
    there = _all_there(known, raw, wanted)
    try:
        if wanted.archive is not None and here is not None:
            try:
                proof = check_published(here, wanted.archive, progress)
            except RawDataError as error:
                raise RawDataError(
                    f"{str(error).rstrip('.')}. It was there before and is left alone: move it "
                    "away and run the same command again"
                ) from None
            made = _unpack(known, raw, wanted, here, progress)
            status: Status = "fetched" if made else "already there"
            return Fetched(wanted, status, here, proof.proof, None, proof.sha256)
        if there is not None:
            note = "its archive is not here, so that only `trar-data verify --raw` can judge it"
            return Fetched(wanted, "already there", there, note)
        if wanted.archive is None or not wanted.urls:
            hint = wanted.files[0].by_hand or f"see {known.home}"
            return Fetched(wanted, "by hand", target, f"no direct URL: {hint}")
        _make_folder(target.parent)
        came = download(wanted.archive, wanted.urls, target, patience, progress)
        _unpack(known, raw, wanted, target, progress)
        return Fetched(wanted, "fetched", target, came.proof.proof, came.url, came.proof.sha256)
    except RawDataError as error:
        return Fetched(wanted, "failed", target, str(error))


def _unpack(
    known: DatasetFiles, raw: Path, wanted: Wanted, archive: Path, progress: Progress
) -> bool:
    """Unpack the members that are not there yet; True when there were any.

    Raises:
        RawDataError: something else is in a member's place, or the archive lacks it.
    """
    missing: dict[str, Path] = {}
    for file in wanted.files:
        if file.archive is None or file.whole:
            continue
        name = file.names[0]
        here = known.locate(raw, file)
        if here is None:
            missing[name] = wanted.folder / name
        elif not same_as_member(archive, name, here):
            raise RawDataError(
                f"{here}: differs from {name} in {archive}; it was there before and is left "
                "alone: move it away to have the published one"
            )
    for path in missing.values():
        if path.exists():
            raise RawDataError(f"{path}: in the way of a file of that name: move it away")
        _make_folder(path.parent)
    if missing:
        unpack_members(archive, missing, progress)
    return bool(missing)


def _make_folder(folder: Path) -> None:
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise RawDataError(
                f"{error.filename or folder}: a file is in the place of a folder; move it away"
            ) from None
