"""Compare every classifier of the zoo at one size: accuracy, spikes, operations, energy, time.

  python -m experiments.compare --data_dir=FILES                 all models on all data sets
  python -m experiments.compare --data_dir=FILES --seeds=5       two seeds more
  python -m experiments.compare --data_dir=FILES --time_only     time a training step of each
  python -m experiments.compare --page                           the page of the record, again
  python -m experiments.compare --page --add=OTHER               with what another process made

FILES holds a folder for each data set, named after it, with its published files; scikit-learn has
the digits. What is compared stands in `experiments.comparison`: all models have two layers and
nearly 20,000 parameters, look back only, and learn for the same updates by AdamW without decay on
a cosine. The learning rate of each is the best by validation of short runs on one data set, with a
seed of their own. The test split is read once for each seed, after the last update.

The record, experiments/results/comparison.json, is written after each run: a command that was
killed goes on where it was. Steps are timed by --time_only alone, for a quiet machine; it, too,
does what the record lacks.
"""

import argparse
import functools
import importlib.metadata
import json
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import comparison
from experiments.comparison import STEPS, find_width, make_model, make_settings, make_task
from experiments.comparison_page import write_page
from experiments.record import RESULTS, hardware
from experiments.step_costs import time_steps
from pspike_jax.analysis.activity import merge_aux
from pspike_jax.analysis.energy import estimate_energy
from pspike_jax.data import Task
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.objectives import metrics
from pspike_jax.training import fit, make_mesh, run_split
from pspike_jax.training.files import atomic_write
from pspike_jax.training.workdir import source_commit

RECORD = RESULTS / "comparison.json"
KEPT = ("validation/accuracy", "validation/loss")


def train(model: SequenceModel, task: Task, rate: float, seed: int, steps: int) -> dict[str, Any]:
    """Train a model on one device.

    Returns:
      "validation" scores and "variables" after the last update, and "seconds" of the processor; or
      "error", what stopped it.
    """
    start, mesh = time.process_time(), make_mesh(devices=jax.devices()[:1])
    try:
        settings = make_settings(steps, rate, seed)
        found = fit(model, task, settings, mesh=mesh, progress=False)
    except FloatingPointError as error:
        return {"error": str(error)}
    last = found.history[-1]
    scores = {name.partition("/")[2]: round(last[name], 5) for name in KEPT}
    seconds = round(time.process_time() - start, 1)
    return {"validation": scores, "variables": found.variables, "seconds": seconds}


def test(model: SequenceModel, task: Task, variables: Any, seed: int) -> dict[str, Any]:
    """Run the test split, once for each draw of the noise.

    Returns:
      accuracy; firing_rate, of all neurons and valid steps, None where nothing spikes; and per
      example the operations of `analysis.energy.Energy`.
    """
    mesh, draws = make_mesh(devices=jax.devices()[:1]), comparison.TEST_DRAWS
    run = functools.partial(
        run_split, model, variables, task.test, objective=task.objective,
        batch_size=comparison.EVALUATED, mesh=mesh,
    )
    keys = jax.random.split(jax.random.key(seed), draws if model.stochastic else 1)
    found = [run(key=key) for key in keys]
    aux = merge_aux(counts for _, counts in found)
    spikes = sum(np.sum(site["spikes"]) for site in aux["sites"].values())
    chances = sum(np.sum(site["steps"] * site["neurons"]) for site in aux["sites"].values())
    operations = estimate_energy(aux, examples=len(keys) * len(task.test.lengths))
    return {
        "accuracy": float(np.mean([metrics.mean(one["accuracy"]) for one, _ in found])),
        "firing_rate": float(spikes / chances) if aux["sites"] else None,
        "operations": operations._asdict(),
    }


def tune(model: SequenceModel, task: Task) -> dict[str, Any]:
    """Return the validation scores of each rate, or what stopped it, and the best rate.

    Raises:
      ValueError: no rate could be trained with.
    """
    scores = {}
    for rate in comparison.RATES:
        found = train(model, task, rate, comparison.TUNING_SEED, comparison.TUNING_STEPS)
        scores[f"{rate:g}"] = found.get("validation") or {"error": found["error"]}
    finite = {rate: one for rate, one in scores.items() if "error" not in one}
    if not finite:
        raise ValueError(f"no rate ends its training: {scores}")
    best = max(finite, key=lambda rate: (finite[rate]["accuracy"], -finite[rate]["loss"]))
    return {"tuning": scores, "learning_rate": float(best)}


