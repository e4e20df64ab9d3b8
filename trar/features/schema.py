"""What a store says of itself: the contents of ``store.json``, as types, read and written once.

``store.json`` makes a folder a store. It is written last, lists every other file with its size and
sha256, and carries the sha256 of its own canonical JSON. It holds no time, host or path, so the
same sources give the same bytes. Layout and meaning of each field: docs/format.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from trar.errors import StoreError
from trar.features.vectors import VectorsEntry
from trar.fileio import sha256_json, write_json

FORMAT_VERSION = 1
STORE_FILE = "store.json"
LOG_FILE = "prepare-log.json"
ARRAYS = "arrays.zarr"  # everything of a Zarr store
SHARDS = "images"  # shards of an HDF5 store
TABLES = "tables"  # one file a table of an HDF5 store
WORK_FOLDER = ".prepare"

RAGGED_CHUNK_ROWS = 64  # regions in an inner chunk of ragged features

TargetRule = Literal["vqa", "raw", "exact", "labels"]
Container = Literal["zarr", "hdf5"]
Compression = Literal["zstd"]
Compress = Literal["none", "zstd"]  # what is asked for, where that may be none


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the store."""

    bytes: int
    sha256: str


class FeatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Shape and type of one image's features.

    A grid has ``rows`` = height * width cells in raster order; regions have no grid. Every image
    has ``rows`` of them, or, where ``ragged``, at most that many. ``boxes``: each region has a box.
    ``compression``: of each inner chunk; None: stored as it is.
    """

    rows: int
    width: int
    dtype: Literal["float16", "float32"]
    grid: tuple[int, int] | None = None
    ragged: bool = False
    boxes: bool = False
    compression: Compression | None = None

    @property
    def chunk_rows(self) -> int:
        """Rows of features in one inner chunk: one image, or a fixed number where ragged."""
        return RAGGED_CHUNK_ROWS if self.ragged else self.rows

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one inner chunk's values, without its checksum."""
        return self.chunk_rows * self.width * (2 if self.dtype == "float16" else 4)

    @property
    def stored_chunk_bytes(self) -> int:
        """An upper bound of what a chunk takes with checksum, index entry, cells and boxes."""
        longer = self.chunk_bytes // 128 if self.compression else 0  # what does not compress
        return self.chunk_bytes + longer + 100 + self.chunk_rows * (1 + 16 * self.boxes)

    def describe(self) -> str:
        """For people: ``8x8 cells x 2048, float16``."""
        if self.grid is not None:
            shape = f"{self.grid[0]}x{self.grid[1]} cells"
        else:
            shape = f"{'at most ' if self.ragged else ''}{self.rows} regions"
        how = f", {self.compression}" if self.compression else ""
        return f"{shape} x {self.width}, {self.dtype}{', boxes' if self.boxes else ''}{how}"


class ImageSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One set of images, each stored once, in shards of ``shard_images`` chunks.

    A chunk is one image, or 64 of ``flat_rows`` regions where images are ragged. ``named``: images
    are known by names, which stand in the table ``names/<split>``; ids are positions there.
    """

    images: int
    shard_images: int
    masked_cells: int
    largest_value: float
    largest_cast_error: float
    flat_rows: int = 0
    named: bool = False

    def chunks(self, spec: FeatureSpec) -> int:
        """Number of inner chunks."""
        return -(-self.flat_rows // spec.chunk_rows) if spec.ragged else self.images

    def shards(self, spec: FeatureSpec) -> int:
        """Number of shard files."""
        return -(-self.chunks(spec) // self.shard_images)


class QuestionSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One set of questions; its ``image_split`` column indexes ``image_splits``.

    ``answers_per_question`` is the smallest number of annotated answers of a question, 0 where the
    split has none; ``labelled`` says that answers carry the scores that their raw file states.
    """

    questions: int
    source: str
    image_splits: list[str]
    answers_per_question: int
    tokens: int
    unknown_tokens: int
    longest_question: int
    without_target: int
    labelled: bool = False

    @property
    def answered(self) -> bool:
        """Whether questions have answers: not so in a test split."""
        return self.labelled or self.answers_per_question > 0


class VocabularyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token table: its file, size, digest and the question files that made it, in order."""

    file: str
    tokens: int
    digest: str
    made_from: dict[str, int]


class AnswersEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer dictionary and the rule by which targets and scores are made from answers."""

    file: str
    answers: int
    digest: str
    rule: TargetRule
    min_count: int
    made_from: list[str]


