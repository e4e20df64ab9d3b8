"""Raw Visual Genome question files, with COCO's image ids in the place of its own.

``question_answers.json`` is ``[{"id": image, "qas": [{"qa_id", "image_id", "question",
"answer"}]}]``, one answer a question; ``image_data.json`` is ``[{"image_id", "coco_id"}]``, where
release 1.0 says ``id`` for ``image_id`` and half the images have no COCO id. Either may be inside
its official zip.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from trar.errors import RawDataError
from trar.features.columns import CodedTexts, Codes, Lists
from trar.features.questions import GrowingTexts
from trar.pipeline.readers.json_file import in_memory, read_json_bytes
from trar.pipeline.readers.json_records import INT64, Id, decode_json, iterate_rows
from trar.pipeline.sources.base import Questions


class _Image(msgspec.Struct, gc=False):
    image_id: Id | None = None
    id: Id | None = None
    coco_id: int | float | str | None = None


class _Answered(msgspec.Struct, gc=False):
    qa_id: Id
    question: str
    answer: str
    image_id: Id | None = None


class _ImageOfQuestions(msgspec.Struct, gc=False):
    qas: list[_Answered]
    id: Id | None = None
    image_id: Id | None = None


@in_memory
def read_visual_genome(
    questions_path: Path, images_path: Path, keep: Callable[[str], bool] | None
) -> Questions:
    """The questions about images of COCO whose answer is worth keeping, in their file's order.

    ``keep`` is asked about every answer as it stands ("Sailboats."); None keeps all. MCAN, openvqa
    and TRAR made their VG files so: only COCO's images, only answers of their dictionary. What is
    left out is counted in ``notes``. Image ids are COCO's, of train2014 or val2014.

    Raises:
        RawDataError: unreadable, another kind of file, two files that do not belong together, or
            nothing left.
    """
    coco = _read_coco_ids(images_path)
    data = read_json_bytes(questions_path, "question_answers")
    raw = decode_json(questions_path, data, list[msgspec.Raw], "Visual Genome questions")
    wanted: dict[str, bool] = {}
    seen: set[int] = set()
    ids, image_ids, texts = array("q"), array("q"), GrowingTexts()
    code_of, codes = Codes(), array("i")
    elsewhere = unlisted = unwanted = repeats = 0
    for number, entry in enumerate(iterate_rows(questions_path, raw, _ImageOfQuestions)):
        for row in entry.qas:
            image = _image_of(questions_path, number, entry, row)
            coco_id = coco.get(image)
            if coco_id is None:
                elsewhere += 1
                unlisted += image not in coco
                continue
            if keep is not None:
                if row.answer not in wanted:
                    wanted[row.answer] = keep(row.answer)
                if not wanted[row.answer]:
                    unwanted += 1
                    continue
            question_id = int(row.qa_id)
            if question_id in seen:
                repeats += 1
                continue
            seen.add(question_id)
            ids.append(question_id)
            image_ids.append(coco_id)
            texts.append(row.question)
            codes.append(code_of[row.answer])
    counted = {
        "about images that are not COCO's": elsewhere,
        "with an answer that is not in the dictionary": unwanted,
        "with a repeated id": repeats,
    }
    left_out = [f"{count:,} {why}" for why, count in counted.items() if count]
    if not ids:
        raise RawDataError(
            f"{questions_path}: no question is left of it: {', '.join(left_out) or 'it has none'} "
            f"({unlisted:,} about images that {images_path} does not list); use the two files of "
            "one release"
        )
    notes: tuple[str, ...] = ()
    if left_out:
        total = len(ids) + sum(counted.values())
        notes = (
            f"{questions_path.name}: {len(ids):,} of {total:,} questions kept; left out: "
            f"{', '.join(left_out)}",
        )
    answers = CodedTexts.counted(code_of, codes)
    return Questions(
        ids,
        image_ids,
        texts.finish(),
        [""] * len(ids),
        Lists(answers, np.arange(len(ids) + 1)),
        answers,
        notes=notes,
    )


def _read_coco_ids(path: Path) -> dict[int, int | None]:
    """Visual Genome's image id -> COCO's, None where it has none."""
    data = read_json_bytes(path, "image_data")
    raw = decode_json(path, data, list[msgspec.Raw], "Visual Genome images")
    coco: dict[int, int | None] = {}
    for number, row in enumerate(iterate_rows(path, raw, _Image)):
        image_id = row.image_id if row.image_id is not None else row.id
        if image_id is None:
            raise RawDataError(
                f"{path}: record {number} has neither image_id nor id; expected Visual Genome's "
                "image_data.json"
            )
        coco[int(image_id)] = _coco_id(row.coco_id)
    return coco


def _coco_id(value: Any) -> int | None:
    """A COCO id however it is written (7, 7.0, "7"); None for null, text, and what is no id."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if value is not None and 0 < value <= INT64[1] else None


def _image_of(path: Path, number: int, entry: _ImageOfQuestions, row: _Answered) -> int:
    of_entry = entry.id if entry.id is not None else entry.image_id
    image = row.image_id if row.image_id is not None else of_entry
    if image is None:
        raise RawDataError(
            f"{path}: record {number}: question {row.qa_id} names no image; expected Visual "
            "Genome's question_answers.json"
        )
    if of_entry is not None and int(of_entry) != int(image):
        raise RawDataError(
            f"{path}: record {number}: question {row.qa_id} is about image {image} among those of "
            f"image {of_entry}: damaged; download it again"
        )
    return int(image)
