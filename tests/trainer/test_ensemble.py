"""Saved logits, and the answers of several models together."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from training import small_config

from trar.errors import DiskError, ScoreError
from trar.features.answers import AnswerDictionary
from trar.features.reader import FeatureStore
from trar.trainer.checkpoint import Checkpoint, load_checkpoint
from trar.trainer.ensemble import check_questions, ensemble, trained_on
from trar.trainer.evaluator import predict
from trar.trainer.logits_file import LogitsFile, LogitsType, logits_writer
from trar.trainer.loop import train


@pytest.fixture(scope="module")
def checkpoint(shared_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    runs = tmp_path_factory.mktemp("runs")
    return load_checkpoint(
        train(small_config(shared_store.path, runs, "schedule.epochs=1")).checkpoint
    )


def save(
    path: Path,
    checkpoint: Checkpoint,
    store: FeatureStore,
    logits: NDArray[np.float32],
    split: str = "val",
) -> Path:
    with logits_writer(path, checkpoint, store, split) as writer:
        writer.write(logits)
    return path


def with_answers(checkpoint: Checkpoint, count: int) -> Checkpoint:
    return dataclasses.replace(checkpoint, answers=AnswerDictionary(tuple(map(str, range(count)))))


@pytest.fixture
def random_logits(shared_store: FeatureStore) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(45, 6)).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_saved_logits_are_those_of_the_model(
    shared_store: FeatureStore, checkpoint: Checkpoint, tmp_path: Path, kind: LogitsType
) -> None:
    path = tmp_path / "logits.npz"
    blocks: list[NDArray[np.float32]] = []
    with logits_writer(path, checkpoint, shared_store, "val", kind) as writer:

        def keep(block: NDArray[np.float32]) -> None:
            blocks.append(block)
            writer.write(block)

        found = predict(
            checkpoint, shared_store, "val", batch_size=7, device="cpu", keep_logits=keep
        )
    with np.load(path) as plain:  # by numpy alone
        logits = plain["logits"]
        assert logits.dtype == kind
        np.testing.assert_array_equal(logits, np.concatenate(blocks).astype(kind))
        np.testing.assert_array_equal(plain["question_ids"], found.question_ids)
        assert [plain["answers"][label] for label in logits.argmax(axis=1)] == found.answers
    with LogitsFile(path) as file:
        assert file.about.split == "val"
        assert file.about.store_fingerprint == shared_store.meta.fingerprint
        assert file.about.answers_digest == shared_store.answers.digest
        assert file.about.trained_on == "train"
        np.testing.assert_array_equal(np.concatenate(list(file.blocks(8))), logits)
    alone = ensemble([path])
    assert alone.answers == found.answers
    assert kind == "float16" or (alone.logits == found.logits).all()


def test_the_mean_is_weighted(
    shared_store: FeatureStore,
    checkpoint: Checkpoint,
    tmp_path: Path,
    random_logits: list[NDArray[np.float32]],
) -> None:
    paths = [
        save(tmp_path / f"{number}.npz", checkpoint, shared_store, logits)
        for number, logits in enumerate(random_logits)
    ]
    answers = shared_store.answers.answers

    def expected(weights: list[float]) -> list[str]:
        mean = np.average(np.stack(random_logits).astype(np.float64), axis=0, weights=weights)
        return [answers[label] for label in mean.argmax(axis=1)]

    counts: list[tuple[int, int]] = []
    equal = ensemble(paths, progress=lambda *done: counts.append(done))
    assert equal.answers == expected([1, 1, 1])
    assert counts == [(45, 45)]
    assert ensemble(paths, [5, 1, 0.5]).answers == expected([5, 1, 0.5])
    assert ensemble(paths, [0, 0, 2]).answers == expected([0, 0, 1])
    assert ensemble(paths[::-1]).answers == equal.answers
    np.testing.assert_array_equal(equal.question_ids, shared_store.questions("val").ids)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "1 weights for 2 files"),
        ([0.0, 0.0], "expected numbers of at least 0, and one above"),
        ([-1.0, 2.0], "expected numbers of at least 0"),
        ([float("nan"), 2.0], "expected numbers of at least 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        ensemble([Path("a.npz"), Path("b.npz")], weights)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_logit_that_is_no_finite_number_is_refused(
    bad: float,
    shared_store: FeatureStore,
    checkpoint: Checkpoint,
    tmp_path: Path,
    random_logits: list[NDArray[np.float32]],
) -> None:
    random_logits[1][7, 2] = bad
    paths = [
        save(tmp_path / f"{number}.npz", checkpoint, shared_store, logits)
        for number, logits in enumerate(random_logits)
    ]
    question = shared_store.questions("val").ids[7]
    with pytest.raises(ScoreError, match=rf"1.npz: a logit of question {question} is NaN or inf"):
        ensemble(paths)


def test_models_of_other_questions_or_answers_are_refused(
    shared_store: FeatureStore,
    checkpoint: Checkpoint,
    tmp_path: Path,
    random_logits: list[NDArray[np.float32]],
) -> None:
    first = save(tmp_path / "a.npz", checkpoint, shared_store, random_logits[0])
    test = save(tmp_path / "b.npz", checkpoint, shared_store, random_logits[0][:18], split="test")
    with pytest.raises(ScoreError, match=r"b.npz: 18 questions of tiny, split test, not the 45 of"):
        ensemble([first, test])
    turned = AnswerDictionary(tuple(reversed(checkpoint.answers.answers)))
    other = dataclasses.replace(checkpoint, answers=turned)
    wrong = save(tmp_path / "c.npz", other, shared_store, random_logits[0])
    with pytest.raises(ScoreError, match=r"c.npz: its 6 answers are not .* in another order"):
        ensemble([first, wrong])
    with LogitsFile(test) as file, pytest.raises(ScoreError, match="18 questions are not the 45"):
        check_questions(test, file.question_ids, shared_store, "val")
    assert trained_on([first, test]) == ["train"]


def test_what_is_no_file_of_logits_is_refused(
    shared_store: FeatureStore,
    checkpoint: Checkpoint,
    tmp_path: Path,
    random_logits: list[NDArray[np.float32]],
) -> None:
    with pytest.raises(ScoreError, match=r"none.npz: no such file; save it again"):
        ensemble([tmp_path / "none.npz"])
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ScoreError, match="not a file of saved logits"):
        ensemble([tmp_path / "text.npz"])
    with pytest.raises(ScoreError, match="a folder; give a file of saved logits"):
        ensemble([tmp_path])
    np.savez(tmp_path / "own.npz", logits=np.zeros((2, 2)))
    with pytest.raises(ScoreError, match="not a file of saved logits"):
        ensemble([tmp_path / "own.npz"])


def test_a_flipped_bit_is_found(
    shared_store: FeatureStore, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    save(path, with_answers(checkpoint, 3129), shared_store, np.zeros((45, 3129), np.float32))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ScoreError, match=r"bad.npz: damaged \(Bad CRC-32 for file 'logits.npy'\)"):
        ensemble([path])


def test_a_stopped_run_leaves_no_file(
    shared_store: FeatureStore, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def stopped() -> None:
        with logits_writer(tmp_path / "a.npz", checkpoint, shared_store, "val") as writer:
            writer.write(np.zeros((3, 6), np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_refused_before_the_first_byte(
    shared_store: FeatureStore, checkpoint: Checkpoint, small_disk: Path
) -> None:
    with (
        pytest.raises(DiskError, match=r"saving a.npz needs 17.2 MiB"),
        logits_writer(small_disk / "a.npz", with_answers(checkpoint, 100_000), shared_store, "val"),
    ):
        raise AssertionError("nothing is written")


def test_the_same_logits_are_the_same_bytes(
    shared_store: FeatureStore,
    checkpoint: Checkpoint,
    tmp_path: Path,
    random_logits: list[NDArray[np.float32]],
) -> None:
    one = save(tmp_path / "a.npz", checkpoint, shared_store, random_logits[0])
    two = save(tmp_path / "b.npz", checkpoint, shared_store, random_logits[0])
    assert one.read_bytes() == two.read_bytes()
    assert zipfile.ZipFile(one).testzip() is None
