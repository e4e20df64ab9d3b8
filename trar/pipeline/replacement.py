"""Damaged files of a store, and the files made anew that take their places.

A file made aside is taken over only if it has the digest that ``store.json`` states, and then by
one rename or one PUT: whenever this is stopped, each file is the damaged one or the right one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from trar.errors import DiskError, TrarError
from trar.features.place import place_of
from trar.features.schema import StoreMeta
from trar.fileio import disk_errors, sha256_file


class Replacement:
    """What of the dataset ``folder`` is ``damaged`` (name -> what is wrong), what has been
    ``repaired`` with files from ``aside``, and why the rest has ``failed``."""

    def __init__(self, folder: Path, aside: Path, meta: StoreMeta, damaged: dict[str, str]) -> None:
        self.folder, self.aside, self.meta, self.damaged = folder, aside, meta, damaged
        self.repaired: set[str] = set()
        self.failed: dict[str, str] = {}

    def undecided(self) -> set[str]:
        """Damaged files that are neither repaired nor given up."""
        return self.damaged.keys() - self.repaired - self.failed.keys()

    def attempt(
        self, names: Iterable[str], make: Callable[[], None], why: Callable[[], str]
    ) -> None:
        """Where any of ``names`` is undecided: ``make`` them aside and take them over.

        ``why`` says what it means that what was made is not what the store had. An error that the
        user can fix is the reason why they failed; the next attempt is made all the same.

        Raises:
            DiskError: no space or no permission: nothing else would succeed.
        """
        wanted = self.undecided() & set(names)
        if not wanted:
            return
        try:
            make()
        except DiskError:
            raise
        except TrarError as error:
            self.give_up(wanted, str(error))
        else:
            self.take_over(wanted, why)

    def give_up(self, names: Iterable[str], why: str) -> None:
        """Note why these files stay as they are."""
        self.failed.update(dict.fromkeys(names, why))

    def take_over(self, names: Iterable[str], why: Callable[[], str], *, keep: bool = True) -> None:
        """Put files made aside into their places if they are right; else ``why`` they are not.

        ``keep`` leaves the file aside as well, for what else is made there.
        """
        wrong = None
        for name in sorted(names):
            if not self.is_right(name):
                wrong = wrong or why()
                self.failed[name] = wrong
            elif (self.folder / name).is_dir():
                self.failed[name] = "a folder stands in its place: move it away"
            else:
                self._put(name, keep)
                self.repaired.add(name)

    def is_right(self, name: str) -> bool:
        """Whether a file made aside has the digest that the store states."""
        made = self.aside / name
        return made.is_file() and sha256_file(made) == self.meta.files[name].sha256

    def way_out(self) -> str:
        """How a message ends that says that raw files are not those of the store."""
        return (
            f"give the raw files that the store was made from, or delete {self.folder} and prepare "
            "it again"
        )

    def _put(self, name: str, keep: bool) -> None:
        made = self.aside / name
        with disk_errors(self.folder):
            if keep:
                made = Path(shutil.copyfile(made, self.aside / "taken.partial"))
        place_of(self.folder).put({name: made})


def is_of(name: str, split: str) -> bool:
    """Whether a file of a store is named after a split: in a folder of it, or as a file of it."""
    path = PurePosixPath(name)
    return split in path.parts or path.stem == split
