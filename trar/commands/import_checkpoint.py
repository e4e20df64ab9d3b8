"""``trar import``: weights of the original code as a checkpoint of ours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trar.commands.options import PATH, PLACE, json_option

if TYPE_CHECKING:
    from trar.features.text import Vocabulary


@click.command(name="import", short_help="Turn a checkpoint of the original code into ours.")
@click.argument("file", type=PATH)
@click.option("--store", type=PLACE, help="A feature store with their vocabulary and answers.")
@click.option("--dataset", metavar="NAME", help="Which dataset, if the store holds several.")
@click.option(
    "--vocabulary",
    type=PATH,
    metavar="FILE",
    help="Instead of the store's: a vocabulary file of one, or BERT's vocab.txt for LXMERT.",
)
@click.option(
    "--answers", type=PATH, metavar="FILE", help="Instead of the store's; answer_dict.json will do."
)
@click.option(
    "--preset",
    help="The recipe of the weights, by name or the originals' .yml: it tells the windows, heads "
    "and routing, which weights do not.  [default: by the weights, such as vqa-soft-avg or "
    "rwsan-vqa]",
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one setting of it.")
@click.option(
    "--pretrained-answers",
    type=PATH,
    metavar="FILE",
    help="The answers of LXMERT's pre-training, all_ans.json: needed for model_LXRT.pth.",
)
@click.option("--split", help="What the weights were trained on.  [default: the preset's]")
@click.option("--out", type=PATH, help="The file to write.  [default: FILE as .safetensors]")
@json_option
def import_command(
    file: Path,
    store: Path | None,
    dataset: str | None,
    vocabulary: Path | None,
    answers: Path | None,
    preset: str | None,
    sets: tuple[str, ...],
    pretrained_answers: Path | None,
    split: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Turn a checkpoint of the original code of TRAR, MCAN, RWSAN or LXMERT into one of ours.

    Weights alone are read, and no code in the file is run. Every name in it is reported.

    \b
    Example: trar import epoch13.pkl --store ./features --preset vqa-soft-avg-trainval-vg
             trar import epoch13.pkl --store ./features --preset configs/vqa/trar.yml
    """
    from trar.console import table
    from trar.errors import ConfigError
    from trar.features import FeatureStore
    from trar.pipeline.wordpieces import read_word_pieces
    from trar.trainer.config import build_config
    from trar.trainer.import_file import (
        import_file,
        preset_for,
        read_answers,
        read_head_answers,
        read_vocabulary,
    )
    from trar.trainer.importers import UnmatchedNamesError, read_original
    from trar.trainer.preset_files import read_preset

    original = read_original(file)
    config = build_config(
        store or "features",
        dataset=dataset,
        preset=preset or preset_for(original),
        sets=sets,
        split=split,
    )
    opened = None
    if store is not None:
        opened = FeatureStore(store, dataset).using(config.data.tokenizer, config.data.targets)
    if vocabulary is not None and vocabulary.suffix == ".txt":
        words: Vocabulary | None = read_word_pieces(vocabulary, option="--vocabulary")
    elif vocabulary is not None:
        words = read_vocabulary(vocabulary)
    else:
        words = opened.vocabulary if opened else None
    labels = read_answers(answers) if answers else opened.answers if opened else None
    if words is None or labels is None:
        raise ConfigError(
            "nothing says which word a row of the weights is, and which answer: give --store, or "
            "--vocabulary and --answers"
        )
    path = out or file.with_suffix(".safetensors")
    try:
        report = import_file(
            original,
            path,
            config=config,
            vocabulary=words,
            answers=labels,
            store=opened,
            same_pooling=preset is not None,
            head_answers=read_head_answers(pretrained_answers) if pretrained_answers else None,
        )
    except UnmatchedNamesError as error:
        for line in error.lines:
            click.echo(line, err=True)
        raise
    notes = [*read_preset(config.preset).notes, *original.notes]
    notes.append(f"taken as trained on {config.split}" + ("" if split else "; else say --split"))
    if preset is None:
        notes.append(
            f"heads, and what else weights do not tell (windows, routing), are those of "
            f"{config.preset}; else say --preset"
        )
    if as_json:
        names = [dataclasses.asdict(row) for row in report]
        click.echo(json.dumps({"checkpoint": str(path), "names": names, "notes": notes}, indent=1))
        return
    rows = [
        (one.original, one.why or one.ours, "x".join(map(str, one.shape)) or "-") for one in report
    ]
    click.echo(table(rows, header=("in the file", "here", "shape")))
    weights, unused = sum(one.ours != "-" for one in report), sum(bool(one.why) for one in report)
    rest = f"; {unused} more are not used, as said beside them" if unused else ""
    click.echo(f"{weights} of {len(report)} names are weights, and all of them were taken{rest}.")
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    click.echo(
        f"{path}: after epoch {original.epoch}, {len(words):,} words, {len(labels):,} answers"
    )
