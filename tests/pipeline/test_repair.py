"""repair gives back every byte of a damaged store, reads no more than it needs, mixes nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from disk import fill
from raw_data import SAMPLE, edit_json, grid_features, image_ids, tree, write_vqa_raw
from raw_forms import folder_of_npz, region_count

from trar.cli import data
from trar.errors import DiskError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.schema import read_meta
from trar.features.writer import StoreWriter
from trar.pipeline import PrepareConfig, prepare
from trar.pipeline.repair import RepairConfig, find_damage, repair

CONTAINERS = ["zarr", "hdf5"]


@dataclass(frozen=True)
class Made:
    """A finished store, what it was made from, and its bytes. Tests change copies."""

    raw: Path
    store: Path
    dataset: str = "vqa"

    @property
    def folder(self) -> Path:
        return self.store / self.dataset

    def copy(self, place: Path) -> Made:
        shutil.copytree(self.raw, place / "raw", copy_function=shutil.copy2)
        shutil.copytree(self.store, place / "store")
        return Made(place / "raw", place / "store", self.dataset)

    def repair(self, **settings) -> object:
        return repair(self.folder, RepairConfig(raw=self.raw, workers=0, **settings))


def prepared(raw: Path, store: Path, container: str, **changes) -> Made:
    settings = {"shard_images": 20, "workers": 0, **changes}
    config = PrepareConfig(raw=raw, store=store, format=container, **settings)
    prepare(config)
    return Made(raw, store, config.dataset)


def make_grid(place: Path, container: str) -> Made:
    glove = place / "own.3d.txt"
    glove.write_text("what 1 2 3\nis 3 4 5\nthe 0 1 1\n")
    raw = write_vqa_raw(place / "raw")
    return prepared(raw, place / "store", container, vectors=str(glove), vectors_lookup="plain")


def questions_only(raw: Path, *splits: str) -> Path:
    (raw / "vqa").mkdir(parents=True)
    for split in splits:
        for path in SAMPLE.glob(f"*{split}*.json"):
            shutil.copy(path, raw / "vqa" / path.name)
    return raw


def make_fixed(place: Path, container: str) -> Made:
    raw = questions_only(place / "raw", "val2014")
    folder_of_npz(raw / "coco_extract/val2014", "val2014", image_ids("val2014"))
    return prepared(raw, place / "store", container, split="val")


def make_ragged(place: Path, container: str) -> Made:
    """3 to 20 regions an image, so that images lie across the borders of shards."""
    raw = questions_only(place / "raw", "val2014")
    folder_of_npz(raw / "coco_extract/val2014", "val2014", image_ids("val2014"), region_count)
    return prepared(raw, place / "store", container, split="val", shard_images=1)


def make_clevr(place: Path, container: str) -> Made:
    from test_clevr_source import write

    raw = place / "raw"
    for split, answers in (("train", ["red", "yes"] * 6), ("val", ["0", "yes"] * 5)):
        write(raw / "clevr/raw/questions", split, answers)
        folder = raw / "clevr/feats" / split
        folder.mkdir(parents=True)
        for number in range(len(answers) // 2):
            values = np.random.default_rng(number).random((196, 5), np.float32)
            np.savez(folder / f"{number}.npz", x=values.T.reshape(5, 14, 14))
    return prepared(raw, place / "store", container, dataset="clevr", shard_images=2)


def make_table(place: Path, container: str) -> Made:
    """Images with names, one of them unreadable and left out, and one missing."""
    raw = place / "raw"
    (raw / "features").mkdir(parents=True)
    names = [f"{letter}.jpg" for letter in "abcdefgh"]
    lines = [f'{{"image": "{name}", "question": "what?", "answer": "{name[0]}"}}' for name in names]
    (raw / "own.jsonl").write_text("\n".join(lines * 2) + "\n")
    for number, name in enumerate(names[:-1]):
        np.save(raw / f"features/{name}.npy", grid_features(number))
    (raw / "features/c.jpg.npy").write_bytes(b"junk" * 40)
    return prepared(
        raw, place / "store", container, dataset="table", on_bad_image="skip", shard_images=3
    )


KINDS: dict[str, Callable[[Path, str], Made]] = {
    "grid": make_grid,
    "fixed": make_fixed,
    "ragged": make_ragged,
    "clevr": make_clevr,
    "table": make_table,
}


@pytest.fixture(scope="module", params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def originals(container: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """One store of each kind, made when it is asked for; not to be changed."""
    made: dict[str, Made] = {}

    def of(kind: str) -> Made:
        if kind not in made:
            made[kind] = KINDS[kind](tmp_path_factory.mktemp(kind), container)
        return made[kind]

    return of


@pytest.fixture
def grid(originals: Callable[[str], Made], tmp_path: Path) -> Made:
    return originals("grid").copy(tmp_path)


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def shards_of(made: Made, split: str) -> list[set[str]]:
    """The files of each shard."""
    from trar.features.containers import open_backend

    meta = read_meta(made.folder)
    backend = open_backend(made.folder, meta.container)
    count = meta.image_splits[split].shards(meta.feature)
    return [set(backend.shard_files(split, n, meta.feature).values()) for n in range(count)]


def vectors_of(kind: str, original: Made) -> dict[str, str]:
    return {"vectors": str(original.store.parent / "own.3d.txt")} if kind == "grid" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_damaged_at_once_comes_back(
    originals: Callable[[str], Made], kind: str, tmp_path: Path
) -> None:
    original = originals(kind)
    made = original.copy(tmp_path)
    files = sorted(read_meta(made.folder).files)
    for number, name in enumerate(files):
        path = made.folder / name
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.write_bytes(path.read_bytes()[: number * 7 % path.stat().st_size])
        else:
            flip(path, number / len(files))
    result = made.repair(**vectors_of(kind, original))
    assert result.problems == {}
    assert result.repaired == sorted(result.damaged) == files
    assert tree(made.store) == tree(original.store)
    assert not (made.folder / ".prepare").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_alone_comes_back(
    originals: Callable[[str], Made], kind: str, tmp_path: Path
) -> None:
    """One file at a time, a few of each kind: what one needs of the others is there."""
    original = originals(kind)
    made = original.copy(tmp_path)
    files = sorted(read_meta(made.folder).files)
    for name in files[:: max(1, len(files) // 12)]:
        flip(made.folder / name)
        result = made.repair(**vectors_of(kind, original))
        assert (result.repaired, result.problems) == ([name], {}), name
    assert tree(made.store) == tree(original.store)


@pytest.mark.parametrize("kind", ["grid", "fixed", "ragged", "clevr", "table"])
def test_only_the_images_of_damaged_shards_are_read(
    originals: Callable[[str], Made], kind: str, tmp_path: Path
) -> None:
    """Every other raw image is gone; of a ragged shard the images across its borders are needed."""
    original = originals(kind)
    made = original.copy(tmp_path)
    store = FeatureStore(made.folder)
    split = {"clevr": "train", "table": "images"}.get(kind, "val2014")
    shards = shards_of(made, split)
    number = len(shards) // 2
    rows = images_of_shard(store, split, number)
    ids = store.image_ids(split)[rows].tolist()
    names = store.image_names(split)
    keep = {str(one) if names is None else names[one] for one in ids}
    removed = 0
    for path in sorted(made.raw.rglob("*.np[yz]")):
        number_in_name = path.name.partition(".")[0].split("_")[-1].lstrip("0") or "0"
        wanted = path.name.removesuffix(".npy") if names is not None else number_in_name
        if wanted not in keep or split not in ("images", path.parent.name):
            path.unlink()
            removed += 1
    assert removed > len(ids)
    for name in shards[number]:
        (made.folder / name).unlink()
    result = made.repair()
    assert result.problems == {}
    assert set(result.repaired) == shards[number]
    assert tree(made.store) == tree(original.store)


def images_of_shard(store: FeatureStore, split: str, shard: int) -> list[int]:
    """The rows whose features lie in a shard, wholly or in part."""
    stated = store.meta.image_splits[split]
    count = len(store.image_ids(split))
    if not store.meta.feature.ragged:
        start = shard * stated.shard_images
        return list(range(start, min(count, start + stated.shard_images)))
    ends = np.concatenate([[0], np.cumsum(store.lengths(split))])
    rows = stated.shard_images * 64
    inside = (ends[1:] > shard * rows) & (ends[:-1] < (shard + 1) * rows)
    return np.flatnonzero(inside).tolist()


def test_ragged_shards_share_images_at_their_borders(originals: Callable[[str], Made]) -> None:
    store = FeatureStore(originals("ragged").folder)
    first, second = (set(images_of_shard(store, "val2014", n)) for n in (0, 1))
    assert first & second
    assert len(shards_of(originals("ragged"), "val2014")) > 5


def test_workers_repair_the_same(originals: Callable[[str], Made], grid: Made) -> None:
    for shard in shards_of(grid, "train2014")[:3]:
        for name in shard:
            flip(grid.folder / name)
    result = repair(grid.folder, RepairConfig(raw=grid.raw, workers=2))
    assert result.problems == {}
    assert tree(grid.store) == tree(originals("grid").store)


def test_sound_store_is_left_alone(grid: Made) -> None:
    before = {path: path.stat().st_mtime_ns for path in grid.folder.rglob("*")}
    shutil.rmtree(grid.raw)  # it needs no raw file to say so
    result = grid.repair()
    assert (result.damaged, result.repaired, result.problems) == ({}, [], {})
    assert {path: path.stat().st_mtime_ns for path in grid.folder.rglob("*")} == before


def test_changed_raw_image_is_named_and_the_old_shard_stays(grid: Made) -> None:
    changed = next((grid.raw / "vqa/feats/val2014").glob(f"*{image_ids('val2014')[25]}*"))
    np.savez(changed.with_suffix(".npz"), x=grid_features(1))
    if changed.suffix != ".npz":
        changed.unlink()
    shards = shards_of(grid, "val2014")
    (grid.folder / min(shards[0])).unlink()
    damaged = max(shards[1])  # of images 20 to 39, the features
    flip(grid.folder / damaged, 0.2)
    before = (grid.folder / damaged).read_bytes()
    result = grid.repair()
    assert result.repaired == [min(shards[0])]
    assert set(result.problems) >= {damaged}
    why = result.problems[damaged]
    assert f"{changed.with_suffix('.npz')} has changed since" in why
    assert f"delete {grid.folder} and prepare it again" in why
    assert (grid.folder / damaged).read_bytes() == before
    assert not (grid.folder / ".prepare").exists()


def test_bad_or_missing_raw_image_spoils_only_its_own_shard(
    originals: Callable[[str], Made], grid: Made
) -> None:
    ids = image_ids("val2014")
    folder = grid.raw / "vqa/feats/val2014"
    next(folder.glob(f"*{ids[3]}*")).unlink()
    bad = next(folder.glob(f"*{ids[30]}*"))
    bad.write_bytes(b"junk" * 50)
    shards = shards_of(grid, "val2014")
    damaged = [max(shard) for shard in shards[:4]]
    for name in damaged:
        flip(grid.folder / name)
    result = grid.repair()
    assert result.repaired == damaged[2:]
    assert f"image {ids[3]} of val2014: its raw features are gone" in result.problems[damaged[0]]
    assert str(bad) in result.problems[damaged[1]]


def test_changed_question_file_is_named(originals: Callable[[str], Made], grid: Made) -> None:
    path = grid.raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json"
    edit_json(path, lambda value: value["questions"][0].update(question="What else?"))
    names = [
        name for name in read_meta(grid.folder).files if "questions/val" in name and "text" in name
    ] or ["tables/questions/val.h5"]
    for name in names:
        flip(grid.folder / name)
    result = grid.repair()
    before = tree(originals("grid").store)
    left = [name for name in names if tree(grid.store)[f"vqa/{name}"] != before[f"vqa/{name}"]]
    assert left
    for name in left:
        assert f"{path} changed since; give the raw files" in result.problems[name]


def test_published_dictionary_and_vectors_are_asked_for(vqa_raw: Path, tmp_path: Path) -> None:
    published = Path(__file__).parents[1] / "data/answers/answer_dict.json"
    made = prepared(vqa_raw, tmp_path / "s", "zarr", split="val", answers=published)
    before = tree(made.store)
    flip(made.folder / "answers-openvqa.json")
    shutil.rmtree(made.folder / "arrays.zarr/targets/openvqa/val/label")
    result = made.repair()
    assert result.repaired == []
    assert (
        "was given as answer_dict.json: give that with --answers"
        in (result.problems["answers-openvqa.json"])
    )
    why = result.problems["arrays.zarr/targets/openvqa/val/label/c/0"]
    assert "made with answers-openvqa.json, which could not be repaired" in why
    assert made.repair(answers=published).problems == {}
    assert tree(made.store) == before


def test_source_of_vectors_is_asked_for(originals: Callable[[str], Made], grid: Made) -> None:
    (path,) = (grid.folder / "vectors").iterdir()
    flip(path)
    name = f"vectors/{path.name}"
    asked = r"made from own.3d.txt, words looked up whole: give that with --vectors"
    assert asked in grid.repair().problems[name]
    other = grid.store / "own.3d.txt"
    other.write_text("what 1 2 4\n")
    assert f"--vectors {other} has changed" in grid.repair(vectors=str(other)).problems[name]


def test_vocabulary_is_made_from_the_splits_that_made_it(
    originals: Callable[[str], Made], grid: Made
) -> None:
    """A question file that was not there when the store was made plays no part."""
    path = grid.raw / "vqa/raw/v2_OpenEnded_mscoco_test2015_questions.json"
    shutil.copy(grid.raw / "vqa/raw/v2_OpenEnded_mscoco_val2014_questions.json", path)
    edit_json(path, lambda value: value.update(data_subtype="test2015"))
    flip(grid.folder / "vocabulary-openvqa.json")
    assert grid.repair().repaired == ["vocabulary-openvqa.json"]
    assert tree(grid.store) == tree(originals("grid").store)


def test_limit_of_the_prepare_holds(vqa_raw: Path, container: str, tmp_path: Path) -> None:
    made = prepared(vqa_raw, tmp_path / "s", container, split="val", limit=7, shard_images=3)
    before = tree(made.store)
    for name in sorted(read_meta(made.folder).files)[::2]:
        (made.folder / name).unlink()
    assert made.repair().problems == {}
    assert tree(made.store) == before


def test_damaged_description_cannot_be_repaired(grid: Made) -> None:
    flip(grid.folder / "store.json", 0.9)
    with pytest.raises(StoreError, match=r"It alone says what every file must be.*keeps no receip"):
        grid.repair()
    (grid.folder / "store.json").unlink()
    with pytest.raises(StoreError, match="no feature store"):
        grid.repair()


def test_ids_that_nothing_can_prove(grid: Made) -> None:
    """Neither the store nor the raw features say which images its rows are."""
    for name in read_meta(grid.folder).files:
        if "images/val2014" in name and ("ids" in name or name.endswith("val2014.h5")):
            flip(grid.folder / name)
    next((grid.raw / "vqa/feats/val2014").iterdir()).unlink()
    flip(grid.folder / max(shards_of(grid, "val2014")[0]))
    flip(grid.folder / max(shards_of(grid, "train2014")[0]))
    result = grid.repair()
    assert result.repaired == [max(shards_of(grid, "train2014")[0])]
    for name in result.damaged.keys() - {*result.repaired}:
        assert "the raw features that are there are not the 94 images" in result.problems[name]


def test_full_disk_stops_a_repair_that_goes_on_later(
    originals: Callable[[str], Made], small_disk: Path
) -> None:
    original = originals("grid")
    made = Made(original.raw, small_disk / "store")
    shutil.copytree(original.store, made.store)
    for shard in shards_of(made, "train2014"):
        for name in shard:
            (made.folder / name).unlink()

    def fill_at_image_50(stage: str, done: int, total: int) -> None:
        if stage == "features" and done == 50:
            fill(small_disk)

    config = RepairConfig(raw=made.raw, workers=0)
    with pytest.raises(DiskError, match="No space left on device"):
        repair(made.folder, config, fill_at_image_50)
    with pytest.raises(DiskError, match=r"this repair needs [\d.]+ MiB, "):
        repair(made.folder, config)
    (small_disk / "ballast").unlink()
    assert repair(made.folder, config).problems == {}
    assert tree(made.store) == tree(original.store)


def test_foreign_file_is_reported_not_deleted(grid: Made) -> None:
    (grid.folder / "notes.txt").write_text("mine")
    name = max(shards_of(grid, "val2014")[0])
    (grid.folder / name).unlink()
    result = grid.repair()
    assert result.repaired == [name]
    assert result.problems == {"notes.txt": "not part of this store: nothing lists it"}
    assert (grid.folder / "notes.txt").read_text() == "mine"


def test_folder_in_the_place_of_a_file(grid: Made) -> None:
    name = max(shards_of(grid, "val2014")[0])
    (grid.folder / name).unlink()
    (grid.folder / name / "x").mkdir(parents=True)
    assert "a folder stands in its place" in grid.repair().problems[name]
    shutil.rmtree(grid.folder / name)
    assert grid.repair().problems == {}


def test_second_repair_or_prepare_is_refused(grid: Made) -> None:
    with StoreWriter(grid.folder), pytest.raises(StoreError, match="another trar-data is writing"):
        grid.repair()


def test_stopped_prepare_keeps_its_receipts(
    originals: Callable[[str], Made], grid: Made, container: str, tmp_path: Path
) -> None:
    """A prepare that adds a split was stopped; a repair in between takes nothing from it."""
    receipt = grid.folder / ".prepare/test2015-00000.json"
    receipt.parent.mkdir()
    receipt.write_text("{}")
    (grid.folder / "vocabulary-openvqa.json").unlink()
    assert grid.repair().problems == {}
    assert [path.name for path in (grid.folder / ".prepare").iterdir()] == [receipt.name]


REPAIR = """
import sys
from pathlib import Path
from trar.pipeline.repair import RepairConfig, repair
repair(Path(sys.argv[1]), RepairConfig(raw=Path(sys.argv[2]), workers=0))
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_repair_leaves_old_or_new_and_goes_on(
    originals: Callable[[str], Made], grid: Made, stop: signal.Signals
) -> None:
    right = {f"vqa/{name}" for name in read_meta(grid.folder).files}
    for shard in shards_of(grid, "train2014") + shards_of(grid, "val2014"):
        for name in shard:
            flip(grid.folder / name)
    flip(grid.folder / "vocabulary-openvqa.json")
    before, whole = tree(grid.store), tree(originals("grid").store)
    process = subprocess.Popen(
        [sys.executable, "-c", REPAIR, str(grid.folder), str(grid.raw)], stderr=subprocess.DEVNULL
    )
    while len(list((grid.folder / ".prepare/repair/.prepare").glob("train2014-*.json"))) < 2:
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.001)
    process.send_signal(stop)
    process.wait()
    now = tree(grid.store)
    assert all(now[name] in (before[name], whole[name]) for name in right)
    told: list[tuple[str, int, int]] = []
    config = RepairConfig(raw=grid.raw, workers=0)
    result = repair(grid.folder, config, lambda *step: told.append(step))
    assert result.problems == {}
    read = max(total for stage, _, total in told if stage == "features")
    assert read <= len(image_ids("train2014")) + len(image_ids("val2014")) - 40  # two shards less
    assert tree(grid.store) == whole


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(data, [str(one) for one in arguments])
    return result.exit_code, result.output


def test_command_says_what_it_did(originals: Callable[[str], Made], grid: Made) -> None:
    name = max(shards_of(grid, "train2014")[1])
    flip(grid.folder / name)
    options = ["--store", grid.store, "--raw", grid.raw, "--workers", 0]
    code, output = invoke("repair", "--store", grid.store, "--dry-run")
    assert (code, find_damage(grid.folder).keys()) == (0, {name})
    assert f"would make anew {grid.folder / name}: sha256 is" in output
    assert "1 damaged file(s). Nothing was written" in output
    code, output = invoke("repair", *options)
    assert code == 0, output
    assert f"repaired {grid.folder / name} (sha256 is" in output
    assert "1 file(s) repaired, the store is sound" in output
    assert tree(grid.store) == tree(originals("grid").store)
    code, output = invoke("repair", *options, "--json")
    assert (code, '"sound": true' in output) == (0, True)
    shutil.rmtree(grid.raw / "vqa/feats/train2014")
    flip(grid.folder / name)
    code, output = invoke("repair", *options)
    assert code == 1
    assert f"{grid.folder / name}: no image features of train2014: expected one of" in output
    assert "0 file(s) repaired, 1 problem(s) stay" in output
    assert verify_store(grid.store) != []
