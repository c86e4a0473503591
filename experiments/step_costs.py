"""Time and memory of a training step of every model that `experiments.compare` compares."""

import functools
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.comparison import (
    RATES, STEPS, find_width, make_model, make_settings, make_task
)
from experiments.record import hardware
from pspike_jax.data import Task, train_batch
from pspike_jax.training import create_state, make_mesh, shard_batch
from pspike_jax.training.files import atomic_write
from pspike_jax.training.state import compile_train_step
from pspike_jax.training.workdir import source_commit

TIMED_ON, WARM_UP, TIMED = "digits", 3, 25  # steps


def time_step(row: str, task: Task, width: int) -> dict[str, Any]:
    """Measure a training step as `fit` compiles it, on one device.

    Args:
      row: of the comparison.
      task: that it learns.
      width: of the model.

    Returns:
      "q1", "median" and "q3" of its seconds, and "temporary_bytes", what the program needs beside
      its arguments and results.
    """
    mesh = make_mesh(devices=jax.devices()[:1])
    settings = make_settings(STEPS[TIMED_ON], RATES[0], 0)
    state = create_state(make_model(row, task, width), task, settings, mesh)
    take = functools.partial(train_batch, task.train, seed=0, batch_size=settings.batch_size)
    batches = [shard_batch(take(step=step), mesh) for step in range(8)]
    advance = compile_train_step(state, mesh).lower(state, batches[0]).compile()
    seconds = []
    for step in range(WARM_UP + TIMED):
        start = time.perf_counter()
        state, _ = advance(state, batches[step % len(batches)])
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
    quartiles = np.percentile(seconds[WARM_UP:], (25, 50, 75)).tolist()
    memory = advance.memory_analysis().temp_size_in_bytes
    return dict(zip(("q1", "median", "q3"), quartiles)) | {"temporary_bytes": memory}


def time_steps(
    record: dict[str, Any], path: pathlib.Path, data_dir: str, models: Sequence[str]
) -> None:
    """Measure a step of the models that a record has none of, and write it after each.

    Args:
      record: of the comparison; "steps" in it is completed.
      path: where to write it.
      data_dir: as `make_task` takes it.
      models: rows of the comparison.
    """
    task, about = make_task(TIMED_ON, data_dir), {"task": TIMED_ON, "steps": TIMED}
    record["timed"] = about | {"hardware": hardware()}
    steps = record.setdefault("steps", {})
    for row in models:
        if row in steps or row in record["left_out"]:
            continue
        trained = record["models"].get(row, {"tasks": {}})["tasks"].get(TIMED_ON)
        try:
            width = trained["width"] if trained else find_width(row, task)[0]
        except ValueError as error:
            record["left_out"][row] = str(error).splitlines()[0]
            continue
        steps[row] = time_step(row, task, width) | {"width": width, "commit": source_commit()}
        atomic_write(path, json.dumps(record, indent=1) + "\n")
        print(f"{row}: {steps[row]}", flush=True)
        jax.clear_caches()  # the next model's programs are its own