class StoreMeta(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Everything in ``store.json`` but its own digest."""

    format_version: int
    dataset: str
    container: Container
    feature: FeatureSpec
    image_splits: dict[str, ImageSplit]
    question_splits: dict[str, QuestionSplit]
    vocabularies: dict[str, VocabularyEntry]
    answer_schemes: dict[str, AnswersEntry]
    files: dict[str, FileEntry]
    fingerprint: str
    provenance: dict[str, Any]
    vectors: dict[str, VectorsEntry] = {}

    @property
    def arrays(self) -> str:
        """What shows all arrays as one tree, in the dataset folder."""
        return ARRAYS if self.container == "zarr" else view_file(self.dataset)

    @property
    def longest_question(self) -> int:
        """Tokens of the longest question of any split."""
        return max(split.longest_question for split in self.question_splits.values())

    def weight_one(self, split: str) -> bool:
        """Whether every annotated answer to a split's questions has target 1."""
        made = self.provenance.get("splits", {}).get(split, {})
        return bool(made.get("answer_weight") == "one")


def view_file(dataset: str) -> str:
    """The file of an HDF5 store that shows all of it to other tools."""
    return f"{dataset}.h5"


def fingerprint(meta: StoreMeta) -> str:
    """The identity of a store's contents: equal for equal bytes, whatever wrote them."""
    plain = msgspec.to_builtins(meta)
    return sha256_json({key: plain[key] for key in ("dataset", "feature", "files")})


def write_meta(folder: Path, meta: StoreMeta) -> None:
    """Make ``folder`` a store, atomically. Everything that ``meta`` lists must be durable."""
    plain = msgspec.to_builtins(meta)
    write_json(folder / STORE_FILE, {"sha256": sha256_json(plain), **plain})


def read_meta(folder: Path) -> StoreMeta:
    """Parse and check ``store.json``.

    Raises:
        StoreError: no store, another format version, or a ``store.json`` that was changed.
    """
    path = folder / STORE_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(_why_no_store(folder)) from None
    try:
        plain = msgspec.json.decode(raw)
        version = plain["format_version"]
        digest = plain.pop("sha256")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise StoreError(
            f"{path}: not readable as a store description (damaged or cut short); "
            "prepare this dataset again"
        ) from None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path}: store format {version}, this version of trar reads format {FORMAT_VERSION}; "
            "prepare the store again, or use the version of trar that wrote it"
        )
    if digest != sha256_json(plain):
        raise StoreError(
            f"{path}: its contents do not match its own sha256 (expected {str(digest)[:12]}…, "
            f"found {sha256_json(plain)[:12]}…): edited or damaged; prepare this dataset again"
        )
    try:
        return msgspec.convert(plain, StoreMeta)
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: {error}; prepare this dataset again") from None


def _why_no_store(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder; make the store with `trar-data prepare --store …`"
    if (folder / WORK_FOLDER).exists():
        return (
            f"{folder}: an unfinished store (no {STORE_FILE}): `trar-data prepare` was stopped; "
            "run the same prepare command again and it continues"
        )
    return (
        f"{folder}: no feature store ({STORE_FILE} is missing); make one with `trar-data prepare`, "
        "or give the folder that holds it with --store"
    )


def find_dataset(root: Path, dataset: str | None = None) -> Path:
    """The dataset folder under a store root, or ``root`` itself when it is a dataset folder.

    Raises:
        StoreError: nothing there, or several datasets and no ``dataset`` to choose one.
    """
    if dataset is None and (root / STORE_FILE).exists():
        return root
    if dataset is not None:
        if (root / dataset).is_dir():
            return root / dataset
        if root.name == dataset:
            return root
    found = sorted(path.parent.name for path in root.glob(f"*/{STORE_FILE}"))
    if dataset is not None:
        have = f"it has {', '.join(found)}" if found else "it has none"
        raise StoreError(f"{root}: no dataset {dataset!r} in this store; {have}")
    if len(found) == 1:
        return root / found[0]
    if found:
        raise StoreError(
            f"{root}: this store has several datasets ({', '.join(found)}); "
            f"choose one, for example --dataset {found[0]}"
        )
    unfinished = sorted(path.parent for path in root.glob(f"*/{WORK_FOLDER}"))
    raise StoreError(_why_no_store(unfinished[0] if unfinished else root))
