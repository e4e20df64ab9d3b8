"""What a store keeps of its questions: tables of texts, tokens, targets and answers, and the
dictionaries that tokens and targets point into."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from trar.errors import StoreError
from trar.features.answers import AnswerDictionary
from trar.features.chunk_places import ChunkPlaces
from trar.features.questions import AnswerTable, NameTable, QuestionTable, Ragged, SparseTargets
from trar.features.row_reader import way_out
from trar.features.text import Vocabulary

Columns = TypeVar("Columns", AnswerTable, NameTable, QuestionTable, Ragged, SparseTargets)
Dictionary = TypeVar("Dictionary", Vocabulary, AnswerDictionary)


class QuestionTables:
    """The question splits of one dataset folder. Everything is read on first use."""

    def __init__(self, places: ChunkPlaces) -> None:
        self._path, self._meta, self._backend = places.folder, places.meta, places.backend
        self._kept: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def known(self, split: str) -> str:
        """``split``, if the store has it.

        Raises:
            StoreError: no such question split.
        """
        if split not in self._meta.question_splits:
            close = difflib.get_close_matches(split, self._meta.question_splits, 1)
            way = (
                f"did you mean {close[0]}?"
                if close
                else f"add it: trar-data prepare --split {split}"
            )
            raise StoreError(
                f"{self._path}: no question split {split!r}; it has "
                f"{', '.join(self._meta.question_splits)}; {way}"
            )
        return split

    def answered(self, split: str) -> str:
        """``split``, if the store has it and its answers.

        Raises:
            StoreError: no such question split, or one without answers.
        """
        splits = self._meta.question_splits
        if not splits[self.known(split)].answered:
            answered = ", ".join(name for name, entry in splits.items() if entry.answered)
            way = (
                f"choose one with answers ({answered})"
                if answered
                else "add one with answers (trar-data prepare --split train)"
            )
            raise StoreError(
                f"{self._path}: the questions of split {split!r} have no answers; {way}, or let a "
                f"model answer them: trar predict --split {split}"
            )
        return split

    def table(self, name: str, kind: type[Columns]) -> Columns:
        """The table of this name.

        Raises:
            StoreError: damaged.
        """
        if name not in self._kept:
            try:
                self._kept[name] = kind.from_columns(self._backend.read_table(name))
            except KeyError as missing:
                raise StoreError(f"{self._path}: table {name} has no column {missing}") from None
        return cast(Columns, self._kept[name])

    def dictionary(self, file: str, parse: Callable[..., Dictionary], digest: str) -> Dictionary:
        """What the JSON file of this name holds.

        Raises:
            StoreError: unreadable, or not what ``store.json`` states.
        """
        if file not in self._kept:
            path = self._path / file
            try:
                parsed = parse(msgspec.json.decode(path.read_bytes()), where=str(path))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StoreError(
                    f"{path}: not readable as JSON ({error}); {way_out(self._path)}"
                ) from None
            if parsed.digest != digest:
                raise StoreError(
                    f"{path}: its digest is {parsed.digest[:12]}…, store.json says "
                    f"{digest[:12]}…: not the file of this store; {way_out(self._path)}"
                )
            self._kept[file] = parsed
        return cast(Dictionary, self._kept[file])
