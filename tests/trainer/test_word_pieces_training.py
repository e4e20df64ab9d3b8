"""LXMERT on real questions as word pieces, with its own targets, from raw files to a score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from lxmert_runs import ALL, small_lxmert
from piece_table import write_vocab

from trar.cli import main
from trar.features import FeatureStore
from trar.features.word_pieces import FIRST_PIECE, LAST_PIECE, WordPieces
from trar.pipeline import PrepareConfig, prepare
from trar.trainer.checkpoint import load_checkpoint
from trar.trainer.config import build_config
from trar.trainer.loop import train
from trar.trainer.question_batches import Questions
from trar.trainer.reproduce import differences

LXMERT_ORDER = Path(__file__).parents[1] / "data/lxmert/trainval_label2ans.json"
READ = ("data.tokenizer=wordpiece", "data.targets=lxmert")


@pytest.fixture(scope="module")
def store(vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("pieces")
    config = PrepareConfig(
        raw=vqa_raw,
        store=folder / "features",
        limit=30,
        workers=0,
        tokenizer="wordpiece",
        wordpiece_vocab=write_vocab(folder),
        targets="lxmert",
        answers=LXMERT_ORDER,
    )
    return FeatureStore(prepare(config).folder)


def test_a_cut_question_still_ends_with_its_last_piece(store: FeatureStore) -> None:
    pieces = store.using("wordpiece", "lxmert")
    first, last = pieces.vocabulary.encode((FIRST_PIECE, LAST_PIECE))
    tokens = Questions(pieces, ["train"], max_tokens=5, targets=False).batch(np.arange(40)).tokens
    assert tokens.shape[1] == 5
    for question in tokens.tolist():
        real = [token for token in question if token]
        assert (real[0], real[-1], real.count(last)) == (first, last, 1)


def test_a_published_row_is_compared_with_its_own_words_and_answers(store: FeatureStore) -> None:
    config = build_config(store.path, preset="lxmert-vqa", sets=["start_from=begin.safetensors"])
    points = {one.what: one for one in differences(config, store, {})}
    pieces = len(store.using("wordpiece", "lxmert").vocabulary)
    assert points["vocabulary"].published == "30,522 word pieces of bert-base-uncased"
    assert points["vocabulary"].here == f"{pieces:,} tokens of vocab.txt ({pieces:,})"
    assert not {"answers", "weights start from"} & points.keys()  # the answers are the published


def test_it_trains_and_is_scored_by_its_own_pieces_and_answers(
    store: FeatureStore, tmp_path: Path
) -> None:
    result = train(small_lxmert(store.path, tmp_path, *ALL, *READ))
    checkpoint = load_checkpoint(result.checkpoint)
    assert isinstance(checkpoint.vocabulary, WordPieces)
    assert checkpoint.answers.digest == store.using("wordpiece", "lxmert").answers.digest
    command = ["eval", str(result.checkpoint), "--store", str(store.path), "--device", "cpu"]
    scored = CliRunner().invoke(main, [*command, "--json"])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["overall"] == result.history[-1]["scores"]["overall"]
