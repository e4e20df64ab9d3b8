"""Options that several commands share, named once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click


class _LocalPath(click.Path):
    """A path of this machine; pathlib would make a path of an address, too."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            self.fail(f"{value}: only a store may be at an address; give a local path", param, ctx)
        return super().convert(value, param, ctx)


class _StorePlace(click.Path):
    """A local path or ``s3://bucket/prefix``."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            from trar.features.place import open_place

            return open_place(value)
        return super().convert(value, param, ctx)


PATH = _LocalPath(path_type=Path)
PLACE = _StorePlace(path_type=Path)


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
        type=PLACE,
        default=Path("features"),
        show_default=True,
        help="The feature store: its root, or one dataset folder in it, or s3://bucket/prefix.",
    )(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto takes a GPU where there is one.",
)


def share_cores() -> None:
    """Let torch's waiting threads sleep instead of spin; to be called before torch is imported.

    Spinning is 5 % faster on a quiet machine and many times slower beside another busy process.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
