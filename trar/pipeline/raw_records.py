"""What the records of one raw file say against what is published of it: header, counts, ids.

A remark is (status, text): ``error`` for what cannot be used, ``warning`` for what differs from the
published file (subsets and re-serialised copies are legal), ``info`` for what is good to know.
Letters: n records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.pipeline.manifest import RawFile
from trar.pipeline.readers.clevr_json import read_clevr
from trar.pipeline.readers.json_file import read_json_bytes
from trar.pipeline.readers.json_records import Id, check_rows, decode_json, iterate_rows
from trar.pipeline.readers.lxmert_json import read_lxmert
from trar.pipeline.readers.vqa_json import read_questions

Status: TypeAlias = Literal["ok", "absent", "info", "warning", "error"]
Remark: TypeAlias = tuple[Status, str]

_TEN = 10  # annotators of VQA v2.0
_FULL_SCORE = 4  # equal answers that make a target of 1.0


@dataclass(frozen=True)
class Records:
    """A file's question ids, (n,) int64, and the image of each; -1 where it names none."""

    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    remarks: list[Remark] = field(default_factory=list)


class _Answer(msgspec.Struct, gc=False):
    answer_id: int | float | str | None = None  # judged, so that any form of it may come


class _Annotation(msgspec.Struct, gc=False):
    question_id: Id
    answers: list[_Answer]
    image_id: Id | None = None


class _Info(msgspec.Struct):
    date_created: str | None = None


class _AnnotationFile(msgspec.Struct):
    annotations: list[msgspec.Raw]
    data_subtype: str | None = None
    info: msgspec.Raw = msgspec.Raw(b"null")


class _Header(msgspec.Struct):
    data_subtype: str | None = None
    info: msgspec.Raw = msgspec.Raw(b"null")


class _SceneFile(msgspec.Struct):
    scenes: list[msgspec.Raw]


_TEN_IN_ORDER = [_Answer(number) for number in range(1, _TEN + 1)]


def check_questions(path: Path, file: RawFile) -> Records:
    """A question file of VQA v2.0, or of Visual Genome in its form.

    Raises:
        RawDataError: it cannot be read, is of another split, or has a question id twice.
    """
    rows = read_questions(path, file.subtype)
    header = decode_json(path, read_json_bytes(path, path.name), _Header, "questions")
    records = Records(_int64(rows.ids), _int64(rows.image_ids))
    remarks = records.remarks
    remarks += _header_remarks(header.data_subtype, header.info, file)
    remarks += count_remarks(len(rows.ids), file)
    if file.split != "vg":
        remarks += _id_rule(records)
    return records


def check_annotations(path: Path, file: RawFile) -> Records:
    """An annotation file of VQA v2.0, or of Visual Genome in its form.

    Raises:
        RawDataError: it cannot be read, is of another split, or has a question id twice.
    """
    data = read_json_bytes(path, path.name)
    content = decode_json(path, data, _AnnotationFile, "annotations")
    if file.subtype is not None and content.data_subtype not in (None, file.subtype):
        raise RawDataError(
            f"{path}: its header says {content.data_subtype}, expected {file.subtype}: the file "
            "of another split under this name; put the right file there"
        )
    ids: list[int] = []
    images: list[int] = []
    odd: list[int] = []  # questions without ten answers in order
    few: list[int] = []  # questions whose answers cannot make a full score
    empty: list[int] = []
    for row in iterate_rows(path, content.annotations, _Annotation):
        question = int(row.question_id)
        ids.append(question)
        images.append(-1 if row.image_id is None else int(row.image_id))
        if row.answers != _TEN_IN_ORDER:
            odd.append(question)
        if len(row.answers) < _FULL_SCORE:
            (few if row.answers else empty).append(question)
    check_rows(path, ids, "question")
    records = Records(_int64(ids), _int64(images))
    remarks = records.remarks
    remarks += _header_remarks(content.data_subtype, content.info, file)
    remarks += count_remarks(len(ids), file)
    if empty:
        remarks.append(("error", f"{_some(empty, len(ids))} have no answer at all"))
    if file.split == "vg":
        if few:
            remarks.append(
                (
                    "warning",
                    f"{_some(few, len(ids))} have fewer than {_FULL_SCORE} answers: targets will "
                    "be 0.3 where a single one is counted as it stands",
                )
            )
    elif odd:
        remarks.append(
            ("warning", f"{_some(odd, len(ids))} have other answers than ten with ids 1 to 10")
        )
    return records


def check_clevr(path: Path, file: RawFile) -> Records:
    """A question file of CLEVR; its image ids are indices.

    Raises:
        RawDataError: it cannot be read, is of another split, or has a question index twice.
    """
    questions = read_clevr(path, file.subtype).questions
    records = Records(_int64(questions.ids), _int64(questions.image_ids))
    remarks = records.remarks
    remarks += count_remarks(len(questions), file)
    images = np.unique(records.image_ids)
    remarks += index_remarks(images, file.images, "images")
    if questions.answers is None and not file.split.startswith("test"):
        remarks.append(("error", "its questions have no answers: a test file under this name?"))
    if questions.answers is not None and file.split.startswith("test"):
        remarks.append(("info", "has answers, which the published test file has not"))
    return records


