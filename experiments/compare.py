"""Compare every reset-based neuron, P-SpikeSSM and S4D on real speech.

  python -m experiments.compare --dataset=japanese_vowels --data_dir=FILES --workdir=runs/vowels

FILES is the folder of the data set's published files. All models have two layers and about 20,000
parameters, batch norm, dropout 0.1, no look-ahead, and learn for the same epochs by AdamW without
decay on a cosine. The learning rate of each model is the one of `RATES` with the best validation
score, in runs with a seed of their own; then three seeds are trained with it. The test split is
read once for each of those, at its best step by validation.

A finished run in the workdir is not run again. What comes of all is written to
experiments/results/: DATASET.json, and for the reader DATASET.md with DATASET.png. With
--time_only, an epoch of each model is timed once more and put into the record that is there.
"""

import argparse
import functools
import importlib.metadata
import json
import logging
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.comparison import (
    EPOCHS,
    MODELS,
    RATES,
    SEEDS,
    TEST_DRAWS,
    TUNING_SEED,
    draw,
    make_config,
    page,
)
from experiments.record import RESULTS, hardware
from experiments.sweep import train_once
from pspike_jax.analysis import plots
from pspike_jax.analysis.activity import merge_aux
from pspike_jax.analysis.energy import estimate_energy
from pspike_jax.analysis.files import atomic_write
from pspike_jax.command.experiment import Experiment, build
from pspike_jax.data import train_batch
from pspike_jax.objectives import metrics
from pspike_jax.training import FitResult, create_state, run_split
from pspike_jax.training.sharding import shard_batch
from pspike_jax.training.state import compile_train_step

ROUNDS = 7  # timed epochs


def measure(experiment: Experiment, trained: FitResult, *, tests: bool) -> dict[str, Any]:
    """Return the scores of the best step by validation and, with `tests`, those of `test`."""
    (best,) = [line for line in trained.history if line["step"] == trained.best_step]
    found = {"validation": {name: best[f"validation/{name}"] for name in ("accuracy", "loss")}}
    return found | ({"test": test(experiment, trained.variables)} if tests else {})


def test(experiment: Experiment, variables: Any) -> dict[str, float]:
    """Run the test split, once for each draw of the noise.

    Returns accuracy; firing_rate, of all neurons and valid steps; per example, synaptic_operations,
    additions that spikes trigger, and multiply_accumulates, of products with real numbers and of
    linear states; parameters.
    """
    task, settings = experiment.task, experiment.evaluation
    draws = [
        run_split(
            experiment.model, variables, task.test, objective=task.objective, key=key,
            batch_size=experiment.training.eval_batch_size, mesh=experiment.mesh,
        )
        for key in jax.random.split(jax.random.key(settings.seed), settings.draws)
    ]
    aux = merge_aux(one for _, one in draws)
    operations = estimate_energy(aux, examples=settings.draws * len(task.test.lengths))
    sites = aux["sites"]
    spikes = sum(np.sum(site["spikes"]) for site in sites.values())
    chances = sum(np.sum(site["steps"] * site["neurons"]) for site in sites.values())
    return {
        "accuracy": float(np.mean([metrics.mean(one["accuracy"]) for one, _ in draws])),
        "firing_rate": float(spikes / chances) if sites else None,
        "synaptic_operations": operations.synaptic_ops if sites else None,
        "multiply_accumulates": operations.real_products + operations.state_macs,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
    }


