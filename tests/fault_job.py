"""A run of the tiny model that says what it is about to do, so that it can be stopped there.

  python tests/fault_job.py DATA WORKDIR [HOST:PORT PROCESSES PROCESS]

DATA is a prepared data set. Each mark is a line on standard output; the last line is a digest of
all bits that the run ends with. Where the environment names a step as NAN_AT_STEP, the inputs of
its batch are not numbers.
"""

import hashlib
import os
import pathlib
import sys

import jax
import numpy as np
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

from pspike_jax.data.prepared import open_prepared, write_prepared
from pspike_jax.data.source import Source
from pspike_jax.training import FitResult, fit, make_mesh
from pspike_jax.training import checkpoints as checkpoints_module
from pspike_jax.training.checkpoints import Checkpoints
from pspike_jax.training.distributed import start_processes
from pspike_jax.training.run import Prefetch
from pspike_jax.training.run import Run

HEARTBEAT = 10  # seconds after which a silent process counts as dead
MARKS = {  # what follows a mark
    "restore": (Checkpoints, "restore_latest"),
    "step": (Prefetch, "next"),
    "evaluation": (Run, "_validate"),
    "save": (Checkpoints, "save"),
    "removal": (checkpoints_module, "_remove"),
}


def prepare(folder: pathlib.Path) -> None:
    """Write the tiny task as a prepared data set."""
    splits = tiny_task().splits()
    arrays = [np.concatenate(part) for part in zip(*(split[:3] for split in splits.values()))]
    source = Source(
        name="tiny",
        counts={name: len(split.targets) for name, split in splits.items()},
        shape=arrays[0].shape[1:],
        dtype="float32",
        num_classes=3,
        vocab_size=None,
        blocks=[arrays],
        settings={},
    )
    write_prepared(source, folder)


def mark(word: str, owner: object, name: str) -> None:
    """Make every call of a function write a line first."""
    function = getattr(owner, name)

    def marked(*args, **kwargs):
        print(word, flush=True)
        return function(*args, **kwargs)

    setattr(owner, name, marked)


def poison(step: int) -> None:
    """Make the inputs of one batch not numbers."""
    make = Prefetch._make

    def poisoned(batches, done):
        batch = make(batches, done)
        return batch | {"inputs": batch["inputs"] * np.nan} if done + 1 == step else batch

    Prefetch._make = poisoned


def digest(result: FitResult) -> str:
    """Sum up all bits of the last state and of the best variables."""
    tree = {name: getattr(result.state, name) for name in checkpoints_module.LEAVES}
    tree |= {"key": jax.random.key_data(tree["key"]), "best": result.variables}
    found = hashlib.sha256(f"{jax.tree.structure(tree)} {result.best_step}".encode())
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def run(data: str, workdir: str, *job: str) -> FitResult:
    """Train, alone or as one process of a job."""
    mesh = one_device
    if job:
        coordinator, processes, process = job
        start_processes(
            coordinator=coordinator, processes=int(processes), process=int(process), timeout=60,
            heartbeat=HEARTBEAT,
        )
        mesh = make_mesh
    task, settings = open_prepared(data), tiny_settings()
    return fit(TinySpiking(), task, settings, workdir=workdir, mesh=mesh(), progress=False)


if __name__ == "__main__":
    for word, place in MARKS.items():
        mark(word, *place)
    if "NAN_AT_STEP" in os.environ:
        poison(int(os.environ["NAN_AT_STEP"]))
    print(f"end {digest(run(*sys.argv[1:]))}", flush=True)
