"""Whatever is in a raw file, a reader gives its data or one line: no crash, no hang, no bomb.

Real files of every form are damaged at random and read in another process whose address space is
limited (``targets.ALLOWANCE_BYTES`` + ``BYTES_PER_FILE_BYTE`` times the file's size).
"""

from __future__ import annotations

import gzip
import json
import os
import selectors
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import spacy
import torch
from hypothesis import HealthCheck, given, settings
from raw_data import SAMPLE
from raw_forms import (
    WIDTH,
    adaptive_hdf5,
    fixed_hdf5,
    folder_of_npz,
    grid_map,
    region_tsv,
    regions,
    tar_of,
    zip_of,
)

from fuzz.mutations import Change, apply, changes

TESTS = Path(__file__).parents[1]
DATA = TESTS / "data"
IDS = [9, 25, 30]
HANGS_AFTER_S = 60
EXAMPLES = int(os.environ.get("TRAR_FUZZ_EXAMPLES", "60"))
SLOW_TARGETS = {"hdf5"}  # each file is opened by a process of its own


class Reader:
    """The fuzzed process, started again after a death."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def ask(self, target: str, path: Path) -> dict[str, str]:
        """The outcome of reading a file; a death or silence is a failure of the test."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fuzz.targets"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=TESTS,
                env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"target": target, "path": str(path)}) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(HANGS_AFTER_S):
                self.close()
                return {"outcome": "hangs", "message": f"{target}: no answer"}
        line = process.stdout.readline()
        if not line:
            self.close()
            return {"outcome": "died", "message": f"{target}: exit status {process.returncode}"}
        answer: dict[str, str] = json.loads(line)
        return answer


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    one = Reader()
    yield one
    one.close()


def save_torch(path: Path, *, zipped: bool) -> Path:
    values = torch.from_numpy(grid_map(9)[:, :16])
    torch.save(values, path, _use_new_zipfile_serialization=zipped)
    return path


def save_clevr_npz(path: Path) -> Path:
    np.savez(path, x=np.asfortranarray(regions(1, 196)))
    return path


def save_chunked_hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(0).random((4, 16, 14, 14), np.float32)
        file.create_dataset(
            "features", data=values, chunks=(1, 16, 14, 14), compression="gzip", shuffle=True
        )
    return path


def zipped_json(path: Path, source: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source, source.name)
    return path


