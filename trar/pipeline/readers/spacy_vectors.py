"""Word vectors of a spaCy pipeline, of spaCy 2 or 3, read from its folder.

A pipeline's folder has ``meta.json`` and ``vocab/``: ``vectors``, a .npy of (rows, w), and
``key2row``, msgpack from the 64-bit hash of a word to its row. spaCy 2 packages such as
en_vectors_web_lg have the same files, and cannot be loaded by spaCy 3. The folder is read as data:
none of its code or pipeline components is run, and of a table of a gigabyte only the rows of
wanted words are touched.
"""

from __future__ import annotations

import importlib.util
import re
import struct
import tokenize
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from trar.errors import RawDataError
from trar.fileio import disk_errors
from trar.pipeline.readers.spacy_tokenizer import one_line

WITH_VECTORS = (
    "take glove.840B.300d.zip, en_vectors_web_lg 2.x, or en_core_web_lg (up to 3.2: GloVe)"
)

_GENERIC_NAMES = {"", "pipeline", "model"}  # what spaCy calls a pipeline that nobody named
_FIRST_HASH = 1000  # spaCy's smaller keys are its symbols


@dataclass(frozen=True)
class Pipeline:
    """A folder with vectors: ``vocab`` holds them, ``folder`` the tokenizer and the meta data.

    ``title`` is spaCy's name of it, ``version`` may be empty; ``sources`` are what the vectors and
    the rest were made from, and ``spacy`` the versions of spaCy it is for, as ``meta.json`` says.
    """

    folder: Path
    vocab: Path
    lang: str
    title: str
    version: str
    sources: tuple[str, ...]
    spacy: str

    @property
    def name(self) -> str:
        """For people: ``en_vectors_web_lg 2.1.0``."""
        return f"{self.title} {self.version}".strip()


@dataclass(frozen=True)
class PipelineVectors:
    """``rows`` of the wanted words that have a vector, word -> (width,) float32; ``words`` and
    ``vectors`` count the whole table: where there are fewer vectors, words share them. ``unsure``
    are wanted words that were left out because their key may mean another word."""

    width: int
    rows: dict[str, NDArray[np.float32]]
    words: int
    vectors: int
    unsure: tuple[str, ...]


def installed_folder(name: str) -> Path | None:
    """Where the installed package ``name`` lies, not imported. None where there is none."""
    if not name.isidentifier():
        return None
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def find_pipeline(folder: Path) -> Pipeline:
    """The pipeline in ``folder``: its data, its package (data one or two folders down), or a bare
    folder of vectors (spaCy's ``Vectors.to_disk``).

    Raises:
        RawDataError: no such thing there, or several.
    """
    with disk_errors(folder):
        found = [folder] if (folder / "vocab").is_dir() else []
        for pattern in ("*/vocab", "*/*/vocab"):
            if not found:
                found = sorted(vocab.parent for vocab in folder.glob(pattern) if vocab.is_dir())
        bare = not found and (folder / "key2row").is_file()
    if len(found) > 1:
        raise RawDataError(f"{folder}: several pipelines in it; choose one, such as {found[0]}")
    if not found and not bare:
        raise RawDataError(
            f"{folder}: no spaCy pipeline (a folder with meta.json and vocab/) and no vectors "
            f"(vectors and key2row) in it; {WITH_VECTORS}"
        )
    data = found[0] if found else folder
    meta = _read_meta(data / "meta.json")
    name, lang, version = (_text(meta.get(key)) for key in ("name", "lang", "version"))
    lang = lang or "en"
    title = data.resolve().name if name in _GENERIC_NAMES else f"{lang}_{name}"
    return Pipeline(
        folder=data,
        vocab=data / "vocab" if found else folder,
        lang=lang,
        title=title,
        version="" if version == "0.0.0" else version,
        sources=tuple(_source_names(meta.get("sources"))),
        spacy=_text(meta.get("spacy_version")),
    )


def read_pipeline_vectors(pipeline: Pipeline, wanted: Collection[str]) -> PipelineVectors:
    """The vectors of the ``wanted`` words.

    Raises:
        RawDataError: no vectors, damaged, or numbers that are not finite.
    """
    from spacy.strings import get_string_id  # seconds to import

    table = _open_table(pipeline)
    rows_of = _read_keys(pipeline.vocab / "key2row", len(table))
    keys = {word: get_string_id(word) for word in wanted}
    unsure = [] if _same_symbols(pipeline, rows_of) else _symbols(keys)
    rows = {}
    for word, key in keys.items():
        row = rows_of.get(key)
        if row is not None and word not in unsure:
            with np.errstate(over="ignore"):
                rows[word] = np.array(table[row], np.float32)
            if not np.isfinite(rows[word]).all():
                raise RawDataError(
                    f"{pipeline.vocab / 'vectors'}, row {row}: NaN or infinite numbers for "
                    f"{word!r}: damaged; install or unpack it again"
                )
    return PipelineVectors(table.shape[1], rows, len(rows_of), len(table), tuple(unsure))


