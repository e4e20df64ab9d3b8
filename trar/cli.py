"""The command line: ``trar-data`` makes and proves stores, ``trar`` trains and scores.

The commands stand in ``trar.commands``; here are the two groups and the exit codes. Libraries are
imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from typing import Any

import click

import trar
from trar.commands.bench import bench
from trar.commands.convert import convert
from trar.commands.ensemble import ensemble
from trar.commands.evaluate import evaluate, predict
from trar.commands.fetch import fetch
from trar.commands.import_checkpoint import import_command
from trar.commands.prepare import prepare
from trar.commands.repair import repair
from trar.commands.reproduce import reproduce
from trar.commands.show import info, show
from trar.commands.show_attention import alphas, layers, routing, spans, sparsity
from trar.commands.show_schedule import show as show_recipe
from trar.commands.submit import submit
from trar.commands.train import train
from trar.commands.verify import verify
from trar.errors import TrarError


class TrarGroup(click.Group):
    """Ends with 0 done, 1 a problem the user can fix, 2 wrong usage, 3 a bug, 130 Ctrl-C."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.ClickException as error:  # wrong usage
            error.show()
            sys.exit(error.exit_code)
        except TrarError as error:
            click.echo(f"{_rank()}Error: {error}", err=True)
            sys.exit(1)
        except (click.Abort, KeyboardInterrupt):
            # before what torch does at the end, which a second Ctrl-C would break off
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            click.echo("Stopped.", err=True)
            sys.exit(130)
        except BrokenPipeError:  # `trar-data info | head`
            sys.stderr.close()
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            click.echo(
                f"Error: this is a bug in trar {trar.__version__}; please report it with the lines "
                "above",
                err=True,
            )
            sys.exit(3)
        sys.exit(code if isinstance(code, int) else 0)


def _rank() -> str:
    """Which of several processes is speaking, where torchrun started them."""
    return f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""


@click.group(cls=TrarGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(trar.__version__, prog_name="trar-data")
def data() -> None:
    """Make feature stores from raw VQA files, and prove them sound."""


@click.group(cls=TrarGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(trar.__version__, prog_name="trar")
def main() -> None:
    """Train TRAR on a feature store, score it officially, and write submissions.

    \b
    Example: trar train --store ./features
    """


for command in (fetch, prepare, verify, repair, convert, info, show):
    data.add_command(command)
for command in (spans, alphas, sparsity, layers, routing):
    show_recipe.add_command(command)
for command in (
    train,
    evaluate,
    predict,
    ensemble,
    submit,
    import_command,
    reproduce,
    bench,
    show_recipe,
):
    main.add_command(command)
