"""CLEVR question files: v1.0, CoGenT, and what clevr-dataset-gen writes.

``{"info": {"split"}, "questions": [{"image_index", "question_index", "question", "answer",
"program", "split"}]}``; a test split has neither answer nor program. The generator's own files
differ from the released ones: program nodes have ``type`` in the place of ``function``, and
answers may be JSON booleans and numbers. Of a program only its last function is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from trar.errors import RawDataError
from trar.pipeline.readers.json_file import excerpt, in_memory, read_json_bytes
from trar.pipeline.readers.json_records import INT64, Id, check_rows, decode_json, iterate_rows
from trar.pipeline.sources.base import Questions

_Index = Annotated[int, msgspec.Meta(ge=0, le=INT64[1])]
_Number = Annotated[int, msgspec.Meta(ge=INT64[0], le=INT64[1])]


class _Row(msgspec.Struct, gc=False):
    image_index: _Index
    question: str
    question_index: Id | None = None
    answer: str | bool | _Number | None = None
    program: list[msgspec.Raw] | None = None
    split: str | None = None


class _Node(msgspec.Struct, gc=False):
    function: str | None = None
    type: str | None = None


class _Info(msgspec.Struct):
    split: str | None = None


class _File(msgspec.Struct):
    questions: list[msgspec.Raw]
    info: _Info | None = None


@dataclass(frozen=True)
class ClevrRows:
    """A question file in its own order, and the split that it names (None: it names none).

    ``questions.types`` is the last function of each program ("" without one), which is what CLEVR
    scores are broken down by; ``answers`` has one answer a question or is None.
    """

    questions: Questions
    split: str | None


@in_memory
def read_clevr(path: Path, split: str | None, member_hint: str = "") -> ClevrRows:
    """Read a question file, or the member of a zip that fits ``member_hint``.

    ``split`` is what its header and rows must say where they say anything; None takes any.
    True and False of generated files become "yes" and "no", numbers their digits, with a note.

    Raises:
        RawDataError: unreadable, another kind of file, another split, an image index that is no
            index, a question index twice, or answers to some of the questions only.
    """
    file = decode_json(path, read_json_bytes(path, member_hint), _File, "CLEVR questions")
    named = None if file.info is None else file.info.split
    if split is not None and named is not None and named != split:
        raise RawDataError(
            f"{path}: its header says split {named!r:.80}, expected {split!r}: the file of another "
            "split under this name; put the right file there"
        )
    expected = split or named
    known: dict[str, str] = {}  # 28 answers and some 30 functions, 700,000 times
    ids: list[int] = []
    image_ids: list[int] = []
    texts: list[str] = []
    types: list[str] = []
    answers: list[str] = []
    generated = 0
    for number, row in enumerate(iterate_rows(path, file.questions, _Row)):
        if row.split is not None and row.split != expected:
            if expected is not None:
                raise RawDataError(
                    f"{path}: record {number} says split {row.split!r:.80}, expected "
                    f"{expected!r:.80}: the file of another split, or of several; keep one split "
                    "in a file"
                )
            expected = row.split
        ids.append(number if row.question_index is None else int(row.question_index))
        image_ids.append(row.image_index)
        texts.append(row.question)
        function, by_generator = _last_function(path, number, row.program)
        types.append(known.setdefault(function, function))
        if row.answer is not None:
            answer = _as_released(row.answer)
            by_generator = by_generator or not isinstance(row.answer, str)
            answers.append(known.setdefault(answer, answer))
        generated += by_generator
        if len(answers) not in (0, len(ids)):
            raise RawDataError(
                f"{path}: record {number} has {'no' if row.answer is None else 'an'} answer, the "
                f"{'others have' if row.answer is None else 'ones before have none'}: cut or "
                "mixed; download it again"
            )
    check_rows(path, ids, types)
    notes: tuple[str, ...] = ()
    if generated:
        notes = (
            f"{path.name}: {generated} of {len(ids)} questions are in the schema of "
            "clevr-dataset-gen, not of the released CLEVR: read with type as function, "
            "true and false as yes and no, numbers as text",
        )
    alone = {answer: (answer,) for answer in set(answers)}  # one tuple an answer, not a question
    questions = Questions(
        ids,
        image_ids,
        texts,
        types,
        [alone[answer] for answer in answers] if answers else None,
        answers,
        notes=notes,
    )
    return ClevrRows(questions, expected)


def _last_function(path: Path, number: int, program: list[msgspec.Raw] | None) -> tuple[str, bool]:
    """The function of a program's last node, and whether it is in the generator's schema."""
    if not program:
        return "", False
    try:
        node = _NODES.decode(program[-1])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RawDataError(
            f"{path}: record {number}: the last node of its program: {error}: "
            f"{excerpt(program[-1])}"
        ) from None
    if node.function is None and node.type is None:
        raise RawDataError(
            f"{path}: record {number}: the last node of its program has no function: "
            f"{excerpt(program[-1])}"
        )
    if node.function is None:
        assert node.type is not None
        return node.type, True
    return node.function, False


_NODES = msgspec.json.Decoder(_Node)


def _as_released(answer: str | bool | int) -> str:
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return str(answer)
