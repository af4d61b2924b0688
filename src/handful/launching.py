"""Starting the processes of one run, or joining those that torchrun or SLURM have started.

    handful train RECIPE --out RUN --devices 2                             # starts a second process on this machine
    torchrun --nproc-per-node 8 -m handful train RECIPE --out RUN --devices 8
    srun handful train RECIPE --out RUN --devices 8 --nodes 2              # on two machines, --ntasks-per-node=8

What they then do together is in `handful.processes`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException

from handful.errors import HandfulError, first_line
from handful.processes import rank, world
from handful.runtime import Precision, device

PATIENCE = 6.0  # seconds in which the first process may end before another says what stopped it


@contextmanager
def launched(devices: int, nodes: int, precision: Precision) -> Iterator[Fabric]:
    """Start the processes that are asked for, or join those that torchrun or SLURM have started.

    devices: processes on each machine, one a GPU where there are GPUs; nodes: machines.  Those that are started run
    this program again, from its beginning to here.  Past this context only the first process goes on.
    """
    check_started(devices * nodes)
    # unused parameters: pre-training, say, leaves out what only episodes teach
    strategy = DDPStrategy(find_unused_parameters=True) if devices * nodes > 1 else "auto"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would announce each process
    parent = os.getppid()
    try:
        fabric = Fabric(
            accelerator=device().type, devices=devices, num_nodes=nodes, strategy=strategy, precision=precision
        )
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise HandfulError(f"{devices} devices on {nodes} nodes cannot be used ({first_line(error)}).") from error
    number, several = rank(), world() > 1
    try:
        yield fabric
    except BaseException as error:
        if not several:
            raise
        free(error)
        gone = isinstance(error, RuntimeError) and is_connection(error)
        if isinstance(error, KeyboardInterrupt) and number and any(other.detect() for _, other in STARTERS):
            os._exit(130)  # the first says it; whose child this is will not end before this does
        if gone or isinstance(error, (HandfulError, KeyboardInterrupt)):
            wait_for_first(number, parent)
        if gone:
            raise HandfulError(
                f"Another of the {devices * nodes} processes has ended, so this one stops too; the same command, "
                "without --fresh, goes on from where the run was saved last."
            ) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if number:
        sys.exit(0)


STARTERS = (("torchrun", TorchElasticEnvironment), ("SLURM", SLURMEnvironment))


def check_started(asked: int) -> None:
    """Refuse another number of processes than torchrun or SLURM have started."""
    for name, environment in STARTERS:
        if not environment.detect():
            continue
        try:
            started = environment().world_size()
        except RuntimeError as error:  # Lightning misses a variable, or finds one that it cannot use
            raise HandfulError(f"What {name} says of its processes cannot be used ({first_line(error)}).") from error
        if started != asked:
            raise HandfulError(
                f"{name} has started {started} processes, and {asked} are asked for; say with --devices how many are "
                "on each machine, and with --nodes on how many machines."
            )


def is_connection(error: RuntimeError) -> bool:
    """Whether an error is that another process is not there any more."""
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in said for word in ("gloo", "nccl", "connection"))


def free(error: BaseException) -> None:
    """Free what the frames of an error hold: the model, which holds on to the group of processes.

    Freed after the group has been left, it would be the last to hold it, and torch then waits for the group's thread
    without letting Python go on, for which that thread may wait.
    """
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__context__


def wait_for_first(number: int, parent: int) -> None:
    """Leave it to the first process to say what stopped all; another one speaks only if the first does not end."""
    if number == 0:
        return
    asked = time.monotonic()
    while time.monotonic() - asked < PATIENCE:
        if os.getppid() != parent:
            os._exit(0)  # nobody is left to be told
        time.sleep(0.1)