def excerpt(path: Path, source: Path, key: str, rows: int) -> Path:
    """The first rows of a question file, so that damage often meets something."""
    value = json.loads(source.read_text())
    value[key] = value[key][:rows]
    path.write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """An undamaged file of every form: name -> (target, file)."""
    folder = tmp_path_factory.mktemp("whole")
    npz = folder_of_npz(folder / "val2014", "val2014", IDS)
    np.save(folder / "grid.npy", np.ones((64, WIDTH), np.float16))
    genome = DATA / "allennlp-models/vgqa/question_answers.json"
    shutil.copy(genome, folder / "whole-question_answers.json")
    known = [
        {"image_id": one["id"], "coco_id": 9, "url": "x"} for one in json.loads(genome.read_text())
    ]
    (folder / "whole-image_data.json").write_text(json.dumps(known))
    labels = folder / "minival.json"
    labels.write_text(
        json.dumps(
            [
                {
                    "answer_type": "other",
                    "img_id": "COCO_val2014_000000000009",
                    "label": {"net": 1, "a net": 0.3},
                    "question_id": 9000,
                    "question_type": "what",
                    "sent": "What is this?",
                }
            ]
        )
    )
    questions = SAMPLE / "v2_OpenEnded_mscoco_val2014_questions.json"
    annotations = SAMPLE / "v2_mscoco_val2014_annotations.json"
    table = folder / "table.csv"
    table.write_text('image,question,answer\n9,"What, is it?",cat\n25,How many?,2\n')
    lines = folder / "table.jsonl"
    lines.write_text('{"image": 9, "question": "What?", "answers": ["cat", "dog"]}\n' * 3)
    parquet = folder / "table.parquet"
    import pandas

    pandas.DataFrame({"image": ["a"], "question": ["b"], "answer": ["c"]}).to_parquet(parquet)
    glove = folder / "glove.txt"
    glove.write_bytes(
        b"\n".join(
            gzip.decompress((DATA / "glove/glove.6B.100d.sample.txt.gz").read_bytes()).splitlines()[
                :20
            ]
        )
    )
    (folder / "ids.pkl").write_bytes(b"\x80\x02}q\x00(K\tK\x00K\x19K\x01K\x1eK\x02u.")
    fixed_hdf5(folder / "fixed.hdf5", IDS)
    adaptive_hdf5(folder / "adaptive.hdf5", IDS)
    save_chunked_hdf5(folder / "chunked.h5")
    nlp = spacy.blank("en")
    for number, word in enumerate(["cat", "dog", "number", "root"]):
        nlp.vocab.set_vector(word, np.full(4, number + 1, np.float32))
    nlp.to_disk(folder / "pipeline")
    answers = folder / "answers.json"
    answers.write_text(json.dumps([{"yes": 0, "no": 1}, {"0": "yes", "1": "no"}]))
    labels2 = folder / "label2ans.json"
    labels2.write_text(json.dumps(["yes", "no", "2"]))
    tsv = region_tsv(folder / "val2014_obj36.tsv", "val2014", IDS)
    return {
        "npy": ("npy grid", folder / "grid.npy"),
        "npz": ("npz regions", sorted(npz.iterdir())[0]),
        "npz fortran": ("npz clevr", save_clevr_npz(folder / "clevr.npz")),
        "pth": ("pth", save_torch(folder / "new.pth", zipped=True)),
        "pth legacy": ("pth legacy", save_torch(folder / "old.pth", zipped=False)),
        "zip": ("archive", zip_of(npz, folder / "features.zip", zipfile.ZIP_DEFLATED)),
        "tar": ("archive", tar_of(npz, folder / "features.tar", "w")),
        "tar.gz": ("archive", tar_of(npz, folder / "features.tar.gz", "w:gz")),
        "tsv": ("tsv", tsv),
        "tsv zip": ("tsv", zipped_json(folder / "val2014_obj36.zip", tsv)),
        "hdf5 fixed": ("hdf5", folder / "fixed.hdf5"),
        "hdf5 adaptive": ("hdf5", folder / "adaptive.hdf5"),
        "hdf5 gzip": ("hdf5", folder / "chunked.h5"),
        "id table": ("id table", folder / "ids.pkl"),
        "id json": ("id table", folder / "fixed_imgid2idx.json"),
        "questions": ("questions", excerpt(folder / "q.json", questions, "questions", 5)),
        "questions zip": ("questions", zipped_json(folder / "q.zip", questions)),
        "annotations": ("annotations", excerpt(folder / "a.json", annotations, "annotations", 3)),
        "visual genome": ("visual genome", folder / "whole-question_answers.json"),
        "visual genome images": ("visual genome images", folder / "whole-image_data.json"),
        "clevr": ("clevr", DATA / "kexinyi-ns-vqa/orig-val.json"),
        "lxmert": ("lxmert", labels),
        "csv": ("table", table),
        "jsonl": ("table", lines),
        "parquet": ("table", parquet),
        "glove": ("glove", glove),
        "spacy vectors": ("spacy", folder / "pipeline/vocab/vectors"),
        "spacy keys": ("spacy", folder / "pipeline/vocab/key2row"),
        "spacy strings": ("spacy", folder / "pipeline/vocab/strings.json"),
        "answers": ("answers", answers),
        "lxmert answers": ("answers", labels2),
        "glove zip": ("glove", zipped_json(folder / "glove.zip", glove)),
    }


FORMS = [
    "npy", "npz", "npz fortran", "pth", "pth legacy", "zip", "tar", "tar.gz", "tsv", "tsv zip",
    "hdf5 fixed", "hdf5 adaptive", "hdf5 gzip", "id table", "id json", "questions",
    "questions zip", "annotations", "visual genome", "visual genome images", "clevr", "lxmert",
    "csv", "jsonl", "parquet", "glove", "glove zip",
    "spacy vectors", "spacy keys", "spacy strings", "answers", "lxmert answers",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_undamaged_file_is_read(
    reader: Reader, whole: dict[str, tuple[str, Path]], form: str
) -> None:
    target, path = whole[form]
    assert reader.ask(target, path) == {"outcome": "ok", "message": ""}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", FORMS)
def test_damaged_file_is_read_or_refused(
    reader: Reader, whole: dict[str, tuple[str, Path]], tmp_path: Path, form: str
) -> None:
    target, path = whole[form]
    data = path.read_bytes()
    if target == "spacy":
        shutil.copytree(path.parents[1], tmp_path / "pipeline")
        damaged = tmp_path / "pipeline/vocab" / path.name
    else:
        damaged = tmp_path / path.name
    for beside in path.parent.glob(f"{path.stem}_imgid2idx.json"):
        shutil.copy(beside, tmp_path / beside.name)
    for beside in path.parent.glob("whole-*"):
        shutil.copy(beside, tmp_path / beside.name)
    examples = max(4, EXAMPLES // 6) if target in SLOW_TARGETS else EXAMPLES

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(several=changes())
    def check(several: list[Change]) -> None:
        damaged.write_bytes(apply(data, several))
        answer = reader.ask(target, damaged)
        assert answer["outcome"] in ("ok", "refused"), answer["message"]
        if answer["outcome"] == "refused":
            assert "\n" not in answer["message"], answer["message"]
            assert tmp_path.name in answer["message"], answer["message"]

    check()