def _symbols(keys: dict[str, int]) -> list[str]:
    """The words that spaCy has a small number for instead of a hash: "number", "mark", "TIME"."""
    return sorted(word for word, key in keys.items() if key < _FIRST_HASH)


def _same_symbols(pipeline: Pipeline, rows_of: dict[int, int]) -> bool:
    """Whether those numbers mean the same words in the pipeline as in the spaCy installed here.

    They were given anew after spaCy 2.0, so that the number of "number" can be that of "num" in
    an old package. Words that every large table has, and one that none has, tell.
    """
    if not re.search(r"(?<![\d.])[012]\.", pipeline.spacy):
        return True
    from spacy.strings import get_string_id  # seconds to import

    has = [get_string_id(word) in rows_of for word in ("number", "root", "WORK_OF_ART")]
    return has == [True, True, False]


def _open_table(pipeline: Pipeline) -> NDArray[Any]:
    """The table (rows, w) in the file, mapped: no row is read before it is asked for."""
    path = pipeline.vocab / "vectors"
    begin = b""
    try:
        with disk_errors(path), path.open("rb") as file:
            begin = file.read(20)
            file.seek(0)
            version = npy_format.read_magic(file)
            read = (
                npy_format.read_array_header_1_0
                if version == (1, 0)
                else npy_format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
        if 0 in shape:
            raise _no_vectors(pipeline)
        if len(shape) != 2 or dtype.kind != "f":
            raise RawDataError(
                f"{path}: {dtype} {shape}, expected a table (words, numbers) of floats: no "
                "vectors of spaCy; install or unpack it again"
            )
        return npy_format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise _no_vectors(pipeline) from None
    except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        EOFError,
        OverflowError,
        MemoryError,
        RecursionError,
        struct.error,
        tokenize.TokenError,
    ) as error:
        if begin.startswith(b"version https://git"):
            raise RawDataError(
                f"{path}: a Git LFS pointer in place of the vectors; fetch them with git lfs pull"
            ) from None
        raise RawDataError(
            f"{path}: not readable as an array ({one_line(error)}); {path.stat().st_size} bytes: "
            "cut short or damaged; install or unpack it again"
        ) from None


def _no_vectors(pipeline: Pipeline) -> RawDataError:
    return RawDataError(
        f"{pipeline.folder}: {pipeline.name} has no word vectors (pipelines named _sm and _trf "
        f"have none); {WITH_VECTORS}"
    )


def _read_keys(path: Path, table_rows: int) -> dict[int, int]:
    try:
        with disk_errors(path):
            keys = msgspec.msgpack.decode(path.read_bytes(), type=dict[int, int])
    except FileNotFoundError:
        raise RawDataError(f"{path}: missing; install or unpack the pipeline again") from None
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise RawDataError(
            f"{path}: not a table from words to rows ({one_line(error)}): cut short or damaged; "
            "install or unpack it again"
        ) from None
    if not keys:
        raise RawDataError(
            f"{path}: no words in it (vectors of spaCy's floret kind have none and are not read); "
            f"{WITH_VECTORS}"
        )
    if min(keys.values()) < 0 or max(keys.values()) >= table_rows:
        raise RawDataError(
            f"{path}: names rows {min(keys.values())}..{max(keys.values())}, the vectors have "
            f"{table_rows}: they belong to different pipelines; install or unpack it again"
        )
    return keys


def _read_meta(path: Path) -> dict[str, Any]:
    """What ``meta.json`` says; nothing where there is none, as beside bare vectors."""
    try:
        with disk_errors(path):
            meta = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise RawDataError(
            f"{path}: not valid JSON ({one_line(error)}); install or unpack the pipeline again"
        ) from None
    return meta if isinstance(meta, dict) else {}


def _source_names(sources: Any) -> Iterable[str]:
    for one in sources if isinstance(sources, list) else []:
        yield str(one.get("name")) if isinstance(one, dict) else str(one)


def _text(value: Any) -> str:
    return one_line(value) if isinstance(value, str) else ""
