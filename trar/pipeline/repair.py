"""Re-makes the damaged files of a finished store from the raw files, and no others.

Everything is made as ``prepare`` makes it, but aside, below ``.prepare/repair`` (of a store on S3:
in a temporary folder). A file made anew takes the place of the damaged one only if it has the
digest that ``store.json`` states, by one rename or one PUT: each file is the old one or the right
one, whenever a repair is stopped. Raw files that have changed since cannot give that digest; then
the old file stays and the raw file is named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from pydantic import ValidationError

from trar.errors import ConfigError, RawDataError, StoreError
from trar.features.answers import AnswerDictionary
from trar.features.place import place_of
from trar.features.progress import Progress
from trar.features.reader import SCHEME, TOKENIZER, WORD_PIECES
from trar.features.schema import STORE_FILE, WORK_FOLDER, StoreMeta, read_meta
from trar.features.text import Vocabulary
from trar.features.verify import check_files, verify_store
from trar.features.writer import StoreWriter
from trar.fileio import need_space, write_json
from trar.pipeline.config import PrepareConfig
from trar.pipeline.dictionaries import Dictionaries, find_lxmert_answers
from trar.pipeline.repair_images import ImageRepair
from trar.pipeline.repair_questions import Tables, changed_files, remake_questions
from trar.pipeline.repair_rows import RowsRepair
from trar.pipeline.replacement import Replacement, is_of
from trar.pipeline.sources import Source, open_source
from trar.pipeline.vectors import Lookup, cut_vectors, vectors_name
from trar.pipeline.vocabulary import (
    Answers,
    Words,
    load_answers,
    load_words,
    read_answers,
)
from trar.pipeline.wordpieces import read_word_pieces

_FOLDER = "repair"


@dataclass(frozen=True)
class RepairConfig:
    """Where the raw files are, as for ``prepare``; what the store itself says is not asked."""

    raw: Path = Path("data")
    features: Path | None = None
    questions: tuple[Path, ...] = ()
    answers: Path | None = None
    wordpiece_vocab: Path | None = None
    vectors: str | None = None
    keep_portrait: bool = False
    workers: int | None = None


@dataclass(frozen=True)
class RepairResult:
    """``damaged``: file -> what was wrong with it; ``repaired``: those that are right again;
    ``problems``: what is still wrong (file or place -> why it stays so)."""

    folder: Path
    damaged: dict[str, str]
    repaired: list[str]
    problems: dict[str, str]


def find_damage(
    folder: Path, progress: Progress = lambda *_: None, *, held: bool = False
) -> dict[str, str]:
    """The listed files of a dataset folder that are not as ``store.json`` states: name -> what.

    ``held``: the caller holds the folder.

    Raises:
        StoreError: ``store.json`` is missing or damaged: nothing says what the files should be.
    """
    meta = _read_meta(folder)
    found = check_files(folder, meta, progress, held=held)
    return {one.where: one.what for one in found if one.where in meta.files}


def repair(
    folder: Path, config: RepairConfig, progress: Progress = lambda *_: None
) -> RepairResult:
    """Re-make what is damaged in a dataset folder, then verify the store as a whole.

    Stopped or killed it leaves a store with fewer damaged files; run again it goes on.

    Raises:
        StoreError: another process holds the folder, or its ``store.json`` is damaged.
        DiskError: no space or no permission.
    """
    work = folder / WORK_FOLDER
    with StoreWriter(folder, _read_meta(folder).container):
        meta = _read_meta(folder)  # nobody else writes from here on
        try:
            damaged = find_damage(folder, progress, held=True)
            with place_of(folder).aside(_FOLDER) as aside:
                state = Replacement(folder, aside, meta, damaged)
                if damaged:
                    size_bytes = sum(meta.files[name].bytes for name in damaged)
                    need_space(aside, size_bytes + (1 << 20), "this repair")
                    _Repair(state, config, progress).run()
        finally:
            with contextlib.suppress(OSError):  # a stopped prepare's receipts are not ours
                work.rmdir()
        problems = dict(state.failed)
        for problem in verify_store(folder, progress=progress):
            problems.setdefault(problem.where, problem.what)
    return RepairResult(folder, damaged, sorted(state.repaired), problems)


def _read_meta(folder: Path) -> StoreMeta:
    try:
        return read_meta(folder)
    except StoreError as error:
        if not (folder / STORE_FILE).exists():
            raise
        raise StoreError(
            f"{error}. It alone says what every file must be, so repair cannot do without it, and "
            f"a finished store keeps no receipts: delete {folder} and prepare it from the start"
        ) from None


class _Repair:
    """One repair. Words and answers come first: questions need them; then images: questions are
    joined with them."""

    def __init__(self, state: Replacement, config: RepairConfig, progress: Progress) -> None:
        self.state, self.meta, self.config, self.progress = state, state.meta, config, progress

    def run(self) -> None:
        with StoreWriter(self.state.aside, self.meta.container) as writer:
            self._dictionaries()
            rows = RowsRepair(self.state, writer.backend, self._raw, self.progress)
            ImageRepair(self.state, rows, self.config.workers, self.progress).run()
            for name, entry in self.meta.vectors.items():
                self.state.attempt(
                    [entry.file],
                    partial(self._remake_vectors, writer, name),
                    lambda: f"--vectors {self.config.vectors} has changed since",
                )
            for split in self.meta.question_splits:
                self._question_split(writer, split, rows)
            writer.backend.write_view(self.meta, self.meta.files)
            self.state.take_over(
                self.state.undecided(),
                lambda: f"could not be made anew; delete {self.state.folder} and prepare it again",
            )

    @cached_property
    def _raw_files(self) -> tuple[PrepareConfig, Source]:
        """The settings of the prepare that made the store, as far as they matter here."""
        config = self.config
        try:
            made = PrepareConfig(
                dataset=self.meta.dataset,
                raw=config.raw,
                store=self.state.folder.parent,
                features=config.features,
                questions=config.questions,
                keep_portrait=config.keep_portrait,
                on_bad_image="skip" if self.meta.provenance.get("skipped") else "error",
            )
        except ValidationError:
            raise StoreError(
                f"{self.state.folder}: no raw files are known of a dataset {self.meta.dataset!r}"
            ) from None
        return made, open_source(made)

    def _raw(self) -> tuple[PrepareConfig, Source]:
        return self._raw_files

    def _dictionaries(self) -> None:
        for scheme, answers in self.meta.answer_schemes.items():
            self.state.attempt(
                [answers.file],
                partial(self._remake_answers, scheme),
                partial(self._why, answers.made_from),
            )
        words = self.meta.vocabularies[TOKENIZER]
        self.state.attempt([words.file], self._remake_words, lambda: self._why(words.made_from))
        pieces = self.meta.vocabularies.get(WORD_PIECES)
        if pieces is not None:
            self.state.attempt(
                [pieces.file],
                self._remake_pieces,
                lambda: f"--wordpiece-vocab {self.config.wordpiece_vocab} has other pieces",
            )

    def _remake_answers(self, scheme: str) -> None:
        entry, (_, source) = self.meta.answer_schemes[scheme], self._raw()
        dictionary = self._given_answers(entry.digest)
        if dictionary is None and not set(entry.made_from) <= set(source.splits):
            raise RawDataError(f"it was given as {entry.made_from[0]}: give that with --answers")
        if dictionary is None:
            majority = [one for split in entry.made_from for one in source.majority(split)]
            dictionary = AnswerDictionary.build(
                majority, min_count=entry.min_count, rule=entry.rule
            )
        write_json(self.state.aside / entry.file, dictionary.to_json())

    def _given_answers(self, digest: str) -> AnswerDictionary | None:
        """Those of ``--answers`` or of LXMERT's tree, if they are the ones that the store had."""
        paths = (self.config.answers, find_lxmert_answers(self.config.raw))
        found = [read_answers(path) for path in paths if path is not None]
        return next((one for one in found if one.digest == digest), None)

    def _remake_words(self) -> None:
        entry, (_, source) = self.meta.vocabularies[TOKENIZER], self._raw()
        if "vg" in entry.made_from:  # its questions are chosen by their answers
            source.use_answers(self._answers().dictionary)
        texts = {split: source.texts(split) for split in entry.made_from}
        write_json(self.state.aside / entry.file, Vocabulary.build(texts).to_json())

    def _remake_pieces(self) -> None:
        entry, given = self.meta.vocabularies[WORD_PIECES], self.config.wordpiece_vocab
        if given is None:
            source = ", ".join(entry.made_from)
            raise RawDataError(f"it was made from {source}: give that with --wordpiece-vocab")
        pieces = replace(read_word_pieces(given), source_counts=tuple(entry.made_from.items()))
        write_json(self.state.aside / entry.file, pieces.to_json())

    def _answers(self, scheme: str = SCHEME) -> Answers:
        self._need(self.meta.answer_schemes[scheme].file)
        return load_answers(self.state.folder, self.meta, None, scheme)

    def _words(self, tokenizer: str = TOKENIZER) -> Words:
        self._need(self.meta.vocabularies[tokenizer].file)
        return load_words(self.state.folder, self.meta, tokenizer)

    def _with(self, added: str) -> Dictionaries:
        """Those of openvqa, and the word pieces or answers of that name."""
        words, schemes = self.meta.vocabularies, self.meta.answer_schemes
        return Dictionaries(
            {name: self._words(name) for name in words if name in (TOKENIZER, added)},
            {name: self._answers(name) for name in schemes if name in (SCHEME, added)},
        )

    def _need(self, name: str) -> None:
        if name in self.state.failed:
            raise StoreError(f"it is made with {name}, which could not be repaired")

    def _why(self, splits: Iterable[str]) -> str:
        """What a wrong digest of something made from these question splits means."""
        changed = changed_files(self.meta, self._raw()[1], splits)
        what = f"{', '.join(changed)} changed since" if changed else "the question files are others"
        return f"made anew it is not what the store had: {what}; {self.state.way_out()}"

    def _remake_vectors(self, writer: StoreWriter, name: str) -> None:
        source = self.config.vectors
        lookups: tuple[Lookup, ...] = ("spacy", "plain")
        for lookup in lookups if source is not None else ():
            assert source is not None
            if vectors_name(source, lookup) == name:
                cut = cut_vectors(source, self._words().vocabulary, lookup)
                assert cut is not None, "only --vectors none gives none, and that has no name"
                writer.write_vectors(name, cut.table, cut.covered, cut.made_from)
                return
        made_from = self.meta.vectors[name].made_from
        raise RawDataError(f"it was made from {made_from}: give that with --vectors")

    def _question_split(self, writer: StoreWriter, split: str, rows: RowsRepair) -> None:
        def make(name: str = SCHEME) -> None:
            config, source = self._raw()
            tables = Tables(writer, self._with(name))
            remake_questions(tables, self.meta, config, source, split, rows.rows)

        own = {name for name in self.state.undecided() if is_of(name, split)}
        variants = {**self.meta.vocabularies, **self.meta.answer_schemes}
        added = [name for name in variants if name not in (TOKENIZER, SCHEME)]
        for name in added:
            of_it = {one for one in own if f"/{name}/" in one}
            self.state.attempt(of_it, partial(make, name), lambda: self._why([split]))
        self.state.attempt(own, make, lambda: self._why([split]))
        shared = {name for name in self.state.undecided() if self._is_shared(name)}
        if not all(map(self.state.is_right, shared)):
            for name in added or [SCHEME]:
                with contextlib.suppress(RawDataError, StoreError, ConfigError):  # another may do
                    make(name)
        self.state.take_over([name for name in shared if self.state.is_right(name)], str)

    def _is_shared(self, name: str) -> bool:
        """Whether a file is of no split: the description of a group above them."""
        splits = (*self.meta.image_splits, *self.meta.question_splits)
        return not any(is_of(name, split) for split in splits)
