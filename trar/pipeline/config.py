"""What a prepare is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from trar.features.place import open_place
from trar.features.schema import Compress, Container

Dataset = Literal["vqa", "clevr", "easy-vqa", "table"]
StorePath = Annotated[Path, PlainValidator(open_place), PlainSerializer(str, when_used="json")]
"""A local folder or ``s3://bucket/prefix``."""

_DEFAULT_SPLIT = {"easy-vqa": "train+val+test", "table": "all"}


class PrepareConfig(BaseModel):
    """Settings of one ``trar-data prepare``; every default is what the command line shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Dataset = "vqa"
    raw: Path = Path("data")
    store: StorePath = Path("features")
    split: str | None = None
    """Question splits, joined by ``+``; None: train+val (easy-vqa and tables: all they have)."""
    features: Path | None = None
    """Where the image features are, if not where ``raw``'s layout says."""
    questions: tuple[Path, ...] = ()
    """Question and annotation files, if not where ``raw``'s layout says; known by content."""
    layout: Literal["auto", "grid", "regions", "ragged"] = "auto"
    """An image is a grid of cells, a fixed number of regions, or any number; auto: as the first
    images are."""
    grid: int | None = Field(default=None, ge=1, le=64)
    """Side of the feature grid: a feature file must have ``grid * grid`` cells. None: as the first
    image says, else 8 (CLEVR: 14)."""
    feature_dim: int | None = Field(default=None, ge=1)
    """Asserted width of a cell's features; None takes the first image's."""
    keep_portrait: bool = False
    """Leave grid-feats-vqa maps of portrait images upright; TRAR's published features turn them."""
    dtype: Literal["float16", "float32"] = "float16"
    format: Container | None = None
    """The container that the arrays are written in; None: as the store is, a new one in zarr."""
    compress: Compress | None = None
    """Of features; None: as the store is, a new one none."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Stop at an image that is missing or cannot be read, or leave it and its questions out."""
    answers: Path | None = None
    """A given answer dictionary in the originals' shape, for ``targets``; None builds one."""
    targets: Literal["openvqa", "lxmert"] = "openvqa"
    """lxmert: also targets by its rule (answers counted as they stand) in its order of answers."""
    tokenizer: Literal["openvqa", "wordpiece"] = "openvqa"
    """wordpiece: also BERT's word pieces of each question."""
    wordpiece_vocab: Path | None = None
    """The ``vocab.txt`` or ``tokenizer.json`` of these; None: those that the store has."""
    vg_answer_weight: Literal["as_counted", "one"] = "as_counted"
    """Target of a Visual Genome answer: by the number of its copies (one copy: 0.3), or 1."""
    vectors: str | None = None
    """Word vectors to cut to the vocabulary: a spaCy pipeline or folder, a GloVe file, or None."""
    vectors_lookup: Literal["spacy", "plain"] = "spacy"
    """Which vector a word gets: the mean over spaCy's tokens of it (TRAR, openvqa, MCAN), or its
    own or zeros (RWSAN)."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many images of each split (lowest ids), and only the questions about them."""
    shard_images: int | None = Field(default=None, ge=1)
    """Chunks (images, or 64 regions) per shard; None: 1024, or fewer for at most 256 MiB."""
    scheduler: str | None = None
    """Address of a dask cluster that reads the features instead (``tcp://host:port``)."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that read features; 0: this one; None: as many as there are cores."""

    @property
    def wanted_split(self) -> str:
        """The sum of splits, with the dataset's default filled in; ``all``: every one present."""
        return self.split or _DEFAULT_SPLIT.get(self.dataset, "train+val")