def time_epochs(configs: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Time training epochs of {model: config}, without validation; the models take turns.

    Returns {model: {"q1", "median", "q3"}} in seconds, compilation not counted.
    """
    epochs = {model: _epoch_of(build(config)) for model, config in configs.items()}
    times: dict[str, list[float]] = {model: [] for model in epochs}
    for _ in range(1 + ROUNDS):
        for model, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            times[model].append(time.perf_counter() - start)
    return {
        model: dict(zip(("q1", "median", "q3"), np.percentile(one[1:], (25, 50, 75)).tolist()))
        for model, one in times.items()
    }


def _epoch_of(experiment):
    """Return a function that trains for one more epoch and waits for its end."""
    settings, task, mesh = experiment.training, experiment.task, experiment.mesh
    state = create_state(experiment.model, task, settings, mesh)
    advance = compile_train_step(state, mesh)

    def epoch():
        nonlocal state
        for step in range(len(task.train.lengths) // settings.batch_size):
            batch = train_batch(
                task.train, seed=settings.seed, step=step, batch_size=settings.batch_size
            )
            state, _ = advance(state, shard_batch(batch, mesh))
        jax.block_until_ready(state)

    return epoch


def compare(dataset: str, data_dir: str, workdir: str, epochs: int) -> dict[str, Any]:
    """Run what is not finished yet, on the published files in a folder.

    Returns {model: {"learning_rate", "tuning": {rate: validation scores}, "seeds": {seed: test},
    "config"}}.
    """
    tuned, tested = (functools.partial(measure, tests=tests) for tests in (False, True))
    rows = {}
    for model in MODELS:
        folder = pathlib.Path(workdir) / model
        scores = {}
        for rate in RATES:
            config = make_config(dataset, data_dir, model, rate, TUNING_SEED, epochs)
            scores[rate] = train_once(config, folder / f"rate_{rate}", tuned)["validation"]
        rate = max(scores, key=lambda rate: (scores[rate]["accuracy"], -scores[rate]["loss"]))
        seeds = {}
        for seed in SEEDS:
            config = make_config(dataset, data_dir, model, rate, seed, epochs)
            seeds[seed] = train_once(config, folder / f"seed_{seed}", tested)["test"]
            print(f"{model}, rate {rate}, seed {seed}: {seeds[seed]}", flush=True)
        jax.clear_caches()  # the next model's programs are its own
        settings = {name: config[name] for name in ("model", "optimizer", "training")}
        rows[model] = {
            "learning_rate": rate, "tuning": scores, "seeds": seeds, "config": settings
        }
    return rows


def over_seeds(values: list[float]) -> dict[str, float]:
    """Return the mean of one number of each seed, and its standard error; NaN for one seed."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"mean": statistics.fmean(values), "sem": error, "seeds": len(values)}


def make_record(dataset: str, rows: dict[str, Any]) -> dict[str, Any]:
    """Put what `compare` returned, and its spread over seeds, into a record without times."""
    for row in rows.values():
        seeds = list(row["seeds"].values())
        row["over_seeds"] = {
            name: over_seeds([seed[name] for seed in seeds])
            for name in seeds[0] if seeds[0][name] is not None
        }
    return {
        "dataset": dataset,
        "epochs": EPOCHS[dataset],
        "test_draws": TEST_DRAWS,
        "rounds": ROUNDS,
        "hardware": hardware(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax")},
        "models": rows,
    }


def write(record: dict[str, Any], path: pathlib.Path) -> str:
    """Write a record, its page and its picture; return the page."""
    atomic_write(path, json.dumps(record, indent=1) + "\n")
    record = json.loads(path.read_text())
    atomic_write(path.with_suffix(".md"), page(record))
    plots.save_figure(draw(record), path.with_suffix(".png"))
    return page(record)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the record that the command line names, or time its epochs again."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", required=True, choices=[*EPOCHS])
    parser.add_argument("--data_dir", required=True, help="folder of its published files")
    parser.add_argument("--workdir", help="folder of all runs; not needed with --time_only")
    parser.add_argument("--time_only", action="store_true", help="time the record's epochs again")
    asked = parser.parse_args(arguments)
    logging.getLogger("absl").setLevel(logging.WARNING)  # below that, Orbax tells of every file
    dataset, path = asked.dataset, RESULTS / f"{asked.dataset}.json"
    if asked.time_only:
        record = json.loads(path.read_text())
    elif asked.workdir is None:
        parser.error("--workdir is missing")
    else:
        rows = compare(dataset, asked.data_dir, asked.workdir, EPOCHS[dataset])
        record = make_record(dataset, rows)
        write(record, path)  # the times can be had again
    configs = {
        model: make_config(
            dataset, asked.data_dir, model, row["learning_rate"], SEEDS[0], EPOCHS[dataset]
        )
        for model, row in record["models"].items()
    }
    for model, seconds in time_epochs(configs).items():
        record["models"][model]["seconds_per_epoch"] = seconds
    record["hardware"] = hardware()  # of the times; nothing else depends on it
    print(write(record, path))


if __name__ == "__main__":
    main()
