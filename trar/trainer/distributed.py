"""The processes of one run: who they are, and the few things that they tell each other.

``torchrun`` starts them and says in the environment which rank each one is; a process that it did
not start is the only one. Source of the variables: docs.pytorch.org/docs/stable/elastic/run.html.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trar.errors import ConfigError

Value = TypeVar("Value")

_LOCAL = (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
_SILENCE = datetime.timedelta(minutes=10)  # a rank that is alive but says nothing for so long


@dataclass(frozen=True)
class Ranks:
    """This process is ``rank`` of ``ranks``, the ``local_rank``-th of ``here`` on its machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, logs and reports."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all ranks, in place."""
        if self.ranks > 1:
            dist.all_reduce(value)
        return value

    def from_first(self, value: Value) -> Value:
        """What the first rank has; the other ranks' ``value`` does not matter."""
        if self.ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value in the order of ranks, on all of them."""
        if self.ranks == 1:
            return [value]
        every: list[Any] = [None] * self.ranks
        dist.all_gather_object(every, value)
        return every

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.ranks > 1:
            dist.barrier()


@contextlib.contextmanager
def ranks_of(device: str) -> Iterator[Ranks]:
    """Join the other processes of this run, if ``torchrun`` started any; gloo on CPUs, NCCL on
    GPUs, one GPU a process. A process that fails ends without waiting for the others: torchrun
    then stops them.

    Raises:
        ConfigError: more processes on this machine than GPUs.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield Ranks()
        return
    local = (int(os.environ.get(name, default)) for name, default in _LOCAL)
    here = Ranks(int(os.environ["RANK"]), ranks, *local)
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        if here.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {here.local_rank + 1} of this machine has no GPU, torch sees "
                f"{torch.cuda.device_count()}; start fewer: torchrun --nproc-per-node "
                f"{torch.cuda.device_count()}, or use --device cpu"
            )
        torch.cuda.set_device(here.local_rank)
    if not dist.is_initialized():  # once a process: a second group would meet the first's ports
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_SILENCE)
    yield here  # after an error nobody waits: torchrun stops the others
    here.wait()  # the first rank has written its last checkpoint
    atexit.unregister(dist.destroy_process_group)
    atexit.register(dist.destroy_process_group)


def lost_rank(error: RuntimeError) -> bool:
    """Whether ``error`` says that another process of this run has gone: gloo has no class of its
    own for that, its messages name its source files."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)
