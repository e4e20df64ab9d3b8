"""What is fuzzed: each reader with a file of its form. Run as a program it is the fuzzed process.

Protocol: one JSON line in, ``{"target": name, "path": file}``; one JSON line out, ``{"outcome":
"ok" | "refused" | "failed", "message": text}``. Before each file the address space is limited to
what the process has now plus a share of the file's size, so that a header's claim can set no
memory aside that the file does not fill.
"""

from __future__ import annotations

import json
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from trar.errors import TrarError
from trar.pipeline.readers.archives import scan_archive
from trar.pipeline.readers.clevr_json import read_clevr
from trar.pipeline.readers.glove_text import read_text_vectors
from trar.pipeline.readers.hdf5_images import scan_hdf5
from trar.pipeline.readers.id_table import read_id_table
from trar.pipeline.readers.image import Form, Images
from trar.pipeline.readers.image_file import count_regions, read_image
from trar.pipeline.readers.lxmert_json import read_lxmert
from trar.pipeline.readers.packed_text import find_text
from trar.pipeline.readers.raw_file import PlainFile
from trar.pipeline.readers.region_tsv import scan_tsv
from trar.pipeline.readers.spacy_vectors import find_pipeline, read_pipeline_vectors
from trar.pipeline.readers.table import read_table
from trar.pipeline.readers.visual_genome import read_visual_genome
from trar.pipeline.readers.vqa_json import read_annotations, read_questions
from trar.pipeline.vocabulary import read_answers

ALLOWANCE_BYTES = 256 << 20
"""What a reader may set aside whatever the file's size: four decoded images of the largest kind."""
BYTES_PER_FILE_BYTE = 64
"""And beyond that for each byte of the file: parsed JSON is that much larger than its text."""


def _read_all(images: Images) -> None:
    for row in range(len(images)):
        images.regions(row)
        images.read(row)


def _image(grid: int | None) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        form = Form(grid)
        count_regions(PlainFile(path), form)
        read_image(PlainFile(path), form)

    return read


def _genome(path: Path) -> None:
    read_visual_genome(path, path.parent / "whole-image_data.json", None)


def _genome_images(path: Path) -> None:
    read_visual_genome(path.parent / "whole-question_answers.json", path, None)


def _glove(path: Path) -> None:
    text = find_text(str(path))
    if text is not None:
        read_text_vectors(text, {"the", "of", "zebra"})


def _spacy(path: Path) -> None:
    folder = path.parent.parent  # the file is one of <folder>/vocab
    read_pipeline_vectors(find_pipeline(folder), {"cat", "number", "zebra"})


TARGETS: dict[str, Callable[[Path], object]] = {
    "npy grid": _image(8),
    "npz regions": _image(None),
    "npz clevr": _image(14),
    "pth": _image(8),
    "pth legacy": _image(8),
    "archive": lambda path: _read_all(scan_archive(path, "val2014").with_form(Form(None))),
    "tsv": lambda path: _read_all(scan_tsv(path, "val2014").with_form(Form(None))),
    "hdf5": lambda path: _read_all(scan_hdf5(path, "val2014").with_form(Form(None))),
    "id table": lambda path: read_id_table(path, "val2014"),
    "questions": lambda path: read_questions(path, "val2014"),
    "annotations": lambda path: read_annotations(path, "val2014"),
    "visual genome": _genome,
    "visual genome images": _genome_images,
    "clevr": lambda path: read_clevr(path, "val"),
    "lxmert": read_lxmert,
    "table": read_table,
    "glove": _glove,
    "spacy": _spacy,
    "answers": read_answers,
}


def _limit(path: Path) -> None:
    status = Path("/proc/self/status").read_text()
    now = int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1])
    limit = now * 1024 + ALLOWANCE_BYTES + BYTES_PER_FILE_BYTE * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _outcome(target: str, path: Path) -> dict[str, str]:
    try:
        TARGETS[target](path)
    except TrarError as error:
        return {"outcome": "refused", "message": str(error)}
    except BaseException:
        return {"outcome": "failed", "message": traceback.format_exc()[-3000:]}
    return {"outcome": "ok", "message": ""}


def main() -> None:
    """Serve until the other side closes."""
    import torch  # so that its size is not counted as the file's

    torch.zeros(1)
    for line in sys.stdin:
        request = json.loads(line)
        path = Path(request["path"])
        _limit(path)
        sys.stdout.write(json.dumps(_outcome(request["target"], path)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