def check_labels(path: Path, file: RawFile) -> Records:
    """A question file of LXMERT.

    Raises:
        RawDataError: it cannot be read, or has a question id twice.
    """
    questions = read_lxmert(path).questions
    records = Records(_int64(questions.ids), _int64(questions.image_ids))
    records.remarks.extend(count_remarks(len(questions), file))
    records.remarks.extend(_id_rule(records))
    if questions.answers is None and file.split != "test":
        records.remarks.append(("error", "its questions have no labels: the test file?"))
    return records


def count_records(path: Path, file: RawFile) -> list[Remark]:
    """Only the number of records: a list, CLEVR's scenes, or an answer dictionary.

    Raises:
        RawDataError: it cannot be read, or is of another shape.
    """
    data = read_json_bytes(path, path.name)
    if file.holds == "scenes":
        return count_remarks(len(decode_json(path, data, _SceneFile, "scenes").scenes), file)
    rows = decode_json(path, data, list[msgspec.Raw], file.holds)
    count = len(rows)
    if file.holds == "answers" and count == 2:  # [answer to index, index to answer]
        count = len(decode_json(path, data, list[dict[str, msgspec.Raw]], "answers")[0])
    return count_remarks(count, file)


def count_remarks(found: int, file: RawFile) -> list[Remark]:
    """The number of records against the published one."""
    if file.count is None or found == file.count:
        return []
    kind = "a part of it" if found < file.count else "not the published file"
    return [("warning", f"{found:,} {file.holds}, the published file has {file.count:,}: {kind}")]


def index_remarks(found: NDArray[np.int64], expected: int | None, what: str) -> list[Remark]:
    """Indices that should run from 0 without a gap: (m,) ascending, each once."""
    remarks: list[Remark] = []
    if expected is not None and len(found) != expected:
        remarks.append(("warning", f"{len(found):,} {what}, published are {expected:,}"))
    if len(found) and found[-1] != len(found) - 1:
        first = int(np.flatnonzero(found != np.arange(len(found)))[0])
        text = f"their indices do not run from 0 without a gap: {first} is the first one missing"
        remarks.append(("warning", text))
    return remarks


def join_remarks(questions: Records, annotations: Records) -> list[Remark]:
    """Questions and annotations must be of the same ids and images."""
    remarks: list[Remark] = []
    alone = np.setdiff1d(questions.ids, annotations.ids, assume_unique=True)
    extra = np.setdiff1d(annotations.ids, questions.ids, assume_unique=True)
    for rest, text in ((alone, "have no annotation"), (extra, "are annotated but not asked")):
        if len(rest):
            count = max(len(questions.ids), len(annotations.ids))
            remarks.append(
                ("error", f"{_some(rest.tolist(), count)} {text}: use the two files of one release")
            )
    _, left, right = np.intersect1d(
        questions.ids, annotations.ids, assume_unique=True, return_indices=True
    )
    named = annotations.image_ids[right]
    wrong = (named != -1) & (named != questions.image_ids[left])
    if wrong.any():
        rest = questions.ids[left][wrong]
        remarks.append(
            (
                "error",
                f"{_some(rest.tolist(), len(left))} are about another image in their annotation: "
                "use the two files of one release",
            )
        )
    return remarks


def _header_remarks(subtype: str | None, info: msgspec.Raw, file: RawFile) -> list[Remark]:
    remarks: list[Remark] = []
    if subtype is None and file.subtype is not None:
        remarks.append(("info", "has no header that names its split"))
    try:
        known = msgspec.json.decode(info, type=_Info | None)
        created = (known.date_created if known is not None else None) or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        created = ""  # an info of another form: nothing depends on it
    if file.issued is not None and "2014" <= created[:10] < file.issued:
        remarks.append(
            (
                "warning",
                f"of {created[:10]}: the files were corrected on {file.issued}; fetch them again",
            )
        )
    return remarks


def _id_rule(records: Records) -> list[Remark]:
    """In VQA v2.0 an id is its image's id times 1000 and a number."""
    other = records.ids[records.ids // 1000 != records.image_ids]
    if not len(other):
        return []
    share = len(other) / len(records.ids)
    return [
        (
            "warning",
            f"{_some(other.tolist(), len(records.ids))} ({share:.1%}) have an id that is not "
            "image id * 1000 + number, as published ones are",
        )
    ]


def _some(rest: Sequence[int], count: int) -> str:
    return f"{len(rest):,} of {count:,} questions (first: {rest[0]})"


def _int64(values: Sequence[int]) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64, len(values))


RECORD_CHECKS: dict[tuple[str, str], Callable[[Path, RawFile], Records]] = {
    ("vqa", "questions"): check_questions,
    ("vqa", "annotations"): check_annotations,
    ("vqa", "labels"): check_labels,
    ("clevr", "questions"): check_clevr,
}
COUNTED = ("questions", "genome", "pairs", "answers", "scenes")
