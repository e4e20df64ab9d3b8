"""Answers: their normal form, the frozen dictionary of labels, and soft targets.

The normal form is the one of the official VQA evaluation (GT-Vision-Lab/VQA vqaEval.py), which
openvqa's ``prep_ans`` (TRAR-VQA openvqa/utils/ans_punct.py) repeats for training. Its slips are
part of the benchmark and are kept on purpose: see ``process_punctuation``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trar.errors import StoreError, TrarError
from trar.features.columns import coded_lists, number_lists
from trar.features.schema import TargetRule
from trar.fileio import sha256_json

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
PERIODS_REMOVED = 32
NUMBER_WORDS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_SIGNS = frozenset(PUNCTUATION) | {"."}
ARTICLES = frozenset({"a", "an", "the"})
CONTRACTIONS: Mapping[str, str] = json.loads(
    Path(__file__).with_name("contractions.json").read_text(encoding="utf-8")
)
_CHANGED_WORDS = ARTICLES.union(NUMBER_WORDS, CONTRACTIONS)
# VQA-v2 has about 190,000 distinct raw answers; a bound keeps a long-lived process small.
_REMEMBERED = 1 << 18


def process_punctuation(text: str) -> str:
    """Remove or blank the 21 signs ``; / [ ] " { } ( ) = + \\ _ - > < @ ` , ? !``, then periods.

    A sign is deleted where ``text`` has it beside a blank, anywhere, else it becomes a blank.
    Three slips of the original are kept (data-formats 6.2):

    * one "1,000" in the text makes every sign be deleted, "20,000-30" included;
    * a period goes unless a digit FOLLOWS: "3." is "3", "u.s." is "us", ".5" stays. The original
      meant to look behind as well, but wrote ``(?!<=\\d)``, which is always true;
    * only the first 32 periods go: a regex flag, 32, stands in the place of a count.
    """
    if _SIGNS.isdisjoint(text):  # as most answers are
        return text
    joined = DIGIT_COMMA.search(text) is not None
    out = text
    for sign in PUNCTUATION:
        if sign in text:
            delete = joined or sign + " " in text or " " + sign in text
            out = out.replace(sign, "" if delete else " ")
    return PERIOD.sub("", out, count=PERIODS_REMOVED)


def process_digits_articles(text: str) -> str:
    """Lower case; number words to digits, no articles, contractions with their apostrophe.

    Word by word, none and zero to ten only ("no one" is "no 1", "eleven" stays), joined by single
    blanks; the result may be empty ("the" is ""). The capitals among the 120 contractions
    ("Im", "Ive") never match lower-case text; the original has them so.
    """
    words = text.lower().split()
    if not _CHANGED_WORDS.isdisjoint(words):  # in few answers
        words = [NUMBER_WORDS.get(word, word) for word in words]
        words = [CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(words)


@lru_cache(maxsize=_REMEMBERED)
def normalize_answer(text: str) -> str:
    """The normal form of an answer, openvqa's ``prep_ans``: punctuation, digits, then no commas.

    The last step never finds a comma, since commas are among the punctuation: so this also is the
    official evaluation's processing of an answer (73 vectors and a property test hold it so).
    """
    return process_digits_articles(process_punctuation(text)).replace(",", "")


@dataclass(frozen=True)
class AnswerDictionary:
    """The answers that a model can give, in label order."""

    answers: tuple[str, ...]
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {answer: i for i, answer in enumerate(self.answers)})
        assert len(self.index) == len(self.answers), "duplicate answers"

    @classmethod
    def build(
        cls, majority_answers: Iterable[str], min_count: int = 9, rule: TargetRule = "vqa"
    ) -> AnswerDictionary:
        """The answers seen ``min_count`` times or more, in order of first appearance.

        Under "vqa" normal forms are counted, as openvqa does with ``multiple_choice_answer``, and
        so they are under "raw"; else the answers as they stand, because that is how they are
        scored.
        """
        normal = rule in ("vqa", "raw")
        answers = map(normalize_answer, majority_answers) if normal else majority_answers
        return cls(tuple(answer for answer, n in Counter(answers).items() if n >= min_count))

    def __len__(self) -> int:
        return len(self.answers)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the canonical JSON of the answers in label order."""
        return sha256_json(list(self.answers))

    def to_json(self) -> list[dict[str, Any]]:
        """``[ans_to_ix, ix_to_ans]``, the originals' shape; the keys of the second are text."""
        return [dict(self.index), {str(i): answer for i, answer in enumerate(self.answers)}]

    @classmethod
    def from_json(
        cls,
        obj: Any,
        *,
        where: str = "answer dictionary",
        error: type[TrarError] = StoreError,
    ) -> AnswerDictionary:
        """The reverse of ``to_json``, for our files and the published ``answer_dict.json`` alike.

        Labels, not positions in the file, give the order. ``where`` names the file in messages
        and ``error`` is their type: RawDataError for a file that the user brought.

        Raises:
            TrarError: of type ``error``, naming the first entry that is wrong.
        """
        if not (isinstance(obj, list) and len(obj) == 2 and all(isinstance(d, dict) for d in obj)):
            raise error(
                f"{where}: expected a list of two objects [answer to label, label to answer], "
                f"found {_shape(obj)}; {_REMEDY}"
            )
        label_of, answer_of = obj
        if len(label_of) != len(answer_of):
            raise error(
                f"{where}: {len(label_of)} answers have a label but {len(answer_of)} labels have "
                f"an answer; {_REMEDY}"
            )
        answers = []
        for label in range(len(answer_of)):  # so the labels are 0 ... n - 1, each once
            answer = answer_of.get(str(label))
            if not isinstance(answer, str):
                found = "it is missing" if answer is None else f"found {answer!r:.80}"
                raise error(
                    f'{where}: expected an answer under label "{label}" of {len(answer_of)}, '
                    f"{found}; {_REMEDY}"
                )
            back = label_of.get(answer)
            if type(back) is not int or back != label:  # True == 1, but true is no label
                raise error(
                    f'{where}: label "{label}" is answer {answer!r}, whose label is {back!r}: the '
                    f"two tables contradict each other; {_REMEDY}"
                )
            answers.append(answer)
        return cls(tuple(answers))


