"""Options that several commands share, named once."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


@contextlib.contextmanager
def on_stop(hint: str) -> Iterator[Callable[[], None]]:
    """Say what Ctrl-C left behind and how to go on; work that knows better than ``hint`` says so
    in a note on the KeyboardInterrupt.

    Python drops an exception raised inside a finaliser or a weak reference's callback, and with it
    a Ctrl-C that falls there. The function given here, called now and then, raises such a one.
    """
    lost = False

    def keep(unraisable: sys.UnraisableHookArgs) -> None:
        nonlocal lost
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            lost = True
        else:
            before(unraisable)

    def check() -> None:
        if lost:
            raise KeyboardInterrupt

    before, sys.unraisablehook = sys.unraisablehook, keep
    try:
        yield check
    except KeyboardInterrupt as stop:
        click.echo("\n" + "\n".join(getattr(stop, "__notes__", [hint])), err=True)
        raise click.Abort from None
    finally:
        sys.unraisablehook = before


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--dataset", metavar="NAME", help="Which dataset, if the store holds several."
    )(function)
    return click.option(
        "--store",
        type=PATH,
        default=Path("features"),
        show_default=True,
        help="The feature store: its root, or one dataset folder in it.",
    )(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
