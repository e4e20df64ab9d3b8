"""LXMERT's VQA files: train, nominival, minival and test.json.

``[{"question_id", "img_id", "sent", "label": {answer: score}, "answer_type", "question_type"}]``;
a test file has no label. ``img_id`` is COCO_train2014_000000458752: image id and image split.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from trar.errors import RawDataError
from trar.features.columns import CodedTexts, Codes, Lists, int64s
from trar.features.questions import GrowingTexts
from trar.pipeline.readers.json_file import excerpt, in_memory, read_json_bytes
from trar.pipeline.readers.json_records import Id, check_rows, decode_json, iterate_rows
from trar.pipeline.sources.base import Questions

_IMAGE = re.compile(r"COCO_(?P<split>[a-z0-9]{1,20})_(?P<id>[0-9]{1,18})(?:\.jpg)?")
_Score = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Row(msgspec.Struct, gc=False):
    question_id: Id
    img_id: str
    sent: str
    label: dict[str, _Score] | None = None
    question_type: str = ""
    answer_type: str = ""


@dataclass(frozen=True)
class LxmertRows:
    """A file in its own order, and the image splits that its images name, sorted."""

    questions: Questions
    image_splits: list[str]


@in_memory
def read_lxmert(path: Path) -> LxmertRows:
    """Read one file of LXMERT's.

    Labels are ``answers`` and ``scores`` in their file's order; ``majority`` is the highest score's
    answer, the first of equals. A question with an empty label has no answers, and majority "".

    Raises:
        RawDataError: unreadable, another kind of file, an image name of another form, a score
            outside 0..1, labels for some of the questions only, or a question id twice.
    """
    raw = decode_json(path, read_json_bytes(path), list[msgspec.Raw], "LXMERT questions")
    ids, image_ids, texts = array("q"), array("q"), GrowingTexts()
    answer_code, type_code, answer_type_code = Codes(), Codes(), Codes()
    types, answer_types = array("i"), array("i")
    answers, scores, ends, majority = array("i"), array("d"), array("q", [0]), array("i")
    image_splits: set[str] = set()
    for number, row in enumerate(iterate_rows(path, raw, _Row)):
        image = _IMAGE.fullmatch(row.img_id)
        if image is None:
            raise RawDataError(
                f"{path}: record {number}: img_id {excerpt(row.img_id.encode())!r}, expected a "
                "name like COCO_train2014_000000458752"
            )
        ids.append(int(row.question_id))
        image_ids.append(int(image["id"]))
        image_splits.add(image["split"])
        texts.append(row.sent)
        types.append(type_code[row.question_type])
        answer_types.append(answer_type_code[row.answer_type])
        if row.label is not None:
            answers.extend([answer_code[answer] for answer in row.label])
            scores.extend(row.label.values())
            ends.append(len(answers))
            best = max(row.label, key=row.label.__getitem__, default="")
            majority.append(answer_code[best])
        if len(majority) not in (0, len(ids)):
            raise RawDataError(
                f"{path}: record {number} has {'no' if row.label is None else 'a'} label, the "
                f"{'others have' if row.label is None else 'ones before have none'}: cut or "
                "mixed; download it again"
            )
    question_types = CodedTexts.counted(type_code, types)
    check_rows(path, ids, question_types.known)
    questions = Questions(ids, image_ids, texts.finish(), question_types)
    if majority:
        known, offsets = tuple(answer_code), int64s(ends)
        questions = replace(
            questions,
            answers=Lists(CodedTexts(known, np.asarray(answers)), offsets),
            majority=CodedTexts(known, np.asarray(majority)),
            answer_types=CodedTexts.counted(answer_type_code, answer_types),
            scores=Lists(scores, offsets),
        )
    return LxmertRows(questions, sorted(image_splits))
