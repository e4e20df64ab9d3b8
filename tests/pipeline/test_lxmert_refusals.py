"""What cannot be added of LXMERT's is named, and a killed prepare leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lxmert_stores import copied, run
from raw_data import tree

from trar.errors import ConfigError, RawDataError, StoreError
from trar.features import FeatureStore, verify_store
from trar.features.reader import SCHEME, TOKENIZER


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"tokenizer": "wordpiece"}, ConfigError, "give the vocab.txt or tokenizer.json"),
        ({"wordpiece_vocab": "VOCAB"}, ConfigError, "goes with --tokenizer wordpiece"),
        (
            {"tokenizer": "wordpiece", "wordpiece_vocab": Path("/no/vocab.txt")},
            RawDataError,
            "/no/vocab.txt: no such file",
        ),
        ({"targets": "lxmert", "answers": Path("/no/list.json")}, RawDataError, "no such file"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_written(
    vqa_raw: Path,
    plain: Path,
    vocab: Path,
    tmp_path: Path,
    settings: dict[str, object],
    error: type[Exception],
    says: str,
) -> None:
    given = {name: vocab if one == "VOCAB" else one for name, one in settings.items()}
    for store in (tmp_path / "new", copied(plain, tmp_path)):
        before = tree(store) if store.exists() else {}
        with pytest.raises(error, match=says):
            run(vqa_raw, store, **given)
        assert (tree(store) if store.exists() else {}) == before


def test_other_pieces_or_another_order_do_not_go_into_the_store(
    vqa_raw: Path, zarr_store: Path, vocab: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(vocab.read_text() + "onemore\n")
    with pytest.raises(StoreError, match=r"its word pieces .* from vocab.txt\) are frozen"):
        run(vqa_raw, zarr_store, tokenizer="wordpiece", wordpiece_vocab=other)
    answers = tmp_path / "list.json"
    answers.write_text(json.dumps(["yes", "no"]))
    with pytest.raises(StoreError, match=r"its answer dictionary .* is frozen"):
        run(vqa_raw, zarr_store, targets="lxmert", answers=answers)


def test_a_missing_library_is_named_before_anything_is_written(
    vqa_raw: Path, vocab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match="library tokenizers, which is not installed"):
        run(vqa_raw, tmp_path / "s", tokenizer="wordpiece", wordpiece_vocab=vocab)
    assert not (tmp_path / "s").exists()


def test_a_prepare_killed_while_it_adds_them_leaves_nothing_behind(
    vqa_raw: Path, plain: Path, vocab: Path, tmp_path: Path
) -> None:
    store = copied(plain, tmp_path)
    whole = tree(store)
    command = [sys.executable, "-c", "from trar.cli import data; data()", "prepare"]
    command += ["--raw", vqa_raw, "--store", store, "--shard-images", "20", "--limit", "30"]
    command += ["--tokenizer", "wordpiece", "--wordpiece-vocab", vocab]
    with subprocess.Popen([str(one) for one in command], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if (store / "vqa/vocabulary-wordpiece.json").exists():
                process.send_signal(signal.SIGKILL)
    assert FeatureStore(store).tokens("val").ids.any()  # still a store, the old or the new one
    if process.returncode:
        assert run(vqa_raw, store).made == []
        assert tree(store) == whole
    assert verify_store(store) == []


def test_a_store_without_them_says_what_makes_them(plain: Path) -> None:
    store = FeatureStore(plain)
    with pytest.raises(StoreError, match="trar-data prepare --tokenizer wordpiece --wordpiece-vo"):
        store.using("wordpiece", SCHEME)
    with pytest.raises(StoreError, match="trar-data prepare --targets lxmert"):
        store.using(TOKENIZER, "lxmert")