def sparse_targets(
    answers_per_question: Sequence[Sequence[str]],
    dictionary: AnswerDictionary,
    rule: TargetRule = "vqa",
    weight_one: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Soft targets of q questions: offsets (q + 1,), labels and scores (total,).

    "vqa": answers are counted by normal form; 1, 2, 3, 4 or more annotators give .3, .6, .9, 1.
    With ten annotators that is the official accuracy of the label (openvqa ``get_score``).
    "raw": the same, but answers are counted as they stand, not by normal form: that is how LXMERT's
    labels were made (hengyuan-hu/bottom-up-attention-vqa tools/compute_softscore.py,
    ``compute_target``), and 1.6 % of real questions get other labels by it.
    "exact": each answer as it stands has 1.0, for sources with one answer per question, where
    the counting rule would make a right answer worth 0.3. ("labels" states scores itself: see
    ``labelled_targets``.)

    A question's labels come in order of first appearance; answers outside the dictionary have none.
    ``weight_one``: an answer of the dictionary has 1.0 however many gave it, for sources whose
    questions have one answer beside sources with ten (Visual Genome).
    """
    flat, offsets = coded_lists(answers_per_question)
    label_of_code = _labels_of(flat.known, dictionary, rule in _AS_THEY_STAND)
    score_of_count = np.array(_SCORE_OF_COUNT, np.float32)
    if rule == "exact" or weight_one:
        score_of_count[1:] = 1
    found = np.zeros(len(offsets), np.int64)  # a zero, then the number of labels a question
    labels, scores = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for start in range(0, len(offsets) - 1, _BLOCK_QUESTIONS):
        ends = offsets[start : start + _BLOCK_QUESTIONS + 1]
        label = label_of_code[flat.codes[ends[0] : ends[-1]]]
        question = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        known = label != _NO_LABEL
        pairs = question[known] << 32 | label[known]
        pair, first, count = np.unique(pairs, return_index=True, return_counts=True)
        order = np.argsort(first)  # by first appearance, and so by question too
        pair, count = pair[order], count[order]
        found[start + 1 : start + len(ends)] = np.bincount(pair >> 32, minlength=len(ends) - 1)
        labels.append((pair & 0xFFFFFFFF).astype(np.int32))
        scores.append(score_of_count[np.minimum(count, 4)])
    return np.cumsum(found), np.concatenate(labels), np.concatenate(scores)


def labelled_targets(
    answers_per_question: Sequence[Sequence[str]],
    scores_per_question: Sequence[Sequence[float]],
    dictionary: AnswerDictionary,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Targets whose scores the raw file states (LXMERT's ``label``), as ``sparse_targets``.

    Answers are looked up as they stand; zero scores and answers outside the dictionary have none.
    """
    flat, offsets = coded_lists(answers_per_question)
    score, score_offsets = number_lists(scores_per_question)
    assert np.array_equal(offsets, score_offsets)
    label = _labels_of(flat.known, dictionary, as_they_stand=True)[flat.codes]
    kept = (label != _NO_LABEL) & (score > 0)
    before = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(kept, out=before[1:])
    return before[offsets], label[kept], score[kept].astype(np.float32)


_SCORE_OF_COUNT = (0.0, 0.3, 0.6, 0.9, 1.0)
_NO_LABEL = -1
_AS_THEY_STAND = ("raw", "exact")  # rules that look at no normal form
_BLOCK_QUESTIONS = 1 << 16  # counted at a time: the arrays made on the way stay small
_REMEDY = "give the published answer_dict.json, or let prepare build a dictionary from annotations"


def _labels_of(
    texts: Sequence[str], dictionary: AnswerDictionary, as_they_stand: bool
) -> NDArray[np.int32]:
    """The label of each text, as it stands or by its normal form."""
    normal = texts if as_they_stand else map(normalize_answer, texts)
    return np.array([dictionary.index.get(text, _NO_LABEL) for text in normal], np.int32)


def _shape(obj: Any) -> str:
    if isinstance(obj, list):
        return f"a list of {len(obj)}: {', '.join(type(item).__name__ for item in obj[:3])}"
    return f"a {type(obj).__name__}"
