"""A checkpoint holds all it takes, and refuses what would silently mean something else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stores import COLOURS, StorePlan, make_store
from training import small_config

from trar.errors import CheckpointError
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.loop import train
from trar.trainer.store_check import check_store


@pytest.fixture(scope="module")
def trained(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of one epoch; tests copy it before they change it."""
    runs = tmp_path_factory.mktemp("runs")
    config = small_config(
        shared_store.path, runs, "schedule.epochs=1", "model.routing=hard", "temperature.max=7"
    )
    return train(config).checkpoint


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    path = tmp_path / trained.name
    path.write_bytes(trained.read_bytes())
    return path


def test_everything_comes_back(trained: Path, shared_store: FeatureStore) -> None:
    checkpoint = load_checkpoint(trained)
    assert checkpoint.epoch == 1
    assert checkpoint.step == 8  # 120 questions in batches of 16
    assert checkpoint.dataset == "tiny"
    assert checkpoint.vocabulary == shared_store.vocabulary
    assert checkpoint.vocabulary.sources == shared_store.vocabulary.sources
    assert checkpoint.answers == shared_store.answers
    assert checkpoint.store_fingerprint == shared_store.meta.fingerprint
    assert checkpoint.config.model.routing == "hard"
    assert checkpoint.history[0]["scores"]["rules"] == "exact match"
    assert check_store(checkpoint, shared_store, same_store=True) is None


def test_the_temperature_is_saved_with_the_weights(trained: Path) -> None:
    model = load_checkpoint(trained).model()
    assert model.get_buffer("temperature").item() == 7
    assert not model.training


def test_the_file_is_plain_safetensors(trained: Path) -> None:
    tensors = load_file(trained)
    weights = load_checkpoint(trained).model().state_dict()
    for name, value in weights.items():
        assert torch.equal(tensors[f"model.{name}"], value)
    assert any(name.startswith("optimiser.exp_avg_sq.") for name in tensors)


def test_a_run_folder_stands_for_its_newest_checkpoint(trained: Path, tmp_path: Path) -> None:
    assert load_checkpoint(trained.parent).path == trained
    with pytest.raises(CheckpointError, match=r"no checkpoint-\*.safetensors in this folder"):
        load_checkpoint(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.safetensors: no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_a_file_cut_short_is_refused(copied: Path, size: int) -> None:
    whole = copied.read_bytes()
    copied.write_bytes(whole[:size])
    with pytest.raises(CheckpointError, match=r"not readable as safetensors .* cut short"):
        load_checkpoint(copied)


def test_a_flipped_bit_is_noticed(copied: Path, trained: Path) -> None:
    data = bytearray(copied.read_bytes())
    data[-1] ^= 1
    copied.write_bytes(data)
    checkpoint = load_checkpoint(copied)
    model = load_checkpoint(trained).model()
    # the last tensor of the file is one of the optimiser's
    checkpoint.model()
    with pytest.raises(CheckpointError, match=r"tensor .* does not match its crc32c: damaged"):
        checkpoint.restore_optimiser(model, torch.optim.Adam(model.parameters()))


def test_a_changed_description_is_refused(copied: Path) -> None:
    data = copied.read_bytes()
    copied.write_bytes(data.replace(b"colour", b"colors", 1))
    with pytest.raises(CheckpointError, match=r"its description is damaged \(.*digest"):
        load_checkpoint(copied)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="a safetensors file, but no checkpoint of trar"):
        load_checkpoint(path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-001.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {"trar_checkpoint": "2", "trar": "{}"})
    with pytest.raises(CheckpointError, match="checkpoint format 2, this version of trar reads"):
        load_checkpoint(path)


def test_a_store_of_other_words_is_refused(trained: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "other", StorePlan(extra_words=("how many dogs",)))
    with pytest.raises(CheckpointError) as caught:
        check_store(load_checkpoint(trained), store)
    message = str(caught.value)
    assert "the checkpoint's vocabulary has 9 tokens (digest " in message
    assert "has 12 (" in message
    assert "the store's from train (4)" in message
    assert "\n" not in message


def test_the_question_files_that_a_store_lacks_are_named(
    trained: Path, shared_store: FeatureStore, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(trained)
    larger = dataclasses.replace(
        checkpoint.vocabulary,
        tokens=(*checkpoint.vocabulary.tokens, "zebra"),
        source_counts=(("train", 3), ("vg", 9)),
    )
    checkpoint = dataclasses.replace(checkpoint, vocabulary=larger)
    with pytest.raises(CheckpointError, match="the store was made without vg"):
        check_store(checkpoint, shared_store)


def test_a_store_of_other_answers_is_refused(trained: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "other", StorePlan(known_answers=(*COLOURS, "yes", "no", "two")))
    with pytest.raises(CheckpointError, match=r"has 6 answers \(.* has 7 \(.*made from train"):
        check_store(load_checkpoint(trained), store)


@pytest.mark.parametrize(
    ("change", "found"), [({"width": 9}, "4x4 cells of 9"), ({"grid": 3}, "3x3")]
)
def test_a_store_of_other_features_is_refused(
    trained: Path, tmp_path: Path, change: dict[str, int], found: str
) -> None:
    store = make_store(tmp_path / "other", StorePlan(**change))
    with pytest.raises(CheckpointError, match=f"reads 4x4 cells of 8 numbers, .* has {found}"):
        check_store(load_checkpoint(trained), store)


def test_another_store_of_the_same_meaning_is_fine_to_evaluate_on(
    trained: Path, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "other", StorePlan(seed=1))
    checkpoint = load_checkpoint(trained)
    remark = check_store(checkpoint, store)
    assert remark is not None
    assert "is not the store that checkpoint-001.safetensors was trained on" in remark
    with pytest.raises(CheckpointError, match="going on would train on other data"):
        check_store(checkpoint, store, same_store=True)