def begin(path: pathlib.Path) -> dict[str, Any]:
    """Return the record at `path`, or a new one.

    Raises:
      ValueError: what is there was made with other settings.
    """
    settings = {
        name.lower(): getattr(comparison, name)
        for name in (
            "SIZE", "BATCH", "STEPS", "TUNED_ON", "TUNING_STEPS", "TUNING_SEED", "RATES",
            "TEST_DRAWS", "FIELDS",
        )
    }
    settings = json.loads(json.dumps(settings))
    if path.exists():
        record = json.loads(path.read_text())
        differing = [key for key, value in settings.items() if record["settings"][key] != value]
        if differing:
            raise ValueError(f"{path} has other {', '.join(differing)}; give another --record")
        return record
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    begun = {"settings": settings, "hardware": hardware(), "versions": versions}
    return begun | {"models": {}, "left_out": {}}


def add(record: dict[str, Any], path: pathlib.Path) -> None:
    """Take the models of another record, made with the same settings, into a record.

    Raises:
      ValueError: the settings are others, or a model is in both.
    """
    other = json.loads(path.read_text())
    both = sorted(record["models"].keys() & other["models"].keys())
    if both or other["settings"] != record["settings"]:
        raise ValueError(f"{path} has other settings, or has {both}, too")
    for part in ("models", "left_out"):
        record[part] |= other[part]


def compare(
    record: dict[str, Any], path: pathlib.Path, data_dir: str, tasks: Sequence[str],
    models: Sequence[str], seeds: int,
) -> None:
    """Add the runs that a record lacks, and write it after each.

    Args:
      record: from `begin`.
      path: where to write it.
      data_dir: as `make_task` takes it.
      tasks: of `STEPS`, one after another.
      models: rows of the comparison.
      seeds: their number.
    """
    save = lambda: atomic_write(path, json.dumps(record, indent=1) + "\n")
    for name in tasks:
        for row in models:
            try:
                _complete(record, save, data_dir, name, row, seeds)
            except (TypeError, ValueError) as error:  # it cannot take these data
                record["left_out"][row] = str(error).splitlines()[0]
                save()
            jax.clear_caches()  # the next model's programs are its own


def _complete(record, save, data_dir, name, row, seeds):
    """Add what a row lacks on one data set."""
    if row in record["left_out"]:
        return
    own = json.loads(json.dumps(comparison.own_fields(row)))
    kept = record["models"].get(row)
    if kept is None or kept["own"] != own:  # what is kept is of another model
        task = make_task(comparison.TUNED_ON, data_dir)
        kept = {"own": own} | tune(make_model(row, task, find_width(row, task)[0]), task)
        record["models"][row] = kept | {"tasks": {}}
        kept = record["models"][row]
        save()
    task = make_task(name, data_dir)
    found = kept["tasks"].get(name) or _begin_task(row, task)
    kept["tasks"][name] = found
    model = make_model(row, task, found["width"])
    for seed in range(seeds):
        if str(seed) in found["seeds"]:
            continue
        run = train(model, task, kept["learning_rate"], seed, STEPS[name])
        if variables := run.pop("variables", None):
            run |= test(model, task, variables, seed)
        found["seeds"][str(seed)] = run | {"commit": source_commit()}
        save()
        print(f"{name}, {row}, seed {seed}: {run}", flush=True)


def _begin_task(row, task):
    width, parameters = find_width(row, task)
    examples = len(task.test.lengths)
    return {"width": width, "parameters": parameters, "test_examples": examples, "seeds": {}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Complete the record that the command line names, or time its steps; and write its page."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commas = lambda text: text.split(",")
    parser.add_argument("--data_dir", default="data", help="folder of a folder of each data set")
    parser.add_argument("--tasks", type=commas, default=list(STEPS))
    parser.add_argument("--models", type=commas, default=list(comparison.rows()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record", type=pathlib.Path, default=RECORD)
    parser.add_argument("--add", type=pathlib.Path, help="another record, of other models")
    parser.add_argument("--time_only", action="store_true", help="time steps, train nothing")
    parser.add_argument("--page", action="store_true", help="write the page and pictures alone")
    asked = parser.parse_args(arguments)
    for name, known in (("tasks", STEPS), ("models", comparison.rows())):
        if unknown := [one for one in getattr(asked, name) if one not in known]:
            parser.error(f"--{name} has {unknown}; known are {', '.join(known)}")
    logging.getLogger("absl").setLevel(logging.WARNING)  # below that, Orbax tells of every file
    try:
        record = begin(asked.record)
        if asked.add is not None:
            add(record, asked.add)
            atomic_write(asked.record, json.dumps(record, indent=1) + "\n")
        if asked.time_only:
            time_steps(record, asked.record, asked.data_dir, asked.models)
        elif not asked.page:
            compare(
                record, asked.record, asked.data_dir, asked.tasks, asked.models, asked.seeds
            )
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    write_page(record, asked.record)


if __name__ == "__main__":
    main()
