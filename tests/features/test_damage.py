"""No damage goes unnoticed: every flipped bit, cut, deletion and swap, in every container."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from raw_data import tree
from stores import CONTAINERS, StorePlan, make_store, shard_file

from trar.cli import data
from trar.errors import StoreError
from trar.features import FeatureStore, verify_store
from trar.features.chunk_table import read_chunk_table
from trar.features.containers import open_backend
from trar.features.schema import STORE_FILE, read_meta, view_file
from trar.features.verify import check_files
from trar.fileio import sha256_file
from trar.pipeline import PrepareConfig, prepare

FLIPS = 1000
PLAN = StorePlan(
    images={"train": 24, "val": 13},
    question_splits={"train": "train", "val": "val"},
    grid=2,
    width=4,
)


@pytest.fixture(scope="module", params=CONTAINERS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sound store; whoever damages it puts it right again."""
    return make_store(tmp_path_factory.mktemp("damage") / "tiny", PLAN, request.param).path


@pytest.fixture(scope="module")
def other_store(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound store of the same shape with other features."""
    plan = StorePlan(**{**PLAN.__dict__, "seed": 7})
    place = tmp_path_factory.mktemp("other") / "tiny"
    return make_store(place, plan, read_meta(store).container).path


@pytest.fixture(autouse=True)
def unharmed(store: Path) -> Iterator[None]:
    """Every test leaves the store as it found it."""
    before = tree(store)
    yield
    assert tree(store) == before


def random_bits(files: dict[str, int], seed: int, count: int) -> Iterator[tuple[str, int, int]]:
    """(file, byte, bit) uniform over all bytes of files of these sizes."""
    chance = random.Random(seed)
    names, sizes = list(files), list(files.values())
    for name in chance.choices(names, sizes, k=count):
        yield name, chance.randrange(files[name]), chance.randrange(8)


class Flipped:
    """Within it one bit of a file is wrong."""

    def __init__(self, path: Path, position: int, bit: int) -> None:
        self.path, self.position, self.bit = path, position, bit

    def _flip(self) -> None:
        with self.path.open("r+b", buffering=0) as file:
            (old,) = os.pread(file.fileno(), 1, self.position)
            os.pwrite(file.fileno(), bytes([old ^ 1 << self.bit]), self.position)

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *_: object) -> None:
        self._flip()


class Replaced:
    """Within it files have other contents; None: they are not there."""

    def __init__(self, contents: dict[Path, bytes | None]) -> None:
        self.contents = contents

    def __enter__(self) -> None:
        self.before = {path: path.read_bytes() for path in self.contents}
        for path, content in self.contents.items():
            path.unlink() if content is None else path.write_bytes(content)

    def __exit__(self, *_: object) -> None:
        for path, content in self.before.items():
            path.write_bytes(content)


def sizes(store: Path) -> dict[str, int]:
    """Every file of a store; the log of the prepares is no part of it."""
    return {name: len(content) for name, content in tree(store).items()}


def swapped(one: Path, other: Path) -> Replaced:
    contents: dict[Path, bytes | None] = {one: other.read_bytes(), other: one.read_bytes()}
    return Replaced(contents)


def refusal(store: Path, name: str, message: str) -> contextlib.AbstractContextManager[object]:
    """Opening must fail, but for the file that only other tools read."""
    if name == view_file(read_meta(store).dataset):
        return contextlib.nullcontext()
    return pytest.raises(StoreError, match=message)


def where(store: Path) -> set[str]:
    return {problem.where for problem in verify_store(store)}


def test_every_one_of_1000_flipped_bits_is_found(store: Path) -> None:
    """Its file is named, and no other; each twentieth by the whole of verify, joins and all."""
    meta, found = read_meta(store), 0
    for number, (name, position, bit) in enumerate(random_bits(sizes(store), 1, FLIPS)):
        with Flipped(store / name, position, bit):
            if name == STORE_FILE:
                try:
                    found += name in where(store)
                except StoreError as error:
                    found += f"{store / STORE_FILE}: " in str(error)
                continue
            assert [problem.where for problem in check_files(store, meta)] == [name]
            if number % 20 == 0:
                assert name in where(store)
            found += 1
    assert found == FLIPS


def test_flipped_bits_of_features_never_reach_a_reader(store: Path) -> None:
    """Every image of the damaged chunk is refused by name; every other one is read as it was."""
    meta = read_meta(store)
    images, spec = meta.image_splits["train"], meta.feature
    table = read_chunk_table(store, "train", images.images)
    sound = FeatureStore(store).read("train", range(images.images)).features.copy()
    chance = random.Random(2)
    opened = FeatureStore(store)
    for _ in range(FLIPS):
        row = chance.randrange(images.images)
        position = int(table.offset[row]) + chance.randrange(spec.chunk_bytes)
        path = shard_file(store, "train", int(table.shard[row]))
        with Flipped(path, position, chance.randrange(8)):
            with pytest.raises(StoreError, match=rf"image {row * 3 + 7} \(row {row} of train\)"):
                opened.read("train", [row])
            rest = [one for one in range(images.images) if one != row]
            np.testing.assert_array_equal(opened.read("train", rest).features, sound[rest])


def test_flipped_bits_of_tables_never_become_wrong_values(store: Path) -> None:
    """Reading what is stored in a table gives an error or the same values, whichever bit it was."""
    backend = open_backend(store, read_meta(store).container)
    names = ["questions/train", "tokens/openvqa/val", "targets/openvqa/train", "answers/val"]
    sound = {name: backend.read_table(name) for name in names}
    refused = 0
    for name in names:
        files = {one: size for one, size in sizes(store).items() if holds_values(one, name)}
        assert files
        for file, position, bit in random_bits(files, 3, FLIPS // len(names)):
            with Flipped(store / file, position, bit):
                try:
                    found = backend.read_table(name)
                except StoreError:
                    refused += 1
                    continue
                assert found.keys() == sound[name].keys()
                for key, values in sound[name].items():
                    np.testing.assert_array_equal(found[key], values)
    assert refused > FLIPS / 10


def holds_values(file: str, table: str) -> bool:
    """Whether a file holds values of a table: a chunk of a Zarr array, or an HDF5 file of it."""
    return (f"/{table}/" in file and "/c/" in file) or file.endswith(f"/{table}.h5")


def test_every_file_cut_anywhere_is_found_and_refused(store: Path) -> None:
    meta, chance = read_meta(store), random.Random(4)
    for number, name in enumerate(sorted(meta.files)):
        path = store / name
        content = path.read_bytes()
        for left in {chance.randrange(len(content)), len(content) - 1}:
            with Replaced({path: content[:left]}):
                (problem,) = check_files(store, meta)
                assert (problem.where, problem.what.startswith(f"{left} bytes")) == (name, True)
                with refusal(store, name, "cut short or overwritten; `trar-data repair"):
                    FeatureStore(store)
        if number % 10 == 0:
            with Replaced({path: content[: len(content) // 2]}):
                assert name in where(store)
    with (
        Replaced({store / STORE_FILE: (store / STORE_FILE).read_bytes()[:-300]}),
        pytest.raises(StoreError, match="not readable as a store description"),
    ):
        verify_store(store)


def test_every_deleted_file_is_found_and_refused(store: Path) -> None:
    meta = read_meta(store)
    for number, name in enumerate(sorted(meta.files)):
        with Replaced({store / name: None}):
            (problem,) = check_files(store, meta)
            assert (problem.where, problem.what) == (name, "missing")
            with refusal(store, name, "missing; the store cannot be read without it"):
                FeatureStore(store)
            if number % 10 == 0:
                assert name in where(store)
    with Replaced({store / STORE_FILE: None}), pytest.raises(StoreError, match="no feature store"):
        verify_store(store)


def test_shard_deleted_while_it_is_read_is_an_error(store: Path) -> None:
    opened = FeatureStore(store)
    path = shard_file(store, "train", 1)
    with Replaced({path: None}), pytest.raises(StoreError, match=f"{path}: image .* is missing"):
        opened.read("train", [12])


@pytest.mark.parametrize(
    "splits", [("train", "train"), ("train", "val")], ids=["inside", "between"]
)
def test_swapped_shards_of_equal_size_are_found(store: Path, splits: tuple[str, str]) -> None:
    """Each is sound in itself: only the digests know where it belongs."""
    one = shard_file(store, splits[0], 0)
    other = shard_file(store, splits[1], 0 if splits[0] != splits[1] else 1)
    assert one.stat().st_size == other.stat().st_size
    with swapped(one, other):
        found = where(store)
    assert {path.relative_to(store).as_posix() for path in (one, other)} <= found


def test_swapped_labels_are_found(store: Path) -> None:
    files = [
        store / name
        for name, size in sizes(store).items()
        if name.endswith(
            ("label/c/0", "score/c/0", "targets/openvqa/val.h5", "targets/openvqa/train.h5")
        )
    ]
    pairs = [(a, b) for a in files for b in files if a < b and a.read_bytes() != b.read_bytes()]
    assert pairs
    for one, other in pairs:
        with swapped(one, other):
            found = where(store)
        assert {path.relative_to(store).as_posix() for path in (one, other)} <= found


def test_shard_of_another_store_is_found(store: Path, other_store: Path) -> None:
    """Every crc32c in it holds."""
    path = shard_file(store, "train", 0)
    foreign = shard_file(other_store, "train", 0).read_bytes()
    assert len(foreign) == path.stat().st_size
    with Replaced({path: foreign}):
        assert path.relative_to(store).as_posix() in where(store)
    with Replaced({store / STORE_FILE: (other_store / STORE_FILE).read_bytes()}):
        assert path.relative_to(store).as_posix() in where(store)


def test_number_in_another_spelling_is_found(store: Path) -> None:
    """The sha256 of store.json is that of what it says: 1.0 and 1.00 say the same."""
    text = (store / STORE_FILE).read_bytes()
    assert b'"largest_value": 1.0' in text
    with Replaced({store / STORE_FILE: text.replace(b'_value": 1.0', b'_value": 1.00', 1)}):
        (problem,) = verify_store(store)
    assert (problem.where, problem.what.startswith("not spelt as")) == (STORE_FILE, True)


def test_file_that_the_disk_cannot_read_is_named_and_the_rest_judged(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = read_meta(store)
    bad, other = sorted(meta.files)[1:3]

    def broken(path: Path) -> str:
        if path == store / bad:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return sha256_file(path)

    monkeypatch.setattr("trar.features.place.sha256_file", broken)
    with Flipped(store / other, 3, 0):
        first, second = check_files(store, meta)
    assert (first.where, first.what) == (bad, "cannot be read (Input/output error)")
    assert second.where == other


def test_verify_names_the_damage_and_the_way_out(store: Path) -> None:
    path = shard_file(store, "val", 0)
    with Flipped(path, 20, 3):
        result = CliRunner().invoke(data, ["verify", "--store", str(store)])
    assert result.exit_code == 1
    assert f"{path}: sha256 is" in result.output
    assert f"`trar-data repair --store {store}` makes" in result.output


def stop_at(image: int) -> Callable[[str, int, int], None]:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "features" and done == image:
            raise KeyboardInterrupt

    return progress


def test_swapped_receipts_cost_a_shard_never_a_wrong_one(
    store: Path, vqa_raw: Path, tmp_path: Path
) -> None:
    container = read_meta(store).container
    settings = {"raw": vqa_raw, "format": container, "shard_images": 20, "workers": 0}
    prepare(PrepareConfig(store=tmp_path / "whole", **settings))
    with pytest.raises(KeyboardInterrupt):
        prepare(PrepareConfig(store=tmp_path / "s", **settings), stop_at(50))
    one, other = sorted((tmp_path / "s/vqa/.prepare").glob("*.json"))[:2]
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    prepare(PrepareConfig(store=tmp_path / "s", **settings))
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")
