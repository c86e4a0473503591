"""Ask every causal classifier what it remembers, and for how long.

  python -m experiments.memory                       all models, all tasks
  python -m experiments.memory --models=s4d,silif    some of them
  python -m experiments.memory --page                the page of the record that is there, again,
                                                     with the names of models that are not in it

Five tasks with known answers (`pspike_jax.data.recall`): copying, selective copying, induction,
parity, and digits named after a pause. Each begins with examples of 8 steps (digits 16). A model
that answers the share `THRESHOLDS` of the validation examples' questions goes on, with the weights
it has, to examples twice as long, up to --steps; one that does not within --level_steps updates
has found its limit. The last length that was passed is what it remembers. The test split is read
when a length is passed, and at the end.

Models have two layers of 32 features, and states of 16 where they have states; all else is that of
their default preset, but for `FIELDS` and `OWN` of `experiments.memory_ladder`. Batches of 32,
AdamW without decay, one rate for all.

The record, experiments/results/memory.json, holds a row for each model and task. It is written
after each of them: a command that was killed goes on where it was. `--seconds` bounds the
processor time of a row, without the model's compilation, which is once for all tasks. A row that
it ended says less of the model than of the machine: with a larger bound such rows are made again.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.memory_ladder import BATCH, FIELDS, OWN, RATE, THRESHOLDS, Learner, Settings
from experiments.memory_ladder import climb, make_model
from experiments.memory_page import write_page
from pspike_jax.models import list_models
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.training.files import atomic_write

RECORD = pathlib.Path(__file__).resolve().parent / "results" / "memory.json"


def begin(path: pathlib.Path, settings: Settings) -> dict[str, Any]:
    """Return the record at `path`, or a new one.

    Raises:
      ValueError: rows there are of other settings.
    """
    fixed = {
        "settings": dataclasses.asdict(settings), "thresholds": THRESHOLDS,
        "fields": FIELDS | {"rate": RATE, "batch": BATCH, "own": OWN},
    }
    fixed = json.loads(json.dumps(fixed))
    if path.exists():
        record = json.loads(path.read_text())
        record["settings"]["seconds"] = settings.seconds  # of the rows that are still to be made
        # So is what models without rows have of their own.
        ran = {key: own for key, own in record["fields"]["own"].items() if key in record["models"]}
        more = {key: own for key, own in OWN.items() if key not in record["models"]}
        record["fields"]["own"] = ran | more
        differing = [key for key, value in fixed.items() if record[key] != value]
        if differing:
            raise ValueError(f"{path} has other {', '.join(differing)}; give another --record")
        return record
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    return fixed | {"hardware": machine, "versions": versions, "models": {}, "left_out": {}}


def run(
    names: Sequence[str], tasks: Sequence[str], settings: Settings, path: pathlib.Path
) -> dict[str, Any]:
    """Add the rows that a record lacks, and write it after each.

    Args:
      names: of models.
      tasks: keys of `THRESHOLDS`.
      settings: of the record.
      path: of the record.

    Returns:
      The record.
    """
    record = begin(path, settings)
    save = lambda: atomic_write(path, json.dumps(record, indent=1) + "\n")
    for name in names:
        try:
            model = make_model(name, settings)
        except ValueError as error:
            record["left_out"][name] = str(error)
            save()
            continue
        rows = record["models"].setdefault(name, _facts(model))["tasks"]
        due = [task for task in tasks if _is_due(rows.get(task), settings)]
        learner = Learner(model, settings) if due else None
        for task in due:
            rows[task] = climb(learner, task, settings)
            save()
            print(f"{name}, {task}: {rows[task]}", flush=True)
        jax.clear_caches()  # the next model's programs are its own
    return record


def _is_due(row: dict[str, Any] | None, settings: Settings) -> bool:
    """Say whether a row is missing, or was ended by a time that is now longer."""
    if row is None:
        return True
    return row["ended"] == "seconds" and row["seconds"] < settings.seconds


def _facts(model: SequenceModel) -> dict[str, Any]:
    """Return what a model is: spiking or dense, its parameters, and a place for its rows."""
    tokens = jax.ShapeDtypeStruct((1, 16), np.int32)
    rngs = {name: jax.random.key(0) for name in ("params", "spikes", "dropout")}
    (_, aux), variables = jax.eval_shape(functools.partial(model.init_with_output, rngs), tokens)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return {"spiking": bool(aux["sites"]), "parameters": int(count), "tasks": {}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Complete the record that the command line names, and its page."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.memory", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commas = lambda text: text.split(",")
    parser.add_argument("--models", type=commas, default=list_models(kind="classifier"))
    parser.add_argument("--tasks", type=commas, default=list(THRESHOLDS))
    parser.add_argument("--record", type=pathlib.Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    asked = parser.parse_args(arguments)
    settings = Settings(**{name: getattr(asked, name) for name in vars(Settings())})
    if asked.page:
        record = json.loads(asked.record.read_text())
        done = {*record["models"], *record["left_out"]}
        record["not_reached"] = [name for name in asked.models if name not in done]
        atomic_write(asked.record, json.dumps(record, indent=1) + "\n")
    else:
        try:
            record = run(asked.models, asked.tasks, settings, asked.record)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
    write_page(record, asked.record)


if __name__ == "__main__":
    main()
